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


def test_every_make_target_variable_and_build_argument_exists():
    makefile, containerfile = Path("Makefile").read_text(), Path("infra/deploy/Containerfile").read_text()
    targets = set(re.findall(r"(?:`|^)make ([a-z-]+)", TEXT, flags=re.MULTILINE))
    assert targets == {"image", "image-test"}
    assert all(re.search(rf"^{re.escape(target)}:", makefile, flags=re.MULTILINE) for target in targets)
    variables = set(re.findall(r"(?:`|make image )([A-Z_]+)=", TEXT))
    assert variables == {"IMAGE", "IMAGE_FLAGS", "BASE"}
    assert all(re.search(rf"^{name} \?=", makefile, flags=re.MULTILINE) for name in variables)
    arguments = set(re.findall(r"--build-arg ([A-Z_]+)=", TEXT))
    assert arguments and arguments <= set(re.findall(r"^ARG ([A-Z_]+)=", containerfile, flags=re.MULTILINE))
    secrets = set(re.findall(r"--secret id=([a-z]+)", TEXT))
    assert secrets and secrets == set(re.findall(r"type=secret,id=([a-z]+)", containerfile))
