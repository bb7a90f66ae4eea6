"""What an export's target is: it writes its model and its own files into a bundle, and says how that is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from components.contracts.errors import ConfigError
from components.contracts.storage import digest_of
from components.export.manifest import Defer, Given, Lineage, Manifest, Model, Precision
from components.export.package import given
from components.export.parity import Ask, in_a_process
from components.student.card import StudentCard
from components.student.features import Features
from components.student.runtime import OUTPUTS, Student

MODEL = "model/model.onnx"

IN_PYTHON = """
```python
import cohobate_student

student = cohobate_student.load(threads=1)
(answer,) = student.predict([open("an-input", "rb").read()])
```

"""
"""How a bundle's package is used: of the readme of targets whose model is no ONNX."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """What is exported: a registered version, with all that a target may need of it.

    ``artefact``: the judged file, which serves in the gateway; ``full``: reads its float model; ``calibration``: reads
    inputs of the windows that it learnt from, by which a quantisation is calibrated; ``lineage``: the file
    ``lineage.json``. ``source``: the spec's file.
    """

    workload: str
    version: str
    artefact: bytes
    defer: Defer
    lineage: dict[str, Any]
    source: str
    full: Callable[[], bytes]
    calibration: Callable[[], Sequence[bytes]]

    @cached_property
    def student(self) -> Student:
        """The judged artefact, loaded."""
        return Student.load(self.artefact, source=self.source)

    @property
    def card(self) -> StudentCard:
        """Its card."""
        return self.student.card

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the judged artefact."""
        return digest_of(self.artefact)

    @cached_property
    def given(self) -> Given:
        """What its input is."""
        return given(self.card)

    @property
    def line(self) -> Lineage:
        """Where it came from."""
        card = self.card
        return Lineage(
            student=self.digest, weights=card.weights, teacher=card.teacher, parent=card.parent,
            snapshots=card.snapshots, code=card.code,
        )  # fmt: skip

    @property
    def outputs(self) -> tuple[str, ...]:
        """The graph's outputs."""
        own = tuple(OUTPUTS[self.card.task])
        return (*own, "novelty") if self.student.scored else own

    @property
    def precision(self) -> Precision:
        """What the judged artefact is in."""
        return "int8" if self.card.precision == "int8" else "float32"

    def features(self, payloads: Sequence[bytes]) -> Features:
        """Features of inputs as they came."""
        from components.contracts.payload import decoder

        decode = decoder(self.card.payload, self.source)
        return self.student.featuriser.encode([decode(p) for p in payloads])


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a target wrote.

    ``runtime``: the distribution that runs it; ``needs``: further ones; ``modules``: what the bundle's package has of
    ``components/export/runtime`` beside what all have.
    """

    model: Model
    runtime: str
    needs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


class Target:
    """A target: the judged artefact by ONNX Runtime, in the bundle's package, unless it says otherwise.

    ``precisions``: those that it can be had in, the first by default; of none, the judged artefact's. ``root``: where
    in the output the bundle lies, with the workload's name in place of ``NAME``. ``extra``: packages that it needs,
    with the extra of Cohobate that has each.
    """

    name = ""
    precisions: tuple[Precision, ...] = ()
    root = ""
    extra: tuple[tuple[str, str], ...] = ()

    def build(self, version: Version, folder: Path, precision: Precision) -> Built:
        """Write the model, and the files that do not need the manifest."""
        return Built(model=judged_model(version, folder), runtime="onnxruntime", modules=("engine_onnx",))

    def finish(self, manifest: Manifest, folder: Path, output: Path) -> None:
        """Write the files that need the manifest, into the bundle's folder or the whole output's."""

    def ask(self, folder: Path) -> Ask:
        """How the bundle in a folder is asked in its own runtime."""
        return in_a_process(folder)

    def ask_in_halves(self, folder: Path) -> Ask | None:
        """How a bundle in float16 is asked in arithmetic of halves, where what runs it elsewhere reckons so.

        None: halves are what it keeps its weights in, and all that runs it reckons in float32.
        """
        return None

    def readme(self, manifest: Manifest) -> str:
        """How it is used: the part of ``README.md`` that is this target's."""
        return ""


def soft_field(manifest: Manifest) -> str:
    """The field of an answer that has its probabilities, as the bundle's package has it."""
    return "tokens" if manifest.task == "tagging" else "soft_label"


def wanted(target: Target, asked: str, judged: Precision) -> Precision:
    """The precision to export in: the one that is ``asked`` for, or where none is, the target's own.

    Raises:
        ConfigError: it cannot be had in it.

    """
    offered = target.precisions or (judged,)
    for precision in offered:
        if asked in ("", precision):
            return precision
    raise ConfigError("--precision", asked, f"--to {target.name} can be had in {', '.join(offered)}")


def write(folder: Path, name: str, content: str | bytes) -> None:
    """Write a file of a bundle."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def judged_model(version: Version, folder: Path) -> Model:
    """The judged artefact as it is, for targets that run it by ONNX Runtime."""
    write(folder, MODEL, version.artefact)
    taken = {i.name for i in _inputs(version.artefact)}
    return Model(
        path=MODEL,
        format="onnx",
        precision=version.precision,
        inputs={name: spec for name, spec in version.card.inputs.items() if name in taken},
        outputs=version.outputs,
    )


def _inputs(data: bytes) -> Any:
    import onnx

    return onnx.load_from_string(data).graph.input
