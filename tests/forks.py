"""Processes that are forked from one which has imported what they do: each takes seconds else to import that itself."""

import multiprocessing
import os

CONTEXT = multiprocessing.get_context("forkserver")

_preloaded: list[str] = []


def preload(*modules):
    """Have these imported by whoever such processes are forked from, once somebody wants one."""
    _preloaded.extend(modules)
    CONTEXT.set_forkserver_preload(_preloaded)


def forked(function, *args, environment, log):
    """A process that calls a function of a module with this environment, and says in the file what it has to say."""
    log.touch()
    process = CONTEXT.Process(target=_call, args=(function, args, dict(environment), log))
    process.start()
    return process


def _call(function, args, environment, log):
    from components.contracts import failpoint

    os.environ.clear()
    os.environ.update(environment)
    failpoint.arm(environment.get(failpoint.VARIABLE, ""))
    with log.open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    function(*args)
