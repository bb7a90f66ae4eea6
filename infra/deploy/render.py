"""Write what the manifests say of something that another file says, or with ``--check`` tell what is not up to date.

* ``kustomize/components/monitoring/rules.yaml``: the alerts of ``infra/observability``, for the Prometheus operator.
* ``serve.yaml`` of each overlay: what ``cohobate serve config`` prints of its workloads with its settings. A site
  has that command write it; here, where there is no installation, the workloads are those of ``example``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
MONITORING = HERE / "kustomize" / "components" / "monitoring" / "rules.yaml"
ALERTS = HERE.parent / "observability" / "alerts.yaml"


def rules() -> str:
    """The alerts as an object of the Prometheus operator."""
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "cohobate", "labels": {"app.kubernetes.io/name": "cohobate"}},
        "spec": yaml.safe_load(ALERTS.read_text()),
    }
    head = "# From infra/observability/alerts.yaml, by infra/deploy/render.py.\n"
    return head + yaml.safe_dump(rule, sort_keys=False, width=120)


def overlays() -> Iterator[Path]:
    """The folders with a declaration of a gateway."""
    return (found.parent for found in sorted((HERE / "kustomize" / "overlays").rglob("serve.yaml")))


def layers(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The kustomizations that make up the one in ``folder``, in the order in which they add to each other."""
    own = yaml.safe_load((folder / "kustomization.yaml").read_text())
    for kind in ("resources", "components"):
        if kind == "components":
            yield folder, own  # what a kustomization generates is there before its components come
        for place in own.get(kind, ()):
            if (folder / place).is_dir():
                yield from layers((folder / place).resolve())


def settings_of(folder: Path) -> dict[str, str]:
    """The environment of the pods of an overlay: what its ConfigMap ``cohobate`` has."""
    found: dict[str, str] = {}
    for place, layer in layers(folder):
        for generator in layer.get("configMapGenerator", ()):
            if generator["name"] == "cohobate":
                lines = [line for file in generator.get("envs", ()) for line in (place / file).read_text().splitlines()]
                given = [line for line in (*lines, *generator.get("literals", ())) if line and line[0] != "#"]
                found |= dict(line.split("=", 1) for line in given)
    return found


def workloads_of(folder: Path) -> list[str]:
    """The names of the workloads of an overlay."""
    generators = [one for _, layer in layers(folder) for one in layer.get("configMapGenerator", ())]
    return [given["literals"][0].removeprefix("NAME=") for given in generators if given["name"] == "workload"]


def declaration(folder: Path) -> str:
    """What ``cohobate serve config`` prints where the workloads of the overlay are in force."""
    from components.contracts.settings import Settings
    from components.control.workloads import opened
    from infra.serve import declaration, text
    from serving.declaration import Workload

    for name in [name for name in os.environ if name.startswith("COHOBATE_")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as home:
        of_here = Settings(home=Path(home))
        specs = [opened(str(HERE / "example" / f"{name}.yaml"), of_here)[0] for name in workloads_of(folder)]
    os.environ.update(settings_of(folder))
    tempfile.tempdir = "/tmp"  # noqa: S108 - that of the pods, whatever it is here
    return text(declaration(Settings(), [Workload.of(spec) for spec in specs]))


def main(argv: list[str]) -> int:
    """Write, or check; returns the exit code."""
    wanted = {MONITORING: rules(), **{folder / "serve.yaml": declaration(folder) for folder in overlays()}}
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
    for path in stale:
        if "--check" in argv:
            sys.stderr.write(f"{path.relative_to(HERE)} is not what its source says: run {Path(__file__).name}\n")
        else:
            path.write_text(wanted[path])
    return 1 if stale and "--check" in argv else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
