"""A model repository of Triton: its Python backend runs the bundle, which lies where Triton wants a version."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from components.export.manifest import Manifest
from components.export.targets.contract import Target, soft_field, write

CONFIG = """name: "{name}"
backend: "python"
max_batch_size: 0
input [ {{ name: "payload" data_type: TYPE_STRING dims: [ -1 ] }} ]
output [
  {{ name: "label" data_type: TYPE_STRING dims: [ -1 ] }},
  {{ name: "confidence" data_type: TYPE_FP64 dims: [ -1 ] }},
  {{ name: "defer" data_type: TYPE_BOOL dims: [ -1 ] }},
  {{ name: "novelty" data_type: TYPE_FP64 dims: [ -1 ] }},
  {{ name: "{soft}" data_type: TYPE_STRING dims: [ -1 ] }}
]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "student" value: {{ string_value: "{student}" }} }}
"""


class Triton(Target):
    """``--to triton``."""

    name = "triton"
    root = "NAME/1"

    def finish(self, manifest: Manifest, folder: Path, output: Path) -> None:
        """Write what Triton calls, and the model's configuration above it."""
        source = resources.files("components.export.runtime") / "triton_model.py"
        write(folder, "model.py", source.read_bytes())
        config = CONFIG.format(name=manifest.workload, student=manifest.lineage.student, soft=soft_field(manifest))
        write(folder.parent, "config.pbtxt", config)

    def readme(self, manifest: Manifest) -> str:
        """How it is used."""
        return f"""
The exported folder is a model repository; this one, `{manifest.workload}/1`, is the bundle in it. In the environment
of Triton's Python (its container's `pip`):

```
pip install -r {manifest.workload}/1/requirements.txt
tritonserver --model-repository "$PWD"
```

Its tensor `payload` (BYTES, [N]) gives `label`, `confidence`, `defer`, `novelty` (NaN where the student tells none) and
`{soft_field(manifest)}` (JSON). A request with an input that cannot be answered is refused whole. Further versions go
beside `1`. `{manifest.workload}/config.pbtxt` lies outside of the bundle, so that no signature covers it.
`parity.json` was measured by the package that the backend calls, in ONNX Runtime.
"""
