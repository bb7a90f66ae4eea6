"""Which workload a command is about: the options ``--workload`` and ``--spec`` where they are left out, or wrong."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from components.contracts.errors import NotFoundError
from components.contracts.reference import Reference

DEFAULT = "files"
"""The workload that is meant where none is named and the platform does not have a single one."""


def known_workloads() -> list[str]:
    """The workloads that the control database knows; none where an admin API is asked, which has one of its own.

    Raises:
        SchemaError: there is no control database of this version.

    """
    from components.contracts.settings import Settings
    from components.control.store import ControlStore
    from components.control.workloads import registered

    settings = Settings()
    if settings.admin_url:
        return []
    with closing(ControlStore.open(settings.control_url)) as store:
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
    known = known_workloads()
    return only_one(known) if _left_out(context, param) else require_known(value, known)


def spec_meant(context: typer.Context, param: typer.CallbackParam, value: str) -> str:
    """For an option ``--spec``: where it is left out, the version in force of the workload that is meant."""
    return spec_of(only_one(known_workloads())) if _left_out(context, param) else value


def only_one(known: list[str]) -> str:
    """The workload that is meant where none is named.

    Raises:
        NotFoundError: there are several, and none of them is the built-in one.

    """
    return known[0] if len(known) == 1 else require_known(DEFAULT, known)


def spec_of(workload: str) -> str:
    """What a command takes as the spec of a workload: the registry's, but for the built-in one, which is a file."""
    return workload if workload == DEFAULT else str(Reference(workload))


def _left_out(context: typer.Context, param: typer.CallbackParam) -> bool:
    source = context.get_parameter_source(param.name or "")
    return source is not None and source.name == "DEFAULT"


Workload = Annotated[
    str,
    typer.Option(
        "--workload",
        callback=workload_meant,
        show_default=False,
        help=f"The workload's name. [the platform's only one, else {DEFAULT}]",
    ),
]
SpecFile = Annotated[
    str,
    typer.Option(
        "--spec",
        callback=spec_meant,
        show_default=False,
        help=f"A spec file, or the name of a built-in workload. [that of the platform's only one, else {DEFAULT}]",
    ),
]
