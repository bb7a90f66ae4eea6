"""Sub-commands of ``cohobate`` that are imported when they are asked for: a look at the help imports none of them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import typer
from rich.markup import escape
from typer.core import TyperGroup
from typer.main import get_command


class SubCommand(NamedTuple):
    """A sub-command: its name, the module whose ``app`` it is, and that one's help as the list of commands shows it."""

    name: str
    module: str
    help: str


def with_sub_commands(known: Sequence[SubCommand]) -> type[TyperGroup]:
    """A class for ``typer.Typer(cls=...)`` whose group has these sub-commands beside its own commands."""

    class Group(TyperGroup):
        """The group."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            _as_written(self)
            for sub in known:
                self.add_command(_Promised(sub), sub.name)

    return Group


def _as_written(command: Any) -> None:
    """Have the help of a command and of those below it shown as it is: ``[today]`` is text, and no markup of rich's."""
    command.help = escape(command.help) if command.help else command.help
    for param in command.params:
        if found := getattr(param, "help", None):
            param.help = escape(found)
    for below in getattr(command, "commands", {}).values():
        _as_written(below)


class _Promised(TyperGroup):
    """Stands in the list for a sub-command, and becomes it when it is to run or to show its own help."""

    def __init__(self, sub: SubCommand) -> None:
        self._sub = sub
        super().__init__(name=sub.name, help=sub.help)

    @property
    def commands(self) -> Any:
        """The sub-command's own commands."""
        return self._command.commands

    @commands.setter
    def commands(self, _: Any) -> None:
        """Keep what is there: the base class gives a new group none."""

    @cached_property
    def _command(self) -> Any:
        app: typer.Typer = importlib.import_module(self._sub.module).app
        command = get_command(app)
        command.name = self._sub.name
        _as_written(command)
        return command

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return self._command.make_context(info_name, args, parent=parent, **extra)
