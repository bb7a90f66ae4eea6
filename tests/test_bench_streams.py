"""The benchmark of streams replays the platform's own parts, and asks its rivals as they are documented."""

import random
import sys
from dataclasses import replace

import numpy as np
import pytest

from components.contracts.errors import UnavailableError
from components.contracts.records import SoftLabel
from components.contracts.spec import Factory, Payload
from tests.bench import _rivals, streams
from tests.bench._platform import Given
from tests.bench._streams import Pool, Stream

WORDS = {kind: [f"{kind}{n}" for n in range(30)] for kind in ("bill", "login", "ship", "return")}
CALLS = 150


def soft(kind):
    return SoftLabel.of("words@1", tuple(WORDS), [0.97 if k == kind else 0.01 for k in WORDS])


@pytest.fixture(scope="module")
def stream():
    """A history and 100 inputs of two kinds, then 100 of two others."""
    chance = random.Random(0)
    kinds = [chance.choice(("bill", "login")) for _ in range(400)] + [
        chance.choice(("ship", "return")) for _ in range(140)
    ]
    texts = [" ".join([*chance.sample(WORDS[k], k=5), f"w{i}"]) for i, k in enumerate(kinds)]
    pool = Pool(
        payload=Payload(decoder="text"),
        features=Factory(factory="components.student.text:TextNgrams", options={"buckets": 1_024}),
        classes=tuple(WORDS), payloads=[t.encode() for t in texts], soft=[soft(k) for k in kinds], truths=kinds,
        kinds=np.array(["old"] * 400 + ["new"] * 140), embeddings=np.zeros((540, 4)),
    )  # fmt: skip
    return Stream(
        name="words", pool=pool, history=np.arange(300), rows=np.arange(300, 500), switches=(100,),
        after=(np.arange(500, 540),),
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_all_contenders_answer_a_stream_within_their_budget(stream, monkeypatch):
    monkeypatch.setattr(streams, "SHARE", CALLS / 200)
    own = [a for a in streams.ARMS if a not in _rivals.RIVALS]
    rows = []
    streams.run(stream, 0, own, rows.append)
    by = {r.arm: r for r in rows}
    assert list(by) == own and all(0 < r.calls <= CALLS for r in by.values() if r.arm != "static")
    # The first student knows none of the new kinds: whoever asks nobody gives half of the answers wrong.
    assert by["static"].accuracy <= 0.55 + by["static"].calls / 200
    # Ours: the new kinds are deferred at once, and learnt from.
    assert by["ours"].given_after >= 0.9 and by["ours"].wrong <= 0.1
    assert any("promote" in note for note in by["ours"].notes)
    assert max(r.accuracy for r in rows if r.arm != "ours") > by["static"].accuracy


def test_what_a_user_got_is_reckoned_as_it_says(stream):
    told = [stream.pool.soft[r].label for r in stream.rows]
    given = [Given(label=t, asked=False) for t in told[:100]] + [Given(label="bill", asked=False)] * 20
    given += [Given(label=t, asked=True) for t in told[120:]]
    row = streams.measured(stream, 3, "x", given, {100: [0.1, 0.5, 0.95]}, 80, 1.0, ["n"])
    assert (row.accuracy, row.teacher, row.wrong, row.wrong_of_own) == (0.9, 1.0, 0.1, 20 / 120)
    assert (row.regret, row.recovery, row.given_after, row.calls) == (20.0, 100.0, 0.8, 80)
    never = streams.measured(stream, 3, "x", given, {100: [0.1, 0.5]}, 80, 1.0, [])
    assert never.recovery == 100.0
    steady = streams.measured(replace(stream, switches=(), after=()), 3, "x", given, {}, 80, 1.0, [])
    assert (steady.regret, steady.recovery, steady.given_after) == (None, None, None)
    assert streams.msgspec.json.decode(streams.msgspec.json.encode(steady), type=streams.Row) == steady


def test_the_verdict_names_the_best_rival(stream):
    def rows(arm, shares):
        given = [Given(label="bill", asked=False)] * 200
        made = streams.measured(stream, 0, arm, given, {100: [0.1]}, 10, 1.0, [])
        return {n: streams.msgspec.structs.replace(made, seed=n, accuracy=s) for n, s in enumerate(shares)}

    def said(ours):
        return streams.verdict({"a": rows("a", [0.7, 0.8, 0.9]), "ours": rows("ours", ours)})

    assert said([0.8, 0.9, 0.91]).startswith("ours is best as given (the best rival: a)")
    assert "within the interval" in said([0.75, 0.75, 0.85]) and "NOT best" in said([0.6, 0.7, 0.8])


def test_a_guard_keeps_the_promise_in_more_streams():
    without, guarded = streams.promised(0.5, streams=10)
    assert guarded >= 9 > without


WORKER = """
import json, sys
start = json.loads(sys.stdin.readline())
print(json.dumps({"ready": True}), flush=True)
routed = []
for line in sys.stdin:
    order = json.loads(line)
    if order["do"] == "route":
        if 13 in order["inputs"]:
            sys.exit("thirteen")
        print(json.dumps({"labels": ["own" if i % 2 else None for i in order["inputs"]]}), flush=True)
    else:
        with open(start["folder"] + "/heard.jsonl", "a") as out:
            out.write(json.dumps(order) + "\\n")
        print(json.dumps(order), flush=True)
"""


@pytest.fixture
def rival(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    opened = []

    def make(kind, calls=2):
        one = kind(
            [soft("bill")] * 20, list(WORDS), np.zeros((20, 2)), agreement=0.9, calls=calls, seed=0,
            folder=tmp_path / kind.name, beyond=lambda rows: ["first"] * len(rows),
            begins=lambda name, start: _rivals.Worker([sys.executable, str(script)], start),
        )  # fmt: skip
        opened.append(one)
        return one, tmp_path / kind.name / "heard.jsonl"

    yield make
    for one in opened:
        one.close()


def heard(file):
    return [streams.msgspec.json.decode(line) for line in file.read_bytes().splitlines()] if file.exists() else []


@pytest.mark.parametrize("kind", _rivals.RIVALS.values(), ids=list(_rivals.RIVALS))
def test_a_rival_is_asked_within_the_budget_and_what_is_beyond_is_answered_otherwise(kind, rival):
    one, _ = rival(kind)
    assert one.give([1, 2, 4]) == [("own", False), ("bill", True), ("bill", True)]
    assert one.give([6, 7]) == [("first", False), ("own", False)] and one.calls == 2


def test_jevstiller_hears_the_answers_that_it_waits_for(rival):
    one, file = rival(_rivals.Jevstiller)
    one.teach([2, 3])
    one.give([1, 2, 4, 6])
    assert [sorted(o["answers"]) for o in heard(file)] == [["0"], ["1", "2"]]
    assert heard(file)[0]["answers"]["0"] == pytest.approx(dict(soft("bill").distribution))


def test_tracer_is_fitted_to_the_history_and_again_by_the_hundred(rival, monkeypatch):
    monkeypatch.setattr(_rivals, "REFIT", 2)
    one, file = rival(_rivals.Tracer, calls=5)
    one.teach([1, 3, 5])
    one.give([2])
    assert [o["traces"] for o in heard(file)] == [[[1, "bill"], [3, "bill"], [5, "bill"]]]
    one.give([4, 6])
    assert [[i for i, _ in o["traces"]] for o in heard(file)][1:] == [[2, 4, 6]]


def test_a_rival_that_ends_says_why(rival):
    one, _ = rival(_rivals.Tracer)
    with pytest.raises(UnavailableError, match="thirteen"):
        one.give([13])
