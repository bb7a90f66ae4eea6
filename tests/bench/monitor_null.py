"""False alarms of a workload's monitor where nothing changed, all that it looks at together.

``--repetitions`` times a reference of 300 rows is drawn, and half a window of traffic goes by: one look at a window of
inputs for ``drift`` and ``predictive_entropy``, one at a window of labels for ``entropy``, and as many p-values as half
a window has inputs. Scores calibrate their p-values by 300 rows, once. The rate of any alarm is to be at most alpha.

Then the same of a champion that was learnt for a new regime, of which :data:`OWN` of the 300 rows are, while that goes
on: against these alone, as the monitor does it, and against all 300. The regimes lie a deviation apart.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from components.contracts.records import SoftLabel
from components.contracts.spec import Monitor, Spec, load_spec
from pipelines.watch import Seen, Watch, columns_of
from tests.bench._drift import rate
from tests.pipelines.conftest import TICKETS

Floats = npt.NDArray[np.float64]

REFERENCE = 300

OWN = 58
"""Held-out rows of a new regime that 290 labels give at the default of ``student.holdout_share``."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="monitor_null")
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--window", type=int, default=150)
    given, _ = parser.parse_known_args()
    chance = np.random.default_rng(0)
    print(f"reference {REFERENCE} rows, window {given.window}; rate of alarms [95 % interval]")
    for alpha in (0.01, 0.05, 0.2):
        policy = Monitor(window=given.window, reference=REFERENCE, alpha=alpha, min_effect=0.0)
        spec = msgspec.structs.replace(load_spec(TICKETS), monitor=policy)
        raised = [tuple(alarms(spec, chance, REFERENCE)) for _ in range(given.repetitions)]
        kinds = Counter(kind for found in raised for kind in found)
        print(f"alpha {alpha}: any {rate(sum(map(bool, raised)), len(raised))}; of each {dict(kinds)}", flush=True)
        for alone in (True, False):
            raised = [tuple(after_a_change(spec, chance, alone)) for _ in range(given.repetitions)]
            kinds = Counter(kind for found in raised for kind in found)
            which = f"{OWN} rows of a new regime" if alone else f"these and {REFERENCE - OWN} of before"
            print(f"  against {which}: any {rate(sum(map(bool, raised)), len(raised))}; of each {dict(kinds)}")


def alarms(spec: Spec, chance: np.random.Generator, reference: int, shift: float = 0.0) -> Iterator[str]:
    """The kinds that alarm while half a window goes by; ``shift``: of one column of each kind, in deviations."""
    watch = Watch.fit(spec, [row(chance) for _ in range(reference)], reference)
    yield from _raised(spec, chance, watch, np.sort(chance.normal(size=reference)), shift)


def after_a_change(spec: Spec, chance: np.random.Generator, alone: bool) -> Iterator[str]:
    """The kinds that alarm about a regime that was learnt; ``alone``: held against what is known of it alone."""
    own, scores = [row(chance, 1.0) for _ in range(OWN)], chance.normal(1.0, 1.0, OWN)
    before = [row(chance) for _ in range(REFERENCE - OWN)]
    known = np.sort([*scores, *chance.normal(size=REFERENCE - OWN)])
    usual = _p_values(known, scores).tolist()
    watch = Watch.fit(spec, own, REFERENCE, usual) if alone else Watch.fit(spec, [*own, *before], REFERENCE)
    yield from _raised(spec, chance, watch, known, 1.0)


def _raised(spec: Spec, chance: np.random.Generator, watch: Watch, scores: Floats, shift: float) -> Iterator[str]:
    window = columns_of([row(chance, shift).columns for _ in range(spec.monitor.window)])
    yield from (kind for kind, known in watch.references.items() if known.assess(window).outcome == "drift")
    p_values = _p_values(scores, chance.normal(shift, 1.0, spec.monitor.window // 2))
    if watch.novelty is not None and watch.novelty.observe({"novelty": p_values}) is not None:
        yield "novelty"


def _p_values(scores: Floats, of: Floats) -> Floats:
    return (len(scores) - np.searchsorted(scores, of) + 1) / (len(scores) + 1)


def row(chance: np.random.Generator, shift: float = 0.0) -> Seen:
    unsure, teacher = chance.gamma(1.0 + shift, 0.2), chance.gamma(1.0 + shift, 0.1)
    columns: dict[str, float | str] = {
        "length": float(chance.lognormal(5.0 + shift, 1.0)), "words": float(chance.poisson(20)),
        "share": float(chance.beta(2.0, 5.0)), "answer": f"class {chance.zipf(1.7) % 12}",
        "student_entropy": unsure, "mutual_information": unsure * chance.random() / 2,
        "teacher_entropy": teacher, "entropy_gap": unsure - teacher,
    }  # fmt: skip
    answer = SoftLabel(task="classification", space="s", distribution={"a": 1.0})
    return Seen(name="", columns=columns, answer=answer, agrees=True)


if __name__ == "__main__":
    main()
