"""The plain bundle: the judged artefact, ONNX Runtime, and a Python package that reads raw input."""

from __future__ import annotations

from components.export.manifest import Manifest
from components.export.targets.contract import Target


class Onnx(Target):
    """``--to onnx``."""

    name = "onnx"

    def readme(self, manifest: Manifest) -> str:
        """How it is used."""
        return f"""
```python
import cohobate_student

student = cohobate_student.load()              # every file is compared with the manifest first
(answer,) = student.predict([open("an-input", "rb").read()])
print(answer.label, answer.confidence, answer.defer)
```

The model alone is `{manifest.model.path}`: its inputs are the arrays that the package makes of an input.
"""
