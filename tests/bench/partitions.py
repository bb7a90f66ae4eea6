"""1,000 partitions and 1 to 64 labelers: what a worker costs, measured; how loads and rebalances come out, simulated.

- Measured on each broker, with one worker of as many partitions as a share of 1,000 has: opening it, a transaction, and
  what it costs while nothing comes.
- Calculated from that: how much of a core the workers of one labeler take, beside the teacher.
- Simulated with the code that divides the shares (:mod:`tests.bench._shares`): the fullest labeler's load against the
  mean, under traffic whose keys follow Zipf's law, and what a labeler that joins, leaves or dies makes stand still.
"""

import statistics
import threading
import time
from contextlib import closing
from typing import NamedTuple

import psutil

from components.label.labeler import Labeler
from components.label.partition_worker import LAG_SECONDS, SHARES, PartitionWorker
from components.stream.contract import Broker, TopicPartition
from tests.bench._brokers import kinds, running
from tests.bench._shares import Costs, Fleet, Move, greedy, partition_loads, share_loads
from tests.bench._teachers import Trivial, publish, spec_of

PARTITIONS = 1_000
KEYS = 100_000
SKEWS = (0.0, 0.8, 1.0, 1.2)
LABELERS = (2, 4, 8, 16, 32, 48, 64)
SEEDS = 5
OPENINGS = 5
LABELLED = 2_000
TRANSACTIONS = 40
IDLE_SECONDS = 6.0
LINGER_SECONDS = 0.1
RATES = (10, 50, 500)
BATCH, INPUT_SECONDS = 32, 0.02
"""A batch and the teacher's time for one input, as with Magika: a worker that closes waits for one batch at most."""


class Measured(NamedTuple):
    """Seconds to open a worker; CPU seconds a second of one at rest, of an empty transaction and of a label in one."""

    opening: float
    rest: float
    fixed: float
    each: float


def main() -> None:
    found = [measured(kind) for kind in kinds()]
    costs = Costs(opening=max(m.opening for m in found), closing=BATCH * INPUT_SECONDS)
    print(f"-- simulated: {PARTITIONS} partitions in {SHARES} shares, workers open in {costs.opening:.2f} s, close in "
          f"up to {costs.closing:.2f} s, {SEEDS} seeds")  # fmt: skip
    balance()
    rebalances(costs)


def measured(kind: str) -> Measured:
    """Measure a worker on one kind of broker."""
    with running(kind) as (_, broker):
        each = -(-PARTITIONS // SHARES)
        spec = spec_of("worker", partitions=each, batch=BATCH, linger_seconds=0.02)
        labeler = Labeler(spec, Trivial(), broker)
        publish(broker, spec, 0, LABELLED)
        while labeler.lag():
            labeler.step(0.1)
        labeler.close()
        places = [p for share in labeler._shares.values() for p in share]
        taken, cpu = [], []
        for n in range(OPENINGS):
            began, used = time.perf_counter(), time.process_time()
            with closing(PartitionWorker(n, places, spec, broker, labeler.intake, labeler.asking)) as worker:
                worker.open()
                taken.append(time.perf_counter() - began)
                cpu.append(time.process_time() - used)
        opened = statistics.median(taken)
        print(f"-- measured: {kind}, a worker of {each} partitions, {LABELLED} labels to remember")
        print(
            f"opening            {opened:6.2f} s (median; most {max(taken):.2f}), {statistics.median(cpu):.2f} s of CPU"
        )
        rest = idle(PartitionWorker(0, places, spec, broker, labeler.intake, labeler.asking))
        spent = {size: transaction(broker, spec.topic("labels"), size) for size in (0, 1, BATCH, 8 * BATCH)}
    measures = Measured(opened, rest, spent[0], (spent[8 * BATCH] - spent[0]) / (8 * BATCH))
    overhead(measures)
    return measures


def idle(worker: PartitionWorker) -> float:
    threads = threading.active_count()
    with closing(worker):
        worker.open()
        worker.fetch(LAG_SECONDS)
        began, used = time.perf_counter(), time.process_time()
        while time.perf_counter() - began < IDLE_SECONDS:
            worker.fetch(0.2)
        cost = (time.process_time() - used) / (time.perf_counter() - began)
        held, links = threading.active_count() - threads + 2, len(psutil.Process().net_connections("tcp"))
        print(f"nothing comes      {cost * 1e3:6.1f} ms of CPU a second; {held} threads, {links} connections")
        return cost


def transaction(broker: Broker, topic: str, size: int) -> float:
    with closing(broker.transactional_producer(f"bench-{size}")) as producer:
        taken, used = [], time.process_time()
        for n in range(TRANSACTIONS):
            began = time.perf_counter()
            producer.begin()
            for i in range(size):
                producer.send(topic, f"k{i}", b"x" * 400, partition=0)
            producer.send_offsets("bench", {TopicPartition("worker.inputs", 0): n})
            producer.commit()
            taken.append(time.perf_counter() - began)
        cost = (time.process_time() - used) / TRANSACTIONS
        print(f"transaction of {size:3d} {statistics.median(taken) * 1e3:6.1f} ms (median), {cost * 1e3:.1f} ms of CPU")
        return cost


def overhead(m: Measured) -> None:
    """At ``r`` inputs/s a worker fills batches of ``b = min(batch, max(1, r linger))``, and commits ``r / b``."""
    print(f"cores that workers take at a rate of inputs/s of one labeler, at a linger of {LINGER_SECONDS} s")
    for rate in RATES:
        row = []
        for workers in (1, 4, 16, SHARES):
            size = min(BATCH, max(1.0, rate / workers * LINGER_SECONDS))
            row.append(f"{workers:2d} workers {workers * m.rest + m.fixed * rate / size + m.each * rate:5.2f}")
        print(f"{rate:5d}/s   " + "   ".join(row))


def balance() -> None:
    print("fullest labeler's load / mean, and the efficiency that it leaves; 'shares': by number, as it is done; "
          "'by load': the same\nshares given out by their load; 'partitions': each for itself, by its load; "
          "'hot': the largest partition alone")  # fmt: skip
    print("skew  labelers   shares (efficiency)   by load   partitions   hot")
    for skew in SKEWS:
        found = [partition_loads(PARTITIONS, KEYS, skew, seed) for seed in range(SEEDS)]
        for n in LABELERS:
            by_number = [_fullest(share_loads(loads), n, seed) * n for seed, loads in enumerate(found)]
            by_load = [greedy(share_loads(loads), n) * n for loads in found]
            apart = [greedy(loads, n) * n for loads in found]
            mean = statistics.mean(by_number)
            efficiency = statistics.mean(1 / x for x in by_number)
            print(f"{skew:4.1f}  {n:8d}   {mean:6.2f} ({efficiency:4.0%})         {statistics.mean(by_load):7.2f}"
                  f"   {statistics.mean(apart):10.2f}   {statistics.mean(max(x) * n for x in found):5.2f}")  # fmt: skip


def _fullest(loads: list[float], labelers: int, seed: int) -> float:
    """The fullest labeler's part of the traffic, as the labelers divide the shares among themselves."""
    held = dict.fromkeys(_divided(labelers, seed).values(), 0.0)
    for share, name in _divided(labelers, seed).items():
        held[name] += loads[share]
    return max(held.values())


_known: dict[tuple[int, int], dict[int, str]] = {}


def _divided(labelers: int, seed: int) -> dict[int, str]:
    if (labelers, seed) not in _known:
        _known[labelers, seed] = Fleet(labelers, Costs(0.1, 0.1), seed).working()
    return _known[labelers, seed]


def rebalances(costs: Costs) -> None:
    print("shares that move (fewest possible), seconds that a share stands still: mean and most, until all is calm")
    for n in (1, 2, 4, 8, 16, 32, 63):
        for kind in ("join", "leave", "kill"):
            if n == 1 and kind != "join":
                continue
            moves: list[Move] = [getattr(Fleet(n, costs, seed), kind)() for seed in range(SEEDS)]
            stood = [s for move in moves for s in move.stood]
            fewest = SHARES // (n + 1) if kind == "join" else SHARES // n
            print(f"{n:3d} labelers, {kind:5}  {statistics.mean(m.moved for m in moves):5.1f} ({fewest:2d})   "
                  f"{statistics.mean(stood):5.2f} and {max(stood):5.2f} s   "
                  f"{statistics.mean(m.calm for m in moves):5.1f} s")  # fmt: skip
