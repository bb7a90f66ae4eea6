"""The runbook names commands, options, notices and settings that exist."""

import re
from pathlib import Path

import typer

from components.contracts.settings import Settings
from components.notify.events import EVENTS
from infra.cli import app

TEXT = Path("docs/runbook.md").read_text()


def test_every_command_and_option_exists():
    root = typer.main.get_command(app)
    found = re.findall(r"cohobate((?: [a-z-]+)+)((?:(?! cohobate)[^`\n|])*)", TEXT)
    assert len(found) > 15
    for words, rest in found:
        command = root
        for word in words.split():
            if not hasattr(command, "commands"):
                break
            command = command.commands[word]
        options = {o for p in command.params for o in p.opts}
        for option in re.findall(r"--[a-z-]+", rest.partition("#")[0]):
            assert option in options, (words, option)


def test_every_notice_is_explained_and_every_setting_exists():
    told = set(re.findall(r"^\| `([a-z]+\.[a-z_]+)`", TEXT, re.MULTILINE))
    assert set(EVENTS) - told == {"test.sent", "rollout.started", "rollout.step", "rollout.aborted"}
    for name in re.findall(r"COHOBATE_([A-Z_]+)", TEXT):
        assert name.lower() in Settings.model_fields, name
