"""Processes that are forked from one which has imported what they do: each takes seconds else to import that itself."""

import multiprocessing
import os
import threading

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

    end_with_parent()
    os.environ.clear()
    os.environ.update(environment)
    failpoint.arm(environment.get(failpoint.VARIABLE, ""))
    with log.open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    function(*args)


def end_with_parent():
    """Have this process, which was forked for another one, end when that one does, however it does.

    It holds what the fork server looks at to see that nobody is left, so both would stay.
    """
    threading.Thread(target=_await_parent, daemon=True).start()


def _await_parent():
    multiprocessing.parent_process().join()
    os._exit(1)
