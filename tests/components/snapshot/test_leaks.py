import random
from collections import Counter

import msgspec

from components.contracts.records import Input, Label, SoftLabel, content_hash, label_key
from components.snapshot.leaks import ALIKE, AUDITED, EQUAL, MOVED, REFUSED, HeldOut, guarded
from components.snapshot.table import snapshot_table
from components.snapshot.window import freeze, read

WORDS = [f"word{i}" for i in range(2_000)]
SOFT = SoftLabel(task="classification", space="s@1", distribution={"a": 0.75, "b": 0.25})


def texts(n, seed):
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=30)) for _ in range(n)]


def typo(text, seed=0):
    """The text as somebody else would have typed it: another word, another case."""
    chance = random.Random(seed)
    words = text.split(" ")
    words[chance.randrange(len(words))] = "wrod"
    return " ".join(words)


def labels(payloads, prefix, *, audit=()):
    made = []
    for i, payload in enumerate(payloads):
        data, name = payload.encode(), f"{prefix}{i:04d}"
        record = Input(workload="files", id=name, key="k", time=1.7e9 + i, payload=data)
        made.append(
            Label(key=label_key(record, "sure@1", "s@1"), teacher="sure@1", soft=SOFT, input=record, labelled_at=1.7e9,
                  audit=i in audit)
        )  # fmt: skip
    return made


def texty(spec):
    return msgspec.structs.replace(spec, payload=msgspec.structs.replace(spec.payload, decoder="text"))


def table(payloads, prefix, audit=()):
    return snapshot_table(labels(payloads, prefix, audit=audit), {}, 0.25)


def sides(made):
    return dict(zip(made["payload"].to_pylist(), made["split"].to_pylist(), strict=True))


def hashed(text):
    return "holdout" if int(content_hash(text.encode())[:16], 16) < 0.25 * 2**64 else "train"


def test_plain_traffic_is_split_by_its_hashes(spec):
    made, counts = guarded(texty(spec), table(texts(80, 0), "x"), [])
    assert counts == Counter()
    assert all(side == hashed(p.decode()) for p, side in sides(made).items())
    assert made["sketch"].null_count == 0 and len(made["sketch"][0].as_py()) == 256


def test_planted_leaks_are_refused_and_counted(spec):
    first = texts(80, 0)
    before, _ = guarded(texty(spec), table(first, "x", audit=range(10)), [])
    held = [p for p in first[10:] if sides(before)[p.encode()] == "holdout"]
    exact = first[:10]  # audited contents under other ids
    near = [t for i, p in enumerate(held) for t in [typo(p, i)] if hashed(t) == "train"]
    audited = [t for i, p in enumerate(first[:10]) for t in [typo(p, i)] if hashed(t) == "train"]
    fresh = texts(40, 1)
    made, counts = guarded(texty(spec), table([*exact, *near, *audited, *fresh], "y"), [before])
    found = sides(made)
    assert len(near) >= 5 and len(audited) >= 4
    assert all(found[t.encode()] == REFUSED for t in (*near, *audited))
    assert all(found[t.encode()] != "train" for t in exact)
    assert counts[ALIKE] + counts[AUDITED] == len(near) + len(audited)  # some are like both
    assert counts[ALIKE] >= len(near) and counts[AUDITED] > 0
    assert counts[EQUAL] == sum(hashed(t) == "train" for t in exact)
    assert all(found[t.encode()] == hashed(t) for t in fresh)


def test_leaks_within_one_window_are_seen(spec):
    first = texts(60, 0)
    held = [p for p in first if hashed(p) == "holdout"]
    near = [t for i, p in enumerate(held) for t in [typo(p, i)] if hashed(t) == "train"]
    made, counts = guarded(texty(spec), table([*first, *near], "x"), [])
    assert counts[ALIKE] == len(near) > 3
    assert all(sides(made)[t.encode()] == REFUSED for t in near)


def test_the_like_of_what_was_learnt_is_no_holdout(spec):
    first = texts(80, 0)
    learnt = [p for p in first if hashed(p) == "train"]
    near = [t for i, p in enumerate(learnt) for t in [typo(p, i)] if hashed(t) == "holdout"]
    before, _ = guarded(texty(spec), table(first, "x"), [])
    made, counts = guarded(texty(spec), table(near, "y"), [before])
    assert set(sides(made).values()) == {"train"} and counts[MOVED] == len(near) > 5


def test_traffic_of_templates_leaves_something_to_learn_from_and_to_judge_by(spec):
    templates = texts(40, 0)
    traffic = [f"{t} no{i}" for i in range(8) for t in templates]
    made, _ = guarded(texty(spec), table(traffic, "x"), [])
    count = Counter(sides(made).values())
    assert count["train"] > 160 and count["holdout"] > 10


def test_likeness_can_be_left_out(spec):
    bare = msgspec.structs.replace(spec, student=msgspec.structs.replace(spec.student, near_duplicate=None))
    first = texts(40, 0)
    before, _ = guarded(bare, table(first, "x", audit=range(40)), [])
    made, counts = guarded(bare, table([*first, *(typo(p) for p in first)], "y"), [before])
    assert counts[EQUAL] == sum(hashed(t) == "train" for t in first) and counts[ALIKE] == counts[AUDITED] == 0
    assert made["sketch"].null_count == made.num_rows


def test_a_manifest_counts_what_was_refused(spec, tape, store, artifacts, put):
    first = texts(60, 0)
    put(*labels(first, "x", audit=range(10)))
    one = freeze(spec, tape, store, artifacts, now=1.8e9)
    assert one.manifest["leaks"] == {}
    near = [t for i, p in enumerate(first[:10]) for t in [typo(p, i)] if hashed(t) == "train"]
    put(*labels([*near, *texts(20, 1)], "y"))
    two = freeze(spec, tape, store, artifacts, now=1.8e9 + 1)
    assert two.manifest["leaks"] == {AUDITED: len(near)}
    found = sides(read(two.uri, two.digest))
    assert all(found[t.encode()] == REFUSED for t in near)
    assert two.manifest["holdout_rows"] == Counter(found.values())["holdout"]


def test_what_is_held_out_later_is_not_learnt_from_any_more(spec, tape, store, artifacts, put):
    first = texts(60, 0)
    put(*labels(first, "x"))
    one = freeze(spec, tape, store, artifacts, now=1.8e9)
    learnt = [p for p in first if hashed(p) == "train"]
    put(*labels([typo(p) for p in learnt[:5]], "y", audit=range(5)))
    two = freeze(spec, tape, store, artifacts, now=1.8e9 + 1)
    tables, held = [read(w.uri, w.digest) for w in (one, two)], HeldOut(spec)
    for table in tables:
        held.add(table)
    allowed = [set(table.filter(held.learnable(table))["input_id"].to_pylist()) for table in tables]
    ids = {f"x{first.index(p):04d}" for p in learnt}
    assert allowed == [ids - {f"x{first.index(p):04d}" for p in learnt[:5]}, set()]
