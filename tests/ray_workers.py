"""The workers of a test's Ray, forked from a process that has imported what they do: each takes seconds else for that.

Ray starts each by a program that sets up what its runtime environment says, and starts the worker. Here this file is
that program: it has a worker forked, and lives as long as that one. With the number of a listening socket, and modules,
it is the process that they are forked from. What starts Ray has it do so (:func:`tests.ray_start.forking`).
"""

import contextlib
import json
import os
import socket
import struct
import sys

VARIABLE = "TEST_RAY_WORKERS"
"""With the name of the abstract socket at which workers are asked for."""

HEADER = struct.Struct("!I")


def asked(argv):
    """Have a worker forked; its exit code, once it has ended."""
    wanted = {"entry": "worker", "argv": argv, "environment": dict(os.environ), "folder": os.getcwd()}
    data = json.dumps(wanted).encode()
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(f"\0{os.environ[VARIABLE]}")
        except OSError as error:
            print(f"there is nothing to fork a worker from ({error}): it is started by itself", file=sys.stderr)
            os.execv(sys.executable, [sys.executable, _ray_s_own(), *argv])  # noqa: S606
        answers = []
        with contextlib.suppress(ConnectionError):
            socket.send_fds(server, [HEADER.pack(len(data))], [sys.stderr.fileno()])
            server.sendall(data)
            with server.makefile() as told:
                answers.extend(json.loads(line) for line in told)
    if not answers or "code" not in answers[-1]:
        print("what workers are forked from ended before it told how this one did", file=sys.stderr)
        return 1
    return answers[-1]["code"]


def _ray_s_own():
    import importlib.util
    from pathlib import Path

    (folder,) = importlib.util.find_spec("ray").submodule_search_locations
    return str(Path(folder, "_private", "workers", "setup_worker.py"))


def work():
    """What a worker does, in the process that was forked for it."""
    import runpy

    from ray._private import ray_constants
    from ray._private.runtime_env.context import update_envs
    from ray._private.workers.setup_worker import Language, RuntimeEnvContext, parser

    from components.contracts import failpoint

    ray_constants.SETUP_WORKER_FILENAME = __file__  # a server for clients starts others
    given, words = parser.parse_known_args(sys.argv[1:])
    context = RuntimeEnvContext.deserialize(given.serialized_runtime_env_context or "{}")
    if context.command_prefix or context.override_worker_entrypoint or context.py_executable != sys.executable:
        context.exec_worker(words, Language.Value(given.language))
    update_envs(context.env_vars)
    failpoint.arm(os.environ.get(failpoint.VARIABLE, ""))
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def main():
    """Serve, or ask."""
    if not sys.argv[1].isdigit():
        return asked(sys.argv[1:])
    from pipelines import fork_server

    fork_server.ENTRIES = {"worker": ("__main__", "work")}
    return fork_server.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
