"""A folder for Hugging Face's hub, with the handler that their Inference Endpoints call."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from components.export.manifest import Manifest
from components.export.parity import Ask, in_a_process
from components.export.targets.contract import Target, write

OPENED = """
import base64
from handler import EndpointHandler
handler = EndpointHandler(folder)
def answer(payloads):
    return handler({"inputs": [{"b64": base64.b64encode(p).decode()} for p in payloads]})
"""


class HuggingFace(Target):
    """``--to huggingface``."""

    name = "huggingface"

    def finish(self, manifest: Manifest, folder: Path, output: Path) -> None:
        """Write the handler."""
        write(folder, "handler.py", (resources.files("components.export.runtime") / "handler.py").read_bytes())

    def ask(self, folder: Path) -> Ask:
        """By the handler, as the toolkit calls it."""
        return in_a_process(folder, OPENED)

    def readme(self, manifest: Manifest) -> str:
        """How it is used."""
        return """
Push the folder to a repository of the hub and make an endpoint of it: the toolkit installs `requirements.txt`, finds
`handler.py`, and calls it with `{"inputs": ...}`: a text, a list of them, `{"b64": "..."}`, or any other JSON, which is
the input.

```python
from handler import EndpointHandler

print(EndpointHandler(".")({"inputs": ["an input"]}))
```
"""
