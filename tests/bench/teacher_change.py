"""How soon a teacher that changed in silence is found, how often one that did not is accused, and what it costs.

Changed teachers are simulated on Magika's real answers: each of them, by its own seed, answers 5 % of all contents
with another content's label, from a random moment on. Restarts are of the real model, with other batch sizes and
thread counts than the reference was made with.
"""

import logging
import random
import shutil
import statistics
import tempfile
import time
import zlib
from pathlib import Path

import msgspec

from components.contracts.records import Input, SoftLabel
from components.contracts.spec import Probe, build, load_spec
from components.control.store import ControlStore
from components.control.teachers import incidents
from components.stream.memory import MemoryBroker
from components.teacher_watch import guard as guard_module
from components.teacher_watch.guard import Guard
from components.teacher_watch.probes import PASS, Comparison, distance, power, strange_bound
from components.teacher_watch.probes import Probe as Probed
from infra.workloads import files

CHANGED = 50
SETS = 3
"""Probe sets, each from its own traffic; the changed teachers are others for each."""
DIFFERING = 0.05
BATCH = 16
GOAL = 0.95
QUIET = 10_000
ROOMY = 12
"""Inputs in a batch while the labeler keeps up with its traffic; while inputs wait for it batches are full."""
PAYLOAD = 4096
SIZE = Probe().size


class Recorded:
    """Magika's answers from memory; from ``change`` on, those of a teacher that differs on a share of contents."""

    def __init__(self, magika, answers):
        self.name, self.digest, self.task = magika.name, magika.digest, magika.task
        self.space, self.classes, self.size_bytes = magika.space, magika.classes, magika.size_bytes
        self._answers, self._others = answers, list(answers.values())
        self.seed: int | None = None

    def label(self, payloads):
        return [self._answer(p) for p in payloads]

    def _answer(self, payload):
        answer = self._answers[payload]
        if self.seed is None:
            return answer
        drawn = random.Random(f"{self.seed}:{zlib.crc32(payload)}")
        if drawn.random() >= DIFFERING:
            return answer
        return next(o for o in iter(lambda: drawn.choice(self._others), None) if distance(o, answer) > 0.5)


class Home:
    """A control database, artifacts and a broker, with a guard started on them."""

    def __init__(self, spec, folder):
        self.spec, self.folder = spec, Path(folder)
        self.store = ControlStore(f"sqlite:///{self.folder}/control.db")
        self.store.migrate()
        self.broker = MemoryBroker()
        self.broker.ensure_topics(spec.topics)

    def guard(self, teacher, **changes):
        label = msgspec.structs.replace(self.spec.label, **changes)
        spec = msgspec.structs.replace(self.spec, label=label)
        return Guard(spec, teacher, self.store, self.broker, f"file://{self.folder}/artifacts")


def traffic(payloads, rng):
    while True:
        payload = rng.choice(payloads)
        yield Input(workload="files", id="x", key="k", time=1.0, payload=payload), payload


def labelled(guard, stream, limit, batch=BATCH):
    """Batches through the guard until it suspects the teacher, or ``limit`` labels are let through; how many were.

    The labels of the batch in which the change is seen are not let through: they go to quarantine.
    """
    made = 0
    while made < limit:
        some = [next(stream) for _ in range(batch)]
        guard.ask([i for i, _ in some], [p for _, p in some])
        if guard.state.status != "trusted":
            break
        made += batch
    return made


def delays(spec, teacher, payloads, template, batch, seeds):
    """Labels let through after the change, for each changed teacher; None where a round and a half did not show it."""
    found = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(template, folder, dirs_exist_ok=True)
            home, rng = Home(spec, folder), random.Random(seed)
            teacher.seed = None
            guard = home.guard(teacher, probe=Probe(rotate=0))
            stream = traffic(payloads, rng)
            assert labelled(guard, stream, rng.randrange(BATCH, 2000), batch), "nothing was labelled"
            teacher.seed = seed
            limit = int(1.5 * spec.label.probe.size / spec.label.probe.share)
            made = labelled(guard, stream, limit, batch)
            found.append(made if incidents(home.store, "files") else None)
            home.store.close()
    teacher.seed = None
    return found


class Heard:
    """A teacher whose answers are kept."""

    def __init__(self, teacher):
        self._teacher, self.answers = teacher, []

    def __getattr__(self, name):
        return getattr(self._teacher, name)

    def label(self, payloads):
        answers = self._teacher.label(payloads)
        self.answers += answers
        return answers


def restarts(home, spec):
    """Start the real model with other threads and batches; alarms, starts, and the largest distance by threads."""
    starts, largest = 0, {}
    for threads in (1, 2, 4):
        made = build(msgspec.structs.replace(spec.teacher, options={**spec.teacher.options, "threads": threads}))
        for batch in (1, 3, 7, 16, 48, 180):
            guard = home.guard(heard := Heard(made), batch=batch, probe=Probe(rotate=0))
            guard.ask([], [])
            probes = [guard._comparison.probes[c] for c in guard._comparison.round()]
            worst = max(distance(a, p.answers[0]) for a, p in zip(heard.answers, probes, strict=True))
            largest[threads] = max(largest.get(threads, 0.0), worst)
            starts += 1
    return len(incidents(home.store, "files")), starts, largest


def noisy(seed, changed, asked, kind):
    """After how many probes a noisy teacher's change is found; None: never."""
    rng = random.Random(seed)

    def draw(weights):
        if kind == "one sampled class":
            chosen = rng.choices(range(3), weights)[0]
            return SoftLabel.of("s", ("a", "b", "c"), [float(i == chosen) for i in range(3)])
        moved = [w * rng.uniform(0.9, 1.1) for w in weights]
        return SoftLabel.of("s", ("a", "b", "c"), [w / sum(moved) for w in moved])

    weights = {str(n): [0.9, 0.05, 0.05] for n in range(SIZE)}
    watch = Comparison(
        [Probed(content=c, answers=tuple(draw(w) for _ in range(20))) for c, w in weights.items()],
        tolerance=2e-3, alpha=1e-4, seed=seed,
    )  # fmt: skip
    for content in rng.sample(sorted(weights), round(changed * SIZE)):
        weights[content] = [0.05, 0.05, 0.9]
    names = sorted(weights)
    for n in range(asked):
        content = rng.choice(names)
        if watch.observe(content, draw(weights[content])):
            return n + 1
    return None


def line(name, found):
    seen = sorted(f for f in found if f is not None)
    at = (
        f"median {statistics.median(seen):.0f}, 99 % {seen[int(0.99 * (len(seen) - 1))]}, most {seen[-1]}"
        if seen
        else "-"
    )
    print(f"{name:44s} found {len(seen)}/{len(found)}: {at}", flush=True)


def cost(spec, recorded, payloads, template, seed, name, batch):
    """Make a probe set in ``template``, and print what it and the watch of an unchanged teacher cost."""
    home = Home(spec, template)
    guard, stream = home.guard(recorded), traffic(payloads, random.Random(seed))
    while not guard.state.probes:
        labelled(guard, stream, batch, batch)
    made = guard.counts["probed"]
    if name:
        labelled(guard, stream, QUIET, batch)
        watched = (guard.counts["probed"] - made) / QUIET
        print(f"{name}: {made} calls for the set, then {watched:.4f} probes a label; "
              f"alarms in {QUIET} labels: {len(incidents(home.store, 'files'))}")  # fmt: skip
    home.store.close()


def main() -> None:
    logging.getLogger("components").setLevel(logging.ERROR)
    guard_module.REFRESH_SECONDS = 60.0
    spec = load_spec(files.source(seed=0).spec)
    spec = msgspec.structs.replace(spec, label=msgspec.structs.replace(spec.label, batch=BATCH, probe=Probe()))
    items = [item.payload[:PAYLOAD] for phase in files.source(seed=0).phases for item in phase.items]
    payloads = list(dict.fromkeys(items))[::2][:500]
    magika = build(spec.teacher)
    answers = dict(zip(payloads, magika.label(payloads), strict=True))
    recorded, watch = Recorded(magika, answers), spec.label.probe
    print(f"probes {watch.size}, {PASS} in an interval, tolerance {watch.tolerance}, contents {len(payloads)}")
    print(f"power against {DIFFERING:.0%}: pass {power(PASS, DIFFERING):.4f}, set {power(watch.size, DIFFERING):.4f}")
    for name, batch, interval in (
        ("keeping up", ROOMY, watch.interval),
        ("with a backlog", BATCH, round(PASS / watch.share)),
    ):
        found = []
        for number in range(SETS):
            with tempfile.TemporaryDirectory() as template:
                cost(spec, recorded, payloads, template, number, f"{name}, set {number}", batch)
                seeds = range(number * CHANGED, (number + 1) * CHANGED)
                found += delays(spec, recorded, payloads, template, batch, seeds)
        within = sum(f is not None and f <= interval for f in found) / len(found)
        line(f"{name}: labels let through", found)
        print(f"{name}: within an interval of {interval} labels {within:.3f}, goal {GOAL}: "
              f"{'met' if within >= GOAL else 'MISSED'}")  # fmt: skip
    with tempfile.TemporaryDirectory() as template:
        cost(spec, recorded, payloads, template, 0, "", BATCH)
        home, began = Home(spec, template), time.perf_counter()
        alarms, starts, largest = restarts(home, spec)
        home.store.close()
        took = time.perf_counter() - began
        print(
            f"restarts of the real model: {starts}, alarms {alarms}, largest distances by threads "
            f"{ {n: f'{d:.1e}' for n, d in largest.items()} } ({took:.0f} s)"
        )
    print(f"noisy teachers: strange answers explained {strange_bound(watch.size, 20, 5e-5):.4f}, alpha 1e-4")
    for kind in ("jitter of 10 %", "one sampled class"):
        line(f"  {kind}, no change, 20 rounds", [noisy(s, 0.0, 20 * SIZE, kind) for s in range(40)])
        for changed in (0.05, 0.1, 0.25):
            line(f"  {kind}, {changed:.0%} changed: probes", [noisy(s, changed, 5_000, kind) for s in range(20)])


if __name__ == "__main__":
    main()
