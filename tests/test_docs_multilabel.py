"""What docs/multilabel.md shows is what the platform takes, measures and refuses."""

import re
from pathlib import Path

import msgspec
import pytest

from components.contracts.spec import resolve
from components.contracts.spec.workload import OF_SPANS, OF_VECTORS, WITHOUT, Spec
from components.evaluate.evidence import Evidence, Judgement
from components.evaluate.sets import of_sets
from infra.init import MODALITIES
from serving.gateway.wire import read_truths

DOC = (Path(__file__).parents[1] / "docs" / "multilabel.md").read_text()


def blocks(kind):
    found = re.findall(rf"```{kind}\n(.*?)```", DOC, flags=re.DOTALL)
    assert found, kind
    return found


def test_the_teacher_s_code_runs():
    for block in blocks("python"):
        exec(compile(block, "multilabel.md", "exec"), {})  # noqa: S102


@pytest.mark.parametrize("n", [0, 1])
def test_the_spec_s_parts_are_ones(n):
    made = msgspec.yaml.decode(f"name: reviews\nfeatures: {{factory: 'f:F'}}\n{blocks('yaml')[n]}", type=Spec)
    assert made.task == "multilabel" and callable(resolve(made.teacher.factory))
    assert made.teacher.options.get("task", "multilabel") == "multilabel"


def test_the_truth_is_taken():
    (item,) = read_truths(blocks("json")[0].encode())[0]
    assert item.labels == ["price", "delivery"]


def test_what_is_refused_and_measured_is_named():
    assert "of [spans](tagging.md) and of [vectors](embedding.md)" in DOC
    own = [path for path in WITHOUT["multilabel"] if path not in (*OF_SPANS, *OF_VECTORS)]
    assert [path for path in own if f"`{path}`" not in DOC] == []
    measured = of_sets(Evidence(judgement=Judgement(workload="w", task="multilabel")), [])
    assert [name for name in measured if f"| `{name}` |" not in DOC] == []
    assert re.findall(r"--modality (\w+)", DOC) == ["multilabel"] and "multilabel" in MODALITIES
