"""The examples in docs/history.md are what the platform takes and says."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.contracts.spec import load_spec
from components.label.history_file import read_history
from infra.cli import app
from serving.gateway.wire import read_truths

ROOT = Path(__file__).parents[1]
DOC = (ROOT / "docs" / "history.md").read_text()
TICKETS = str(ROOT / "tests" / "workloads" / "tickets" / "tickets.yaml")


def blocks(kind):
    found = re.findall(rf"```{kind}\n(.*?)```", DOC, flags=re.DOTALL)
    assert found, kind
    return found


@pytest.mark.parametrize("n", [0, 1])
def test_the_histories_are_taken(tmp_path, n):
    path = tmp_path / "h.jsonl"
    path.write_text(blocks("jsonl")[n])
    entries = read_history(str(path), load_spec(TICKETS))
    assert len(entries) == 3
    assert all(json.loads(e.input.payload)["body"] for e in entries)


def test_the_check_says_what_is_shown(tmp_path):
    path = tmp_path / "h.jsonl"
    path.write_text(blocks("jsonl")[1])
    done = CliRunner().invoke(app, ["history", "check", str(path), "--spec", TICKETS])
    assert done.exit_code == 0
    assert done.stdout == blocks("text")[0]


def test_the_truths_are_requests():
    assert [len(read_truths(block.encode())[0]) for block in blocks("json")] == [1, 2]
    assert len(read_truths(re.findall(r"-d '(.*?)'", DOC)[0].encode())[0]) == 1


def test_the_record_is_as_shown():
    for block in blocks("python"):
        exec(compile(block, "history.md", "exec"), {})  # noqa: S102


def test_every_field_is_described():
    from components.label import history_file as fields

    for name in (*fields.FORMS, *fields.ABOUT_INPUT, *fields.ABOUT_TRUTH):
        assert f"`{name}`" in DOC or f"`{name}" in DOC or name == "workload", name
