"""Admission of an artifact: loaded and exercised in a process of its own before any replica loads it.

A corrupt, oversized, wrong or crashing artifact ends that process and not a replica. The child (``python -m
serving.replica.admission``) reads a :class:`Trial` as JSON and exits 0 when the artifact is fit to serve, else prints
why not (75, of sysexits.h: nobody knows, the store does not answer):

1. Bound its own memory, processor time and core files.
2. Refuse by size, then read, and compare the digest with the registry's.
3. Load it (graph, card, features), and compare the card with what the registry says of the version.
4. Run it on made-up features of several shapes.
5. Let it answer made-up inputs, and real ones: of the snapshot that it was made from, and what was answered lately.

Bytes that were admitted lately are not tried again: their digest is kept in the control database. Whether a student is
signed is asked each time, before anything else, where ``COHOBATE_ARTIFACT_POLICY`` asks for signatures: keys expire,
and are revoked.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from components.contracts.errors import ArtifactError, CohobateError, RecordError, UnavailableError
from components.contracts.spec import Spec, load_spec
from components.contracts.storage import get_bytes, size_of
from components.control.intent import ModelRef
from components.student.features import made_up
from components.student.runtime import Student
from serving.replica.warmup import warm_up

if TYPE_CHECKING:
    from components.control.store import ControlStore  # half a second of imports that a trial has no use for

ADMISSION_SECONDS = 60.0
"""Processor time that loading and exercising may take; a student needs about two seconds, most of them imports."""

PATIENCE = 5
"""How many times as long it may take by the clock: a loaded machine is not the artifact's fault."""

MEMORY_BYTES = 4 << 30
"""Address space of the process: a student is a few megabytes, ONNX Runtime maps about one gibibyte."""

MAX_BYTES = 256 << 20
"""A larger artifact is no student: each replica holds up to three of them. The gate's ``limits.max_bytes`` is lower."""

NICE = 10
"""The trial yields to the replicas on its machine."""

BATCHES = (1, 7)
LENGTHS = (1, 64)

REAL = 64
"""Real inputs that are tried."""

ADMITTED = "admitted"
"""The gauge of the control database that names what was admitted last: the spec's digest by the artifact's."""

REMEMBERED = 32
"""How many admitted artifacts are known: a replica holds three, and a rollback names a recent one."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What is tried. ``spec`` is the path of the spec; ``window`` the URI and digest of the snapshot, if known."""

    model: ModelRef
    spec: str
    memory_bytes: int
    seconds: float
    window: tuple[str, str] | None = None
    payloads: tuple[bytes, ...] = ()


def admit(
    model: ModelRef,
    spec_source: str,
    seconds: float = ADMISSION_SECONDS,
    *,
    memory_bytes: int = MEMORY_BYTES,
    window: tuple[str, str] | None = None,
    payloads: Sequence[bytes] = (),
) -> None:
    """Admit an artifact.

    Raises:
        ArtifactError: it is not fit to serve, and why.
        UnavailableError: its store, or that of the snapshot, does not answer, which says nothing of it.

    """
    trial = Trial(
        model=model, spec=spec_source, memory_bytes=memory_bytes, seconds=seconds, window=window,
        payloads=tuple(payloads),
    )  # fmt: skip
    command = [sys.executable, "-m", "serving.replica.admission"]
    try:
        done = subprocess.run(
            command, input=msgspec.json.encode(trial), capture_output=True, timeout=seconds * PATIENCE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ArtifactError(model.uri, f"did not load within {seconds * PATIENCE:g} s") from error
    if done.returncode == -signal.SIGXCPU:
        raise ArtifactError(model.uri, f"did not load within {seconds:g} s of processor time")
    if done.returncode < 0:
        raise ArtifactError(model.uri, f"crashed the process that tried it (signal {-done.returncode})")
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    if done.returncode == os.EX_TEMPFAIL:
        raise UnavailableError("artifact store", model.uri, lines[-1] if lines else "no reason given")
    if done.returncode != 0:
        raise ArtifactError(model.uri, f"was refused on trial: {lines[-1] if lines else 'no reason given'}")


class Admission:
    """Admission with a memory, the control database: what one process of the platform tried, no other tries again.

    ``policy``: see ``artifact_policy`` of :class:`~components.contracts.settings.Settings`.
    """

    def __init__(self, spec: Spec, store: ControlStore, policy: Literal["any", "signed"] = "any") -> None:
        self._spec, self._store, self._policy = spec, store, policy

    def __call__(self, model: ModelRef, spec_source: str, payloads: Sequence[bytes] = ()) -> None:
        """Admit an artifact, unless these bytes were admitted for this spec before.

        Raises:
            ArtifactError: it is not fit to serve, and why.
            UnavailableError: its store does not answer.
            UntrustedError: it is not signed as this version, where the policy asks for that.

        """
        if self._policy == "signed":
            from components.ledger import signatures

            signatures.student(self._store, self._spec.name, model)
        if self._admitted().get(model.digest) == self._spec.digest:
            return
        admit(model, spec_source, window=self._window(model), payloads=payloads)
        # Two that write at the same time may forget one of their artifacts, which is then tried again.
        known = {**self._admitted(), model.digest: self._spec.digest}
        self._store.put_gauge(self._spec.name, ADMITTED, dict(list(known.items())[-REMEMBERED:]))

    def vouch(self, model: ModelRef, decision: str | None) -> None:
        """Require that the verdict which the registry has is the one that was signed, where the policy asks for that.

        Raises:
            UntrustedError: it is another one, or the evidence for it was changed.

        """
        if self._policy == "signed":
            from components.ledger.signatures import vouched

            vouched(self._store, self._spec.name, model, decision)

    def _admitted(self) -> dict[str, str]:
        gauge = self._store.gauges(self._spec.name).get(ADMITTED)
        return dict(gauge.value) if gauge is not None else {}

    def _window(self, model: ModelRef) -> tuple[str, str] | None:
        found = (w for w in self._store.windows(self._spec.name) if model.snapshot in w.digests)
        return next(((w.uri, w.digest) for w in found), None)


def main() -> int:
    """Carry out the trial on standard input."""
    trial = msgspec.json.decode(sys.stdin.buffer.read(), type=Trial)
    # Step 1
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_AS, (trial.memory_bytes, trial.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(trial.seconds), math.ceil(trial.seconds) + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        _try(trial)
    except UnavailableError as error:
        sys.stderr.write(f"{error.remedy}\n")
        return os.EX_TEMPFAIL
    except (CohobateError, ValueError, MemoryError, OSError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


def _try(trial: Trial) -> None:
    spec, model = load_spec(trial.spec), trial.model
    # Step 2
    require_size(model.uri, spec)
    data = get_bytes(model.uri, model.digest)
    # Step 3
    student = Student.load(data, source=spec.source)
    require_card(student, model, spec)
    # Step 4
    _exercise(student)
    # Step 5
    warm_up(student)
    _answer(student, [*_real(trial.window), *trial.payloads], model.uri)


def require_size(uri: str, spec: Spec) -> None:
    """Refuse an artifact by its size, before it is read.

    Raises:
        ArtifactError: it is too large, or does not exist.
        UnavailableError: the object store does not say.

    """
    most = min(MAX_BYTES, spec.limits.max_bytes or MAX_BYTES)
    size = size_of(uri)
    if size > most:
        raise ArtifactError(uri, f"has {size} bytes: a student has at most {most}")


def require_card(student: Student, model: ModelRef, spec: Spec) -> None:
    """Refuse a student that is another one than the registry says.

    Raises:
        ArtifactError: its card names another workload, task, teacher or snapshot.

    """
    card = student.card
    for what, found, wanted in (
        ("workload", card.workload, spec.name),
        ("task", card.task, spec.task),
        ("teacher", card.teacher, model.teacher),
        ("snapshot", (card.snapshots or ("",))[0], model.snapshot),
    ):
        if found != wanted:
            raise ArtifactError(model.uri, f"is a student of {what} {found!r}, not of {wanted!r}")


def _exercise(student: Student) -> None:
    for batch in BATCHES:
        for length in LENGTHS:
            student.exercise(made_up(student.card.inputs, batch, length))


def _answer(student: Student, payloads: Sequence[bytes], uri: str) -> None:
    """Let the student answer real inputs.

    Raises:
        ArtifactError: it finds all of them unusable, or an answer is no soft label.

    """
    unusable = 0
    for payload in payloads:
        try:
            student.predict([payload])
        except RecordError:
            unusable += 1
    if payloads and unusable == len(payloads):
        raise ArtifactError(uri, f"finds all {unusable} real inputs unusable")


def _real(window: tuple[str, str] | None) -> list[bytes]:
    """Payloads of a snapshot; none where it is not there any more."""
    if window is None:
        return []
    import io

    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(io.BytesIO(get_bytes(*window)))
    except ArtifactError as error:  # of the snapshot, not of the student
        sys.stderr.write(f"no real inputs: {error}\n")
        return []
    first = next(table.iter_batches(batch_size=REAL, columns=["payload"]), None)
    return [] if first is None else [bytes(p) for p in first.column(0).to_pylist() if p is not None]


if __name__ == "__main__":
    raise SystemExit(main())
