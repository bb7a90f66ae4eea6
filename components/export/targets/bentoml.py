"""A service of BentoML, which wants other versions than Cohobate and so is neither imported nor installed here."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

import yaml

from components.export.manifest import Manifest
from components.export.targets.contract import Target, write


class BentoMl(Target):
    """``--to bentoml``."""

    name = "bentoml"

    def finish(self, manifest: Manifest, folder: Path, output: Path) -> None:
        """Write the service and what builds a bento of it."""
        source = resources.files("components.export.runtime") / "bentoml_service.py"
        write(folder, "service.py", source.read_bytes())
        build = {
            "service": "service:Service",
            "labels": {"student": manifest.lineage.student[:12], "version": manifest.version},
            "include": ["*"],
            "python": {"requirements_txt": "requirements.txt"},
            "docker": {"python_version": f"{sys.version_info.major}.{sys.version_info.minor}"},
        }
        write(folder, "bentofile.yaml", yaml.safe_dump(build, sort_keys=False))

    def readme(self, manifest: Manifest) -> str:
        """How it is used."""
        return """
```
pip install bentoml
bentoml serve service:Service --port 3000
curl --json '{"inputs": ["an input"]}' http://127.0.0.1:3000/predict
bentoml build                                  # a bento, and with 'bentoml containerize' an image
```

`parity.json` was measured by the package that the service calls, in ONNX Runtime, without BentoML.
"""
