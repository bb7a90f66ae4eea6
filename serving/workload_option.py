"""Which workload a command is about: the options ``--workload`` and ``--spec`` where they are left out, or wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.contracts.errors import ConfigError, NotFoundError
from components.contracts.reference import Reference

if TYPE_CHECKING:
    from components.control.store import ControlStore

    Callback = Callable[[typer.Context, typer.CallbackParam, str], str]

DEFAULT = "files"
"""The workload that is meant where none is named and the platform does not have a single one."""


def _store() -> closing[ControlStore]:
    from components.contracts.settings import Settings
    from components.control.store import ControlStore

    return closing(ControlStore.open(Settings().control_url))


def known_workloads() -> list[str]:
    """The workloads that the control database has anything of, a removed one too.

    Raises:
        SchemaError: there is no control database of this version.

    """
    from components.control.workloads import registered

    with _store() as store:
        return sorted({*registered(store), *store.workloads()})


def require_known(workload: str, known: list[str]) -> str:
    """The name, where the platform has it or has none at all.

    Raises:
        NotFoundError: it has others.

    """
    if known and workload not in known:
        raise NotFoundError("workload", workload, f"known are {', '.join(known)}")
    return workload


def workload_meant(context: typer.Context, param: typer.CallbackParam, value: str) -> str:
    """For an option ``--workload``.

    Raises:
        NotFoundError: there is none of this name.

    """
    return _only()[0] if _left_out(context, param) else require_known(value, known_workloads())


def spec_meant(context: typer.Context, param: typer.CallbackParam, value: str) -> str:
    """For an option ``--spec``."""
    return only_spec() if _left_out(context, param) else value


def where_ordered(callback: Callback) -> Callback:
    """For an option of a command that asks the admin API, where the settings name one: there it has to be named.

    What that platform has is not in this one's database, which may not even be there.
    """

    @functools.wraps(callback)
    def meant(context: typer.Context, param: typer.CallbackParam, value: str) -> str:
        from components.contracts.settings import Settings

        url = Settings().admin_url
        if not url:
            return callback(context, param, value)
        if _left_out(context, param):
            remedy = f"it has to be named where COHOBATE_ADMIN_URL is set: the workloads are those of {url}"
            raise ConfigError(param.opts[0], "", remedy)
        return value

    return meant


def only_one(known: list[str]) -> str:
    """The workload that is meant where none is named.

    Raises:
        NotFoundError: there are several, and none of them is the built-in one.

    """
    return known[0] if len(known) == 1 else require_known(DEFAULT, known)


def _only() -> tuple[str, bool]:
    """The only workload with a version in force, or where none has one, the only one known; and whether it has one."""
    from components.control.workloads import registered

    with _store() as store:
        standing = registered(store)
        name = only_one(sorted(standing) or store.workloads())
    return name, name in standing


def only_spec() -> str:
    """The spec that is meant where none is named: the version in force; the built-in one's file, where it has none."""
    name, standing = _only()
    return str(Reference(name)) if standing or name != DEFAULT else DEFAULT


def _left_out(context: typer.Context, param: typer.CallbackParam) -> bool:
    source = context.get_parameter_source(param.name or "")
    return source is not None and source.name == "DEFAULT"


def _option(flag: str, callback: Callback, what: str, whose: str) -> Any:
    return typer.Option(
        flag, callback=callback, show_default=False, help=f"{what}. [{whose}the platform's only one, else {DEFAULT}]"
    )


REQUIRED = "; required with COHOBATE_ADMIN_URL"

Workload = Annotated[str, _option("--workload", workload_meant, "The workload's name", "")]
SpecFile = Annotated[str, _option("--spec", spec_meant, "A spec file, or the name of a built-in workload", "that of ")]
OrderedWorkload = Annotated[
    str, _option("--workload", where_ordered(workload_meant), f"The workload's name{REQUIRED}", "")
]
OrderedSpec = Annotated[
    str,
    _option(
        "--spec",
        where_ordered(spec_meant),
        f"A spec file, the name of a built-in workload, or workload:NAME{REQUIRED}",
        "that of ",
    ),
]
