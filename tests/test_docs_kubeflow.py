"""The page about Kubeflow names commands, options and settings that exist."""

import re
from pathlib import Path

import typer

from components.contracts.settings import Settings
from infra.cli import app

TEXT = Path("docs/kubeflow.md").read_text()


def test_every_command_and_option_exists():
    pipeline = typer.main.get_command(app).commands["pipeline"]
    found = re.findall(r"cohobate pipeline ([a-z]+)(.*)", TEXT)
    assert {name for name, _ in found} >= {"install", "submit", "schedule", "link", "compile"}
    for name, rest in found:
        options = {o for p in pipeline.commands[name].params for o in p.opts}
        assert set(re.findall(r"(?<=\s)--[a-z-]+", rest)) <= options, name


def test_every_setting_of_the_server_is_explained_and_exists():
    named = {name.lower() for name in re.findall(r"`COHOBATE_(KFP_[A-Z_]+)`", TEXT)}
    assert named == {name for name in Settings.model_fields if name.startswith("kfp_")}
