"""Installs the pinned dependencies for the Python that runs this: ``.venv/bin/python infra/install.py REQUIREMENT``.

pip takes a minute and a half to resolve and unpack 200 packages one after the other; uv does it in seconds. So:

1. pip installs uv beside the environment's packages, where ``pip freeze`` does not see it.
2. pip installs PyTorch: which build of it is wanted stands in pip's own configuration, if anywhere.
3. uv installs the rest by the same constraints and from the same places, and leaves alone what is there.

Where uv cannot be had, fails, or cannot do what pip's configuration or ``PIP_FLAGS`` ask for, pip does it all, after
a line that says why. This file needs nothing but the standard library.
"""

from __future__ import annotations

import argparse
import ast
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

CONSTRAINTS = "constraints.txt"
UV = "uv==0.13.9"

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
# Bytecode is written when a module is first imported: compiling all 25,000 takes longer than downloading them.
PIP_INSTALL = [*PIP, "install", "--quiet", "--no-compile"]

CARRIED = {
    "index-url": "--index-url",
    "extra-index-url": "--extra-index-url",
    "find-links": "--find-links",
    "constraint": "--constraint",
    "trusted-host": "--allow-insecure-host",
}
"""Settings of pip that say where packages come from, each with uv's option for one of its values."""

HARMLESS = {
    "break-system-packages", "cache-dir", "cert", "default-timeout", "disable-pip-version-check", "flags",
    "no-cache-dir", "no-color", "no-input", "no-python-version-warning", "no-warn-script-location",
    "progress-bar", "quiet", "retries", "root-user-action", "timeout", "verbose",
}  # fmt: skip
"""Settings of pip that change nothing about which packages are installed. ``flags`` is what pip makes of the variable
``PIP_FLAGS``, which it does not know: where it is not empty, uv is not asked."""


class CannotError(Exception):
    """uv cannot do what pip does here: why, in a few words."""


def settings(listed: str) -> Iterator[tuple[str, str]]:
    """Pip's settings, from what ``pip config list`` prints: ``section.name='value'``, a line each."""
    for line in listed.splitlines():
        name, sign, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if sign and section in (":env:", "global", "install"):
            yield key, str(ast.literal_eval(value))


def places(listed: str) -> list[str]:
    """Uv's options for the places that pip is configured with.

    Raises:
        CannotError: pip is configured with something that has no counterpart.

    """
    options: list[str] = []
    for key, value in dict.fromkeys(settings(listed)):
        if key in CARRIED:
            options += [text for part in value.split() for text in (CARRIED[key], part)]
        elif key not in HARMLESS:
            raise CannotError(f"pip is configured with {key}, which uv is not told")
    return options


def environment(listed: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment that uv runs in: the authorities that pip trusts are its own."""
    certificates = [value for key, value in settings(listed) if key == "cert"]
    return {**({"SSL_CERT_FILE": certificates[-1]} if certificates else {}), **environ}


def _checked(command: Sequence[str], run: Callable[..., subprocess.CompletedProcess[str]], **options: object) -> str:
    try:
        done = run(command, check=True, text=True, stdout=subprocess.PIPE, **options)
    except (subprocess.CalledProcessError, OSError) as error:
        raise CannotError(f"{Path(command[0]).name} failed: {error}") from error
    return done.stdout


def with_uv(requirement: Sequence[str], run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run) -> None:
    """Install by the steps of this module.

    Raises:
        CannotError: it did not work; pip may go on from where this stopped.

    """
    listed = _checked([*PIP, "config", "list"], run)
    options = places(listed)
    # Step 1
    beside = Path(sys.prefix) / "uv"
    if not (beside / "bin" / "uv").exists():
        _checked([*PIP_INSTALL, "--target", str(beside), UV], run)
    # Step 2
    _checked([*PIP_INSTALL, "-c", CONSTRAINTS, "torch"], run)
    # Step 3
    uv = [str(beside / "bin" / "uv"), "pip", "install", "--quiet", "--python", sys.executable]
    alike = [
        "--index-strategy",
        "unsafe-best-match",
        "--constraint",
        CONSTRAINTS,
    ]  # all places are looked at, as by pip
    _checked([*uv, *alike, *options, *requirement], run, env=environment(listed, os.environ))


def with_pip(requirement: Sequence[str], flags: Sequence[str]) -> int:
    """Install with pip alone; returns its exit code."""
    return subprocess.run([*PIP_INSTALL, *flags, "-c", CONSTRAINTS, *requirement], check=False).returncode


def main(argv: Sequence[str]) -> int:
    """Install; the exit code is that of the last command. With flags in ``PIP_FLAGS`` pip does it alone."""
    parser = argparse.ArgumentParser(prog="install.py")
    parser.add_argument("requirement", help="what is installed, editable, such as .[dev]")
    parser.add_argument("--no-editable", action="store_true", help="install a copy, which needs this folder no more")
    given = parser.parse_args(argv)
    requirement = [given.requirement] if given.no_editable else ["-e", given.requirement]
    flags = shlex.split(os.environ.get("PIP_FLAGS", ""))
    if not flags:
        try:
            with_uv(requirement)
            return 0
        except CannotError as error:
            sys.stderr.write(f"{error}: pip goes on alone, which takes longer\n")
    return with_pip(requirement, flags)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
