"""Admission of an artifact: loaded and exercised in a process of its own before any replica sees it.

A corrupt, oversized or crashing artifact ends that process and not a replica: ``python -m serving.admission URI
DIGEST SPEC`` exits 0 when the artifact is fit to serve, else prints why not.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Sequence

from components.contracts.errors import ArtifactError, CohobateError
from components.contracts.spec import load_spec
from components.contracts.storage import get_bytes
from components.control.intent import ModelRef

ADMISSION_SECONDS = 60.0
"""How long loading and exercising may take; a student needs about two seconds, most of them imports."""

MEMORY_BYTES = 4 << 30
"""Address space of the process: a student is a few megabytes, ONNX Runtime maps about one gibibyte."""

BATCHES = (1, 7)
LENGTHS = (1, 64)


def admit(model: ModelRef, spec_source: str, seconds: float = ADMISSION_SECONDS) -> None:
    """Admit an artifact.

    Raises:
        ArtifactError: it is not fit to serve, and why.

    """
    command = [sys.executable, "-m", "serving.admission", model.uri, model.digest, spec_source]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise ArtifactError(model.uri, f"did not load within {seconds:g} s") from error
    if done.returncode < 0:
        raise ArtifactError(model.uri, f"crashed the process that tried it (signal {-done.returncode})")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ArtifactError(model.uri, f"was refused on trial: {last}")


def main(argv: Sequence[str]) -> int:
    """Load the artifact and run it on made-up features of several shapes."""
    import numpy as np

    from components.student.runtime import Student

    uri, digest, source = argv
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        spec = load_spec(source)
        student = Student.load(get_bytes(uri, digest), source=spec.source)
        if student.card.workload != spec.name:
            raise ArtifactError(uri, f"is a student of workload {student.card.workload!r}, not of {spec.name!r}")
        chance = np.random.default_rng(0)
        for batch in BATCHES:
            for length in LENGTHS:
                ids = chance.integers(student.card.buckets, size=(batch, length))
                weights = np.full((batch, length), 1.0 / length, dtype=np.float32)
                student.exercise(ids, weights)
    except (CohobateError, ValueError, MemoryError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
