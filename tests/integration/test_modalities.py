"""Images, sounds and rows with categories go the whole way: stream, label, train, gate, canary, promotion."""

import time
from pathlib import Path

import pytest

from components.contracts.records import DeadLetter, Input, decode, encode
from components.stream.contract import TopicPartition
from tests.integration.loop import WORKLOADS, Loop, Platform, Traffic
from tests.workloads.modalities import teachers

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420), pytest.mark.filterwarnings("ignore")]

FOLDER = WORKLOADS / "modalities"


@pytest.mark.parametrize(
    ("name", "make", "old", "new"),
    [
        ("digits", teachers.digit, ["zero", "one", "two"], ["three", "four"]),
        ("tones", teachers.tone, ["low", "middle"], ["high"]),
        ("wines", teachers.wine, ["barolo", "grignolino"], ["barbera"]),
    ],
)
def test_from_a_change_of_traffic_to_a_promotion(
    tmp_path: Path, name: str, make, old: list[str], new: list[str]
) -> None:
    loop = Loop(Platform(tmp_path), Traffic(FOLDER / f"{name}.yaml", make))
    first = loop.first(old, 250)

    # The traffic changes: the champion knows none of the new classes.
    assert not any(a["label"] in new for _ in range(10) for a in loop.ask(loop.chance.choices(new, k=20)))

    # What nobody can read goes to the dead letters before the teacher is asked.
    broken = b'{"x": ' if name == "wines" else b"\x89PN"
    entry = Input(workload=name, id="broken", key="k", time=time.time(), payload=broken)
    loop.broker.producer().send(loop.spec.topic("inputs"), "k", encode(entry))
    loop.label()
    assert loop.labeler.counts["dead"] == 1
    (letter,) = loop.broker.logs[TopicPartition(f"{name}.inputs.dlq", 0)]
    assert decode(DeadLetter, letter.value).reason == "undecodable"

    # An update passes the gate, the canary takes it to 100 %, and it knows the old ones and the new.
    second = loop.promote(old + new)
    assert loop.alias("champion") == second != first and loop.alias("previous") == first
    loop.chance.seed(1)  # the same inputs in every run, however many it took to come here
    kinds = loop.chance.choices(old + new, k=60)
    said = [a["label"] for a in loop.ask(kinds)]
    assert sum(a == b for a, b in zip(said, kinds, strict=True)) >= 50
    loop.close()
