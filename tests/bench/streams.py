"""What a user gets of a platform while traffic changes, beside rivals, at equal calls of the teacher, on six streams.

Streams of real inputs (:mod:`tests.bench._streams`), 1,400 each, after a history of 300: the demo's files,
a kind after the other; mail in the order of time; CLINC150's domains, one after the other; two pairs of its domains in
turn; code that gives way to web pages and documents by and by; four domains without any drift. Each contender may have
the teacher asked about :data:`SHARE` of a stream's inputs, starts from the same history, and answers every input: with
the teacher's answer where it asked before it answered, else with its own. What is trained serves 5 s (50 inputs) after
it was decided.

``ours`` is the platform's own code in simulated time (:mod:`tests.bench._platform`); the others are
:mod:`tests.bench._contenders` and :mod:`tests.bench._rivals`, where it is said what was assumed of them. Of each, over
the seeds: the accuracy of the answers as given; undeferred errors (answers that no teacher gave and that disagree with
it) of all answers, and of those that no teacher gave; calls; regret, the summed loss against the teacher over the 300
inputs after a change; inputs from a change until what answers alone agrees with the teacher on 0.9 of such inputs
(where it never does, all that were left until the next); and all of it as ours less the rival's, paired by seed, with
95 % intervals. Beside the means: the answers as given in the 300 inputs after each change, as a share of the teacher's
accuracy. Last, of 100 simulated streams, in how many the undeferred disagreement of the whole run keeps the promise.

Reduced, so that it takes half an hour of one core: short streams, small students, trigger and canary that ask for as
little (:func:`tests.bench._platform.spec_of`). ``COHOBATE_BENCH_SEEDS``, ``COHOBATE_BENCH_STREAMS`` and
``COHOBATE_BENCH_ARMS`` (lists; parts of names) and ``COHOBATE_BENCH_LENGTH`` make a shorter run; the rows of every
run go to the file that ``COHOBATE_BENCH_ROWS_FILE`` names, and what is there already is not run again.
``COHOBATE_BENCH_PACED=1`` paces the deferrals of ``ours``, and ``COHOBATE_BENCH_NEIGHBOURS`` gives it another number
of neighbours (0: none).
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from scipy.stats import t as student_t

from components.contracts.errors import CohobateError
from serving.rollout.certificate import Judged, certify, judged
from tests.bench import _contenders as c
from tests.bench import _rivals
from tests.bench._platform import MAX_DISAGREEMENT, PER_SECOND, Given, Platform, quiet
from tests.bench._streams import STREAMS, Stream

SHARE = 0.5
"""Calls of the teacher, as a share of a stream's inputs."""

AFTER = 300
"""Inputs after a change on which it is judged what a user got."""

LOOK = 50
"""Inputs between two looks at how well what answers alone agrees."""

WELL = 0.9
"""An agreement with which a student has recovered."""

ARMS: Sequence[str] = ("static", "schedule", "random", "margin", "cascade", "jevstiller", "tracer", "drift2act", "ours")
PROMISED, PROMISED_LENGTH, LIMIT, LATE = 100, 2_000, 0.6, 25


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What one contender got on one stream; None is what there was nothing to measure of."""

    stream: str
    seed: int
    arm: str
    accuracy: float
    teacher: float
    wrong: float
    wrong_of_own: float
    calls: int
    regret: float | None
    recovery: float | None
    given_after: float | None
    seconds: float
    notes: list[str] = []


class Measure(NamedTuple):
    """A column of the tables."""

    head: str
    name: str
    scale: float = 1.0
    digits: int = 1

    def of(self, row: Row) -> float:
        """Its value of a row; NaN where there is none."""
        value = getattr(row, self.name)
        return math.nan if value is None else float(value)


MEASURES = (
    Measure("as given %", "accuracy", 100.0), Measure("undeferred errors %", "wrong", 100.0),
    Measure("of own answers %", "wrong_of_own", 100.0), Measure("calls", "calls", 1.0, 0),
    Measure("regret", "regret"), Measure("recovery", "recovery", 1.0, 0),
    Measure("after, of teacher", "given_after", 1.0, 3),
)  # fmt: skip


class Ours:
    """The platform as a contender."""

    name = "ours"

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    @property
    def calls(self) -> int:
        return self._platform.calls

    def answer(self, rows: Sequence[int]) -> list[Given]:
        return self._platform.answer(rows)

    def agreement(self, rows: Sequence[int]) -> float | None:
        pool = self._platform.stream.pool
        said = self._platform.student.predict([pool.payloads[r] for r in rows])
        return float(np.mean([s.label == pool.soft[r].label for s, r in zip(said, rows, strict=True)]))


class Routed:
    """A rival in another environment as a contender."""

    def __init__(self, rival: _rivals.Rival) -> None:
        self._rival, self.name = rival, rival.name

    @property
    def calls(self) -> int:
        return self._rival.calls

    def answer(self, rows: Sequence[int]) -> list[Given]:
        return [Given(label=label, asked=asked) for label, asked in self._rival.give(rows)]

    def agreement(self, rows: Sequence[int]) -> float | None:
        """It answers alone only what it is sure of."""
        return None


def contender(arm: str, start: c.Start, platform: Platform, folder: Path, opened: ExitStack) -> c.Contender:
    """One of :data:`ARMS`."""
    made: Mapping[str, Callable[[], c.Contender]] = {
        "static": lambda: c.Static(start),
        "schedule": lambda: c.Scheduled(start),
        "random": lambda: c.Policied(start, "random"),
        "margin": lambda: c.Policied(start, "margin"),
        "cascade": lambda: c.Cascade(start),
        "drift2act": lambda: c.DriftToAct(start),
        "ours": lambda: Ours(platform),
    }
    if arm in made:
        return made[arm]()
    pool, first = start.stream.pool, platform.student

    def beyond(rows: Sequence[int]) -> list[str]:
        return [s.label for s in first.predict([pool.payloads[r] for r in rows])]

    rival = _rivals.RIVALS[arm](
        pool.soft, start.stream.teacher.classes, pool.embeddings, agreement=1.0 - MAX_DISAGREEMENT, calls=start.calls,
        seed=start.seed, folder=folder / arm, beyond=beyond,
    )  # fmt: skip
    opened.callback(rival.close)
    rival.teach(start.stream.history.tolist())
    return Routed(rival)


def replay(stream: Stream, one: c.Contender) -> tuple[list[Given], dict[int, list[float]]]:
    """Answers to a whole stream; and, by change, what agreed at each look after it."""
    given: list[Given] = []
    looks: dict[int, list[float]] = {s: [] for s in stream.switches}
    for first in range(0, len(stream.rows), PER_SECOND):
        given += one.answer(stream.rows[first : first + PER_SECOND].tolist())
        seen = len(given)
        behind = [s for s in stream.switches if s <= seen]
        if behind and (seen - behind[-1]) // PER_SECOND % (LOOK // PER_SECOND) == 0:
            after = stream.after[stream.switches.index(behind[-1])]
            agreed = one.agreement(after[:200].tolist())
            if agreed is not None:
                looks[behind[-1]].append(agreed)
    return given, looks


def measured(stream: Stream, seed: int, arm: str, given: Sequence[Given], looks: Mapping[int, list[float]], calls: int,
             seconds: float, notes: Sequence[str]) -> Row:  # fmt: skip
    """What a user got."""
    pool = stream.pool
    told = [pool.soft[r].label for r in stream.rows]
    truth = [pool.truths[r] for r in stream.rows]
    right = np.array([g.label == t for g, t in zip(given, truth, strict=True)])
    teacher = np.array([a == b for a, b in zip(told, truth, strict=True)])
    own = np.array([not g.asked for g in given])
    off = np.array([g.label != t for g, t in zip(given, told, strict=True)])
    after = [slice(s, s + AFTER) for s in stream.switches]
    ends = [*stream.switches, len(stream.rows)][1:]
    recovered = [
        next((LOOK * n for n, a in enumerate(looks[s]) if a >= WELL), end - s)
        for s, end in zip(stream.switches, ends, strict=True)
        if looks[s]
    ]
    return Row(
        stream=stream.name, seed=seed, arm=arm, accuracy=float(right.mean()), teacher=float(teacher.mean()),
        wrong=float((own & off).mean()), wrong_of_own=float((own & off).sum() / max(1, own.sum())), calls=calls,
        regret=float(np.mean([off[a].sum() for a in after])) if after else None,
        recovery=float(np.mean(recovered)) if recovered else None,
        given_after=float(np.mean([right[a].sum() / teacher[a].sum() for a in after])) if after else None,
        seconds=seconds, notes=list(notes),
    )  # fmt: skip


def run(stream: Stream, seed: int, arms: Sequence[str], keep: Callable[[Row], None]) -> None:
    """All contenders on one stream, ours last: it goes on from the student that all start from."""
    calls = round(SHARE * len(stream.rows))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        platform = opened.enter_context(Platform(stream, calls, seed, folder))
        start = c.Start(
            stream=stream, spec=platform.spec, first=platform.first, window=platform.store.windows("stream")[0],
            artifacts=platform.settings.artifacts, calls=calls, seed=seed,
        )  # fmt: skip
        for arm in sorted(arms, key=lambda a: a == "ours"):
            began = time.process_time()
            try:
                one = contender(arm, start, platform, Path(folder), opened)
                given, looks = replay(stream, one)
            except CohobateError as error:
                if arm not in _rivals.RIVALS:
                    raise
                print(f"{stream.name}, seed {seed}: without {arm}: {error}", flush=True)
                continue
            notes = platform.decided if arm == "ours" else []
            row = measured(stream, seed, arm, given, looks, one.calls, time.process_time() - began, notes)
            print(
                f"  {stream.name:14} seed {seed} {arm:11} as given {100 * row.accuracy:5.1f}  own wrong "
                f"{100 * row.wrong:5.1f}  calls {row.calls:4}  {row.seconds:5.1f} CPU s", flush=True,
            )  # fmt: skip
            keep(row)


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 1) -> str:
    """Mean and half the 95 % interval of what could be measured."""
    found = np.array([v for v in values if not math.isnan(v)]) * scale
    if not len(found):
        return "-"
    half = f" ± {_half(found):.{digits}f}" if len(found) > 1 else ""
    return f"{found.mean():.{digits}f}{half}"


def _half(values: np.ndarray) -> float:
    return float(student_t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))


def told(rows: Sequence[Row]) -> None:
    """The tables: of each stream, and ours less each rival's."""
    for stream in dict.fromkeys(r.stream for r in rows):
        mine = [r for r in rows if r.stream == stream]
        by = {arm: {r.seed: r for r in mine if r.arm == arm} for arm in ARMS if any(r.arm == arm for r in mine)}
        teacher = spread([r.teacher for r in {r.seed: r for r in mine}.values()], 100)
        print(f"\n{stream}: {len({r.seed for r in mine})} seeds; the teacher's own accuracy {teacher} %")
        print(f"{'means':12}" + "".join(f"{m.head:>22}" for m in MEASURES))
        for arm, of in by.items():
            cells = [spread([m.of(r) for r in of.values()], m.scale, m.digits) for m in MEASURES]
            print(f"{arm:12}" + "".join(f"{x:>22}" for x in cells))
        ours = by.pop("ours", {})
        print("ours less each, paired" if ours else "without ours")
        for arm, of in by.items():
            pairs = [(ours[s], of[s]) for s in of if s in ours]
            cells = [spread([m.of(a) - m.of(b) for a, b in pairs], m.scale, m.digits) for m in MEASURES]
            print(f"{arm:12}" + "".join(f"{x:>22}" for x in cells))
        if ours and by:
            print(verdict({**by, "ours": ours}), flush=True)


def verdict(by: Mapping[str, Mapping[int, Row]]) -> str:
    """Whether ours is best as given, or not told from the best."""
    means = {arm: np.mean([r.accuracy for r in of.values()]) for arm, of in by.items()}
    best = max((a for a in means if a != "ours"), key=lambda a: means[a], default=None)
    if best is None:
        return "there is no rival"
    lead = np.array([by["ours"][s].accuracy - r.accuracy for s, r in by[best].items() if s in by["ours"]])
    if lead.mean() >= 0:
        how = "best"
    elif len(lead) > 1 and lead.mean() + _half(lead) >= 0:
        how = "within the interval of the best"
    else:
        how = "NOT best"
    calls = {arm: np.mean([r.calls for r in of.values()]) for arm, of in by.items()}
    return f"ours is {how} as given (the best rival: {best}); calls {calls['ours']:.0f}, of {best} {calls[best]:.0f}"


def promised(audit: float, streams: int = PROMISED, length: int = PROMISED_LENGTH) -> tuple[int, int]:
    """Of simulated streams those whose undeferred disagreement keeps the promise: without a guard, and with it.

    Before a change, at a random moment of the middle half, a student gives half as many wrong answers as was promised,
    and one input in twenty is told as novel; then nine of ten answers are wrong, as sure as before, and seven of ten
    inputs are told as novel. The guard is the controller's decision (:mod:`serving.rollout.certificate`) on the audited
    share of the inputs, whose labels come 25 inputs late.
    """
    kept = [0, 0]
    for seed in range(streams):
        chance = np.random.default_rng(seed)
        change = int(length * chance.uniform(0.25, 0.75))
        state, waits = certify("1", "d", MAX_DISAGREEMENT, LIMIT, 0.0, shared=True), deque[tuple[int, Judged]]()
        given: tuple[list[bool], list[bool]] = ([], [])
        for i in range(length):
            new = i >= change
            sure, wrong = chance.beta(8, 1), bool(chance.random() < (0.9 if new else MAX_DISAGREEMENT / 2))
            novel = bool(chance.random() < (0.7 if new else 0.05))
            for answers, limit in zip(given, (LIMIT, state.limits[state.place]), strict=True):
                if not novel and sure >= limit:
                    answers.append(wrong)
            if chance.random() < audit:
                waits.append((i + LATE, Judged(id=str(i), confidence=sure, disagrees=wrong, novel=novel)))
            while waits and waits[0][0] <= i:
                state = judged(state, waits.popleft()[1], float(i))
        for n, answers in enumerate(given):
            kept[n] += float(np.mean(answers)) <= MAX_DISAGREEMENT
    return kept[0], kept[1]


def chosen(name: str, known: Sequence[str]) -> list[str]:
    """Those of which a part of the name was given in the environment."""
    parts = os.environ.get(name, "").split(",")
    return [k for k in known if any(part in k for part in parts)]


def main() -> None:
    quiet()
    seeds = int(os.environ.get("COHOBATE_BENCH_SEEDS", "5"))
    length = int(os.environ.get("COHOBATE_BENCH_LENGTH", "0"))
    file = os.environ.get("COHOBATE_BENCH_ROWS_FILE")
    rows = (
        [msgspec.json.decode(line, type=Row) for line in Path(file).read_bytes().splitlines()]
        if file and Path(file).is_file()
        else []
    )
    arms = [a for a in chosen("COHOBATE_BENCH_ARMS", ARMS) if a not in _rivals.RIVALS or _rivals.available(a)]

    def keep(row: Row) -> None:
        rows.append(row)
        if file:
            with Path(file).open("ab") as out:
                out.write(msgspec.json.encode(row) + b"\n")

    for seed in range(seeds):
        for name in chosen("COHOBATE_BENCH_STREAMS", list(STREAMS)):
            missing = [a for a in arms if not any((r.stream, r.seed, r.arm) == (name, seed, a) for r in rows)]
            if not missing:
                continue
            try:
                stream = STREAMS[name](seed)
            except (CohobateError, ImportError, OSError) as error:
                print(f"without {name}: {error}")
                continue
            run(stream.head(length) if length else stream, seed, missing, keep)
    told(rows)
    print(f"\nof {PROMISED} simulated streams, those whose undeferred disagreement is at most {MAX_DISAGREEMENT:g}")
    for audit in (0.1, 0.3, 0.5):
        without, guarded = promised(audit)
        print(f"audited {audit:g}: {guarded} with the guard, {without} without")


if __name__ == "__main__":
    main()
