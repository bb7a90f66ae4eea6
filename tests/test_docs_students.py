"""The examples in docs/students.md are student sections that a spec takes, and every term stands in its table."""

import re
from pathlib import Path
from typing import get_args

import pytest

from components.contracts.spec import load_spec
from components.contracts.spec.objective import Term

DOC = (Path(__file__).parents[1] / "docs" / "students.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(student:.*?)```", DOC, re.S)
SPEC = """
name: example
teacher: {factory: "teacher.py:Teacher"}
features: {factory: "components.student.text:TextNgrams"}
"""


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_is_taken(example, tmp_path):
    (tmp_path / "spec.yaml").write_text(SPEC + example)
    student = load_spec(tmp_path / "spec.yaml").student
    assert student.stages or student.objective or student.recipes or student.privacy or student.data_free.inputs


def test_there_are_examples():
    assert len(EXAMPLES) == 5


def test_every_term_stands_in_the_table():
    table = {name for row in re.findall(r"^\| (`.*?) \|", DOC, re.M) for name in re.findall(r"`([\w-]+)`", row)}
    assert {term.__struct_config__.tag for term in get_args(Term)} == table
