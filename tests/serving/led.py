"""A controller as a process of its own, which is killed: what it does, in a module that is quick to import."""

import json
import threading
from pathlib import Path

from components.contracts.errors import ArtifactError
from components.contracts.spec import load_spec
from components.control.intent import ModelRef
from components.control.store import ControlStore
from components.stream.memory import MemoryBroker
from serving.control.controller import Controller
from serving.control.leader import lead
from tests.serving.conftest import MemoryRegistry

TERM = 0.4
"""Seconds of the lead's lease: so long does the next controller wait after one was killed."""


class FileRegistry(MemoryRegistry):
    """The registry's contract in one file, so that it outlives its process."""

    def __init__(self, path):
        super().__init__()
        self.path = Path(path)
        if self.path.exists():
            found = json.loads(self.path.read_text())
            for ref in found["refs"]:
                super().add(ModelRef(**ref))
            self.aliases = found["aliases"]

    def add(self, ref, decision="promote"):
        super().add(ref, decision)
        self._write()
        return ref

    def set_alias(self, workload, alias, version):
        super().set_alias(workload, alias, version)
        self._write()

    def drop_alias(self, workload, alias):
        super().drop_alias(workload, alias)
        self._write()

    def _write(self):
        refs = [{f: getattr(i.ref, f) for f in ModelRef.__struct_fields__} for i in self.infos.values()]
        whole = self.path.with_suffix(".new")
        whole.write_text(json.dumps({"refs": refs, "aliases": self.aliases}))
        whole.replace(self.path)


def control(source: str, url: str, folder: Path, holder: str) -> None:
    """Lead the workload until killed, by itself where the environment says so."""
    spec, store, broker = load_spec(source), ControlStore(url), MemoryBroker()
    broker.ensure_topics(spec.topics)

    def make():
        registry = FileRegistry(folder / "registry.json")
        return Controller(spec, store, registry, broker, f"file://{folder}/artifacts", trial=sound)

    lead(store, spec.name, make, term=TERM, stop=threading.Event(), holder=holder)


def sound(ref: ModelRef, _: str) -> None:
    """Stands for a trial: what is named so is refused."""
    if ref.version == "unfit":
        raise ArtifactError(ref.uri, "was refused on trial")
