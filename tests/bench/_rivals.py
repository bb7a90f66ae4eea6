"""jevstiller 0.5.3 and tracer-llm 0.3.3, each installed by pip in an environment of its own, behind pipes.

Both take embeddings that are given to them: MiniLM's, which for text is the teacher's own encoder. Of what they cannot
be told they keep their defaults, but for jevstiller's sizes, which wait for thousands of answers (1,000 to learn from
and 500 to calibrate by): those are scaled to the stream. Beyond the budget, where neither has an answer of its own,
``beyond`` answers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from components.contracts.errors import UnavailableError
from components.contracts.records import SoftLabel
from components.contracts.settings import Settings

PINNED = {"jevstiller": "jevstiller==0.5.3", "tracer": "tracer-llm==0.3.3"}
WORKERS = Path(__file__).with_name("rivals")

JEVSTILLER = {
    "min_train_samples": 200, "min_samples_per_class": 5, "min_calib_samples": 50, "min_new_samples": 100,
    "shadow_min_samples": 50, "calib_fraction": 0.2, "drift_min_samples": 40, "drift_window": 100,
    "student_epochs": 400,
}  # fmt: skip
"""Its sizes for a stream of two thousand inputs; the shares and levels are its defaults. It trains with every hundred
new answers: 400 passes at most instead of 2,000, which would be more processor time than all others take."""

REFIT = 200
"""New traces after which tracer is updated: its documentation says that deferred inputs feed the next refit."""


def environment(name: str) -> Path:
    """The Python of a rival's environment, which is made and filled the first time.

    Raises:
        UnavailableError: pip could not install it.

    """
    home = Settings().cache / "bench-rivals" / PINNED[name]
    python = home / "bin" / "python"
    if not (home / "installed").is_file():
        venv.create(home, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--no-input", PINNED[name]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError("pip", PINNED[name], done.stderr.strip().splitlines()[-1])
        (home / "installed").touch()
    return python


class Pipe(Protocol):
    """A worker that answers a line with a line."""

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Its answer to one order."""

    def close(self) -> None:
        """End it."""


class Worker:
    """A process that speaks JSON lines."""

    def __init__(self, argv: Sequence[str], start: Mapping[str, Any]) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            bufsize=1,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.ask(start)

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Its answer to one order.

        Raises:
            UnavailableError: it has ended; the last line that it wrote says why.

        """
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise UnavailableError("rival", str(process.args), "has no pipes")
        try:
            process.stdin.write(json.dumps(order) + "\n")
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            process.wait()
            self._log.seek(0)
            said = self._log.read().strip().splitlines()
            raise UnavailableError("rival", str(process.args), said[-1] if said else "it ended")
        return dict(json.loads(line))

    def close(self) -> None:
        """End it."""
        with self._process as process:
            if process.stdin is not None:
                process.stdin.close()
        self._log.close()


Begin = Callable[[str, Mapping[str, Any]], Pipe]


def begin(name: str, start: Mapping[str, Any]) -> Worker:
    """A rival's worker in its own environment."""
    script = WORKERS / f"{name}_worker.py"
    return Worker([str(environment(name)), "-W", "ignore", str(script)], start)


class Rival:
    """What both have in common: it routes, and what it does not answer is asked about within a budget.

    ``soft`` and ``embeddings``: of all inputs, which are named by their place; ``agreement``: what it is to promise;
    ``calls``: of the teacher; ``beyond``: who answers when they are spent.
    """

    name = ""

    def __init__(
        self,
        soft: Sequence[SoftLabel],
        classes: Sequence[str],
        embeddings: np.ndarray,
        *,
        agreement: float,
        calls: int,
        seed: int,
        folder: Path,
        beyond: Callable[[Sequence[int]], list[str]],
        begins: Begin = begin,
        options: Mapping[str, Any] = JEVSTILLER,
    ) -> None:
        self._soft, self._beyond, self.calls, self._most = soft, beyond, 0, calls
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "embeddings.npy", embeddings)
        start = {
            "embeddings": str(folder / "embeddings.npy"), "folder": str(folder), "classes": list(classes),
            "target_agreement": agreement, "seed": seed, "options": dict(options),
        }  # fmt: skip
        self._pipe = begins(self.name, start)

    def teach(self, rows: Sequence[int]) -> None:
        """Take the history, which cost nothing here."""
        self._send(rows, [None] * len(rows), list(rows))

    def settle(self) -> None:
        """Make the most of what it was taught, now."""

    def route(self, rows: Sequence[int]) -> list[str | None]:
        """What it answers itself."""
        return list(self._pipe.ask({"do": "route", "inputs": list(map(int, rows))})["labels"])

    def give(self, rows: Sequence[int]) -> list[tuple[str, bool]]:
        """Answers, and whether each is the teacher's."""
        own = self.route(rows)
        wanted = [r for r, label in zip(rows, own, strict=True) if label is None]
        asked = wanted[: self._most - self.calls]
        self.calls += len(asked)
        self._send(rows, own, asked)
        others = [r for r in wanted if r not in set(asked)]
        said = dict(zip(others, self._beyond(others), strict=True)) if others else {}
        return [
            (label, False) if label is not None else (said[r], False) if r in said else (self._soft[r].label, True)
            for r, label in zip(rows, own, strict=True)
        ]

    def _send(self, rows: Sequence[int], own: Sequence[str | None], asked: Sequence[int]) -> None:
        """Tell it what the teacher answered."""
        raise NotImplementedError

    def close(self) -> None:
        """End its process."""
        self._pipe.close()


class Jevstiller(Rival):
    """Its proxy's two halves, :meth:`route` and ``complete``."""

    name = "jevstiller"

    def teach(self, rows: Sequence[int]) -> None:
        """As traffic that it forwards, in tens: it trains between."""
        for first in range(0, len(rows), 10):
            some = list(map(int, rows[first : first + 10]))
            self._send(some, self.route(some), some)

    def settle(self) -> None:
        """Train, and let what its calibration accepts answer without a shadow's time."""
        self._pipe.ask({"do": "train"})

    def _send(self, rows: Sequence[int], own: Sequence[str | None], asked: Sequence[int]) -> None:
        known = set(asked)
        answers = {
            str(n): dict(self._soft[r].distribution) for n, r in enumerate(rows) if r in known and own[n] is None
        }
        self._pipe.ask({"do": "complete", "answers": answers})


class Tracer(Rival):
    """Fitted to the history, and updated every :data:`REFIT` traces."""

    name = "tracer"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._traces: list[tuple[int, str]] = []
        super().__init__(*args, **kwargs)

    def teach(self, rows: Sequence[int]) -> None:
        """Fit."""
        self._traces += [(int(r), self._soft[r].label) for r in rows]
        self._fit()

    def _send(self, rows: Sequence[int], own: Sequence[str | None], asked: Sequence[int]) -> None:
        self._traces += [(int(r), self._soft[r].label) for r in asked]
        if len(self._traces) >= REFIT:
            self._fit()

    def _fit(self) -> None:
        self._pipe.ask({"do": "learn", "traces": self._traces})
        self._traces = []


RIVALS: Mapping[str, type[Rival]] = {"jevstiller": Jevstiller, "tracer": Tracer}


def available(name: str) -> bool:
    """Whether a rival can be had here; says why not."""
    try:
        environment(name)
    except (UnavailableError, OSError) as error:
        sys.stdout.write(f"without {name}: {error}\n")
        return False
    return True
