"""Sub-commands of ``cohobate`` that are imported when they are asked for: a look at the help imports none of them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import typer
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
            for sub in known:
                self.add_command(_Promised(sub), sub.name)

    return Group


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
        return command

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return self._command.make_context(info_name, args, parent=parent, **extra)
