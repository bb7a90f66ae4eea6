"""What it takes to start a student: memory and time, measured in a process that has loaded nothing else."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.contracts.errors import ArtifactError

SECONDS = 120.0
"""How long a student may take to start before it is called broken."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """``memory_bytes``: resident memory that loading and running adds; ``cold_start_ms``: until the first answer."""

    memory_bytes: float
    cold_start_ms: float


def footprint(artifact: bytes, payloads: Sequence[bytes], folder: Path, *, source: str = "") -> Footprint:
    """Start the artifact in a fresh process; ``folder`` is for the file that it is handed over in.

    Imports of libraries are not counted: they are the same for every student.

    Raises:
        ArtifactError: it does not start.

    """
    path = folder / "model.onnx"
    path.write_bytes(artifact)
    given = {"path": str(path), "source": source, "payloads": [base64.b64encode(p).decode() for p in payloads]}
    command = [sys.executable, "-m", "components.evaluate.footprint"]
    try:
        done = subprocess.run(
            command, input=json.dumps(given).encode(), capture_output=True, timeout=SECONDS, check=True
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        raise ArtifactError(str(path), f"does not start: {error.stderr.decode()[-500:]}") from error
    except subprocess.TimeoutExpired as error:
        raise ArtifactError(str(path), f"did not start in {SECONDS:.0f} s") from error
    return Footprint(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Load and run what is named on standard input; print the footprint."""
    import onnxruntime  # noqa: F401 - before the measurement begins
    import psutil

    from components.student.runtime import Student

    given = json.load(sys.stdin)
    process = psutil.Process()
    before, begin = process.memory_info().rss, time.perf_counter()
    student = Student.load(Path(given["path"]), source=given["source"])
    payloads = [base64.b64decode(p) for p in given["payloads"]]
    student.predict(payloads[:1])
    started = (time.perf_counter() - begin) * 1e3
    for payload in payloads:
        student.predict([payload])
    grown = float(max(0, process.memory_info().rss - before))
    sys.stdout.write(json.dumps({"memory_bytes": grown, "cold_start_ms": started}) + "\n")


if __name__ == "__main__":
    main()
