"""The steps of a run on this machine: forked from the platform's fork server, or else in processes of their own."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.forked import GoneError, fork

RESTARTS = 2
"""How often a step is started anew that did not end by itself: it was killed, for want of memory say. Each step may be
run again: what it has done already it finds done."""

REPORT = "report"
"""The step of an update that comes after its end: the next one need not wait for it."""

NICENESS = 10
"""How far the reports stand back for answers and for the rollout that begins beside them."""

SIGNALLED = 128
"""Exit codes beyond this are a shell's for what a signal ended; negative ones are a process's own."""

FUNCTION, SHELL, EXECUTOR = "--function_to_execute", ["sh", "-ec"], " -m kfp.dsl.executor_main "


@contextlib.contextmanager
def steps_of(home: Path, begins: Callable[[str], None] = lambda name: None) -> Iterator[None]:
    """Have Kubeflow's local runner run its steps as this module does, while the block runs.

    ``begins`` is told each step's name before it runs. The runner (2.16) has no place for another way to run a process
    than its own function, so that one is replaced.
    """
    from kfp.local import subprocess_task_handler as handler

    cold: Callable[..., int] = handler.run_local_subprocess

    def run(full_command: list[str]) -> int:
        name = full_command[full_command.index(FUNCTION) + 1]
        begins(name)
        for left in reversed(range(RESTARTS + 1)):
            try:
                code = _forked(home, full_command, NICENESS if name == REPORT else 0)
            except GoneError:
                code = cold(full_command=full_command)
            if 0 <= code <= SIGNALLED or not left:
                break
            print(f"the step {name} was ended by signal {abs(code) % SIGNALLED}: it is started anew")
        return code

    handler.run_local_subprocess = run
    try:
        yield
    finally:
        handler.run_local_subprocess = cold


def _forked(home: Path, command: list[str], niceness: int) -> int:
    """Run one step by the fork server, and print what it prints; returns its exit code.

    The command is a shell's, which writes the component's code (the next argument) to a file, and starts Kubeflow's
    executor on it with the rest.

    Raises:
        GoneError: there is no fork server, it ended, or the command is another one.

    """
    if command[:2] != SHELL or EXECUTOR not in command[2] or "pip install" in command[2]:
        raise GoneError(f"this is no step that can be forked: {command[2]}")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "ephemeral_component.py"
        program.write_text(command[3], encoding="utf-8")
        read, write = os.pipe()
        with os.fdopen(read, encoding="utf-8", errors="replace") as output:
            try:
                argv = ["--component_module_path", str(program), *command[4:]]
                environment = {**os.environ, "_KFP_RUNTIME": "true"}
                process = fork(home, "step", argv, environment, write, niceness=niceness)
            finally:
                os.close(write)
            with contextlib.closing(process):
                for line in output:
                    print(line, end="")
                print("\n")  # as the runner does after a step
                return process.wait()
