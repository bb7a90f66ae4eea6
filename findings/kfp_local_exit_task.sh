#!/usr/bin/env bash
# Kubeflow's local runner runs no exit task after a failure, which is what an exit task is there for.
#
# Versions: kfp 2.16.1 (SubprocessRunner).
# Seen: a pipeline with dsl.ExitHandler compiles, and locally its exit task runs when the body succeeds. When a task of
#   the body fails, the run ends with an error at once and the exit task is never started; no message says so. (One that
#   takes dsl.PipelineTaskFinalStatus is refused: "'dsl.ExitHandler' is not yet support for local execution", but only
#   when the body has run already, so the error is that of a pipeline that has done all its work.)
# Expected: as on a cluster, the exit task runs whatever became of the body (its trigger policy in the compiled file is
#   ALL_UPSTREAM_TASKS_COMPLETED), or a pipeline with one is refused before anything of it runs.
# Exits 0 while it behaves so, 1 once it does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet kfp==2.16.1
cat > "$folder/look.py" <<'PY'
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
from kfp import compiler, dsl, local  # noqa: E402

here = str(Path.cwd())


@dsl.component(install_kfp_package=False)
def work(folder: str, name: str, fail: bool):
    import pathlib

    pathlib.Path(folder, f"{name}-worked").touch()
    if fail:
        raise ValueError("broken")


@dsl.component(install_kfp_package=False)
def clean(folder: str, name: str):
    import pathlib

    pathlib.Path(folder, f"{name}-cleaned").touch()


@dsl.component(install_kfp_package=False)
def clean_by_status(folder: str, name: str, status: dsl.PipelineTaskFinalStatus):
    import pathlib

    pathlib.Path(folder, f"{name}-cleaned").touch()


@dsl.pipeline(name="plain")
def plain(folder: str, name: str, fail: bool):
    with dsl.ExitHandler(clean(folder=folder, name=name)):
        work(folder=folder, name=name, fail=fail)


@dsl.pipeline(name="by-status")
def by_status(folder: str, name: str, fail: bool):
    with dsl.ExitHandler(clean_by_status(folder=folder, name=name)):
        work(folder=folder, name=name, fail=fail)


def ran(pipeline, name, fail):
    """Whether the body ran, whether the exit task did, and the class of the error that the run ended with."""
    ended = "none"
    try:
        pipeline(folder=here, name=name, fail=fail)
    except Exception as error:
        ended = type(error).__name__
    return Path(f"{name}-worked").exists(), Path(f"{name}-cleaned").exists(), ended


compiler.Compiler().compile(plain, "plain.yaml")
declared = "ALL_UPSTREAM_TASKS_COMPLETED" in Path("plain.yaml").read_text()
local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root="root", raise_on_error=True)
seen = ran(plain, "well", False), ran(plain, "badly", True), ran(by_status, "status", False)
print(f"declared to run in any case: {declared}; (body, exit task, error) of a body that succeeds, that fails, "
      f"and by its final status: {seen}")
wanted = ((True, True, "none"), (True, False, "RuntimeError"), (True, False, "NotImplementedError"))
sys.exit(0 if declared and seen == wanted else 1)
PY
cd "$folder"
"$folder/venv/bin/python" "$folder/look.py" 2>&1 | tail -n 1
