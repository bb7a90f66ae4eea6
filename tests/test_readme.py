"""What README shows is what is there."""

import re
from pathlib import Path

import pytest

from components.contracts.settings import Settings
from components.contracts.spec import load_spec

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize(("kind", "name"), [("yaml", "tickets.yaml"), ("python", "tickets.py")])
def test_the_example_is_the_files_that_the_tests_run(kind: str, name: str) -> None:
    (block,) = re.findall(rf"```{kind}\n(.*?)```", README, flags=re.DOTALL)
    assert block == (ROOT / "tests" / "workloads" / "tickets" / name).read_text()


def test_the_example_is_a_valid_spec() -> None:
    assert load_spec(ROOT / "tests" / "workloads" / "tickets" / "tickets.yaml").name == "tickets"


def test_every_setting_in_readme_exists() -> None:
    named = {n.lower() for n in re.findall(r"COHOBATE_(?!TEST_)([A-Z0-9_]+)", README)} - {""}
    assert named <= set(Settings.model_fields) and len(named) >= 15


def test_every_make_target_in_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:^|`)make ([a-z]+)", README, flags=re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_command_in_readme_exists() -> None:
    import typer

    from infra.cli import app

    group = typer.main.get_command(app)
    for line in re.findall(r"cohobate ([a-z][a-z ]*)", README):
        words = line.split()
        command = getattr(group, "commands", {}).get(words[0])
        assert command is not None, line
        inner = getattr(command, "commands", None)
        if inner is not None and len(words) > 1:
            assert words[1] in inner, line
