"""docs/tagging.md: its spec is one, what it says is refused is, and its truth is taken."""

import json
import re
from pathlib import Path

from components.contracts.spec import load_spec
from components.contracts.spec.workload import OF_SETS, OF_SPANS, OF_VECTORS, WITHOUT
from components.contracts.tagging import spans_from, spans_in

DOC = (Path(__file__).parents[1] / "docs" / "tagging.md").read_text()


def block(kind):
    (found,) = re.findall(rf"```{kind}\n(.*?)```", DOC, flags=re.DOTALL)
    return found


def test_its_spec_is_one(tmp_path):
    (tmp_path / "names.yaml").write_text(block("yaml"))
    spec = load_spec(tmp_path / "names.yaml")
    assert spec.task == "tagging" and all(getattr(spec.limits, name.split(".")[1]) is not None for name in OF_SPANS)


def test_all_that_is_refused_is_named():
    refused = DOC[DOC.index("## What is refused") :]
    assert "those of [sets](multilabel.md) and of [vectors](embedding.md)" in refused
    for field in {*WITHOUT["tagging"], "features.entity"} - {*OF_SETS, *OF_VECTORS}:
        assert f"`{field}" in refused or f"`{field.removeprefix('limits.')}`" in refused, field


def test_its_truth_and_its_label_are_spans():
    (span,) = spans_from(json.loads(block("json"))["spans"])
    assert (span.start, span.end, span.label) == (0, 12, "PER")
    assert len(spans_in('[[0, 12, "PER"], [18, 24, "LOC"]]')) == 2 and '`[[0, 12, "PER"], [18, 24, "LOC"]]`' in DOC
