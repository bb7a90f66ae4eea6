"""What happens in a chaos run, and after how many kills: pure, and the same for the same seed."""

import random
from collections.abc import Sequence
from typing import Literal, NamedTuple

LABELERS = 3
"""The most labelers at once: one for each partition of the workload."""

FAULTS = ("raise", "classes", "hang", "short", "crash", "space", "nan")
"""The teacher's faults, see :mod:`.teacher`; each run takes them in this order, from a place that the seed decides."""

START_SHARE = 0.25
"""The share of kills by process id that hit a labeler while it starts."""


class Kill(NamedTuple):
    """The end of one labeler.

    ``failpoint``: it dies by itself when it passes this place for the ``passes``-th time. ``start``: it is killed
    ``after`` seconds after its process began. ``work``: ``after`` seconds after it first asked the teacher.
    """

    how: Literal["failpoint", "start", "work"]
    failpoint: str = ""
    passes: int = 1
    after: float = 0.0


class BrokerKill(NamedTuple):
    """kill -9 of the broker, which starts again after ``seconds``."""

    seconds: float


class Fault(NamedTuple):
    """The teacher fails in this way for ``seconds``; a call that hangs does so for ``hang`` seconds."""

    kind: str
    seconds: float
    hang: float = 0.0


class Scale(NamedTuple):
    """From now on this many labelers: more are started, too many are asked to end (SIGTERM)."""

    labelers: int


class Freeze(NamedTuple):
    """One labeler stands still (SIGSTOP) for ``seconds`` and then goes on, as a zombie if others took its work."""

    seconds: float


Event = BrokerKill | Fault | Scale | Freeze


class Schedule(NamedTuple):
    """``kills`` are dealt out in order, each to the next labeler that starts; events come after so many kills."""

    kills: tuple[Kill, ...]
    events: tuple[tuple[int, Event], ...]


def schedule(seed: int, kills: int, broker_kills: int, failpoints: Sequence[str]) -> Schedule:
    """The schedule of a seed.

    Half of the kills are at failpoints, as evenly spread over ``failpoints`` as their number allows, and half by
    process id; where no failpoint is declared all are by process id.
    """
    dice = random.Random(seed)
    at_places = kills // 2 if failpoints else 0
    stride = max(1, len(failpoints) // max(1, at_places))  # a short run shall not see the first steps only
    first = dice.randrange(len(failpoints)) if failpoints else 0
    places = [failpoints[(first + n * stride) % len(failpoints)] for n in range(at_places)]
    deaths = [Kill("failpoint", place, passes=dice.choice((1, 1, 1, 2, 4))) for place in places]
    for _ in range(kills - at_places):
        early = dice.random() < START_SHARE
        deaths.append(Kill("start" if early else "work", after=dice.uniform(0.0, 2.0 if early else 1.5)))
    dice.shuffle(deaths)
    return Schedule(tuple(deaths), tuple(_events(dice, kills, broker_kills)))


def _events(dice: random.Random, kills: int, broker_kills: int) -> list[tuple[int, Event]]:
    """Events at places of the run that are spread evenly for each kind and moved a little."""
    events: list[tuple[int, Event]] = [
        (at, BrokerKill(dice.uniform(0.0, 3.0))) for at in _spread(dice, kills, broker_kills)
    ]
    first = dice.randrange(len(FAULTS))
    for n, at in enumerate(_spread(dice, kills, max(1, kills // 8))):
        kind = FAULTS[(first + n) % len(FAULTS)]
        events.append(
            (at, Fault(kind, dice.uniform(0.1, 4.0), hang=dice.uniform(8.0, 14.0) if kind == "hang" else 0.0))
        )
    labelers = LABELERS
    for at in _spread(dice, kills, max(1, kills // 6)):
        labelers = dice.choice([n for n in range(1, LABELERS + 1) if n != labelers])
        events.append((at, Scale(labelers)))
    events += [(at, Freeze(dice.uniform(8.0, 15.0))) for at in _spread(dice, kills, kills // 25)]
    return sorted(events, key=lambda event: event[0])


def _spread(dice: random.Random, kills: int, times: int) -> list[int]:
    """``times`` numbers of kills from 1 to ``kills - 1``, one in each of equally long parts of the run."""
    part = kills / times if times else 0.0
    return [min(max(1, kills - 1), max(1, int(part * (n + dice.random())))) for n in range(times)]
