import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from components.contracts.records import content_hash
from components.contracts.spec import Groups, Limits
from components.control.intent import Intent, ModelRef
from components.snapshot.holdout import COSINES_DIFFER, Need, enough, kept_shares, needed, standing
from components.snapshot.leaks import ALIKE, EQUAL, MOVED, REFUSED, guarded
from components.snapshot.table import place, snapshot_table
from components.snapshot.window import freeze, read
from components.steps import evidence_folder
from drift.mean import Mean
from drift.paired import MOST_LABELS, PairedLoss
from tests.stores import migrated

FIRM = Limits(min_rows=20, confidence=0.95, min_agreement=0.6)


def with_limits(spec, limits, **student):
    monitor = msgspec.structs.replace(spec.monitor, reference=20)
    made = msgspec.structs.replace(spec.student, **student)
    return msgspec.structs.replace(spec, limits=limits, monitor=monitor, student=made)


def window(number, teacher="t@1", **manifest):
    return SimpleNamespace(number=number, manifest={"teacher": teacher, **manifest})


def sides(row):
    table = read(row.uri, row.digest)
    return dict(zip(table["input_id"].to_pylist(), table["split"].to_pylist(), strict=True))


def serve(store, name="files"):
    champion = ModelRef(version="1", uri="u", digest="d", snapshot="s", teacher="sure@1")
    store.put_intent(name, store.intent(name)[0], Intent(champion=champion))


def test_a_limit_needs_rows_by_its_confidence(spec):
    def need(**limits):
        return needed(with_limits(spec, Limits(min_rows=20, **limits)))

    assert need() == need(min_accuracy=0.9) == Need(rows=math.inf, truths=math.inf), "an estimate has no number"
    strict, lax = need(confidence=0.95, min_agreement=0.9), need(confidence=0.95, min_agreement=0.7)
    assert 20 <= lax.rows < strict.rows < 1_000 and lax.truths == strict.truths == 0
    assert need(confidence=0.8, min_agreement=0.9).rows < strict.rows
    assert need(confidence=0.95, min_accuracy=0.9).truths == strict.rows
    assert need(confidence=0.95, max_loss=0.05).truths < need(confidence=0.95, max_loss=0.02).truths < math.inf
    assert need(confidence=0.95, max_loss=0.05, looks="repeated").truths > need(confidence=0.95, max_loss=0.05).truths
    for name in ("max_slice_loss", "max_ece", "max_mae_loss"):
        assert need(confidence=0.95, **{name: 0.1}).truths == math.inf
    groups = {"g": Groups(field="f", values=("a", "b"), max_accuracy_gap=0.1)}
    assert need(confidence=0.95, groups=groups) == Need(rows=20, truths=math.inf)
    groups = {"g": Groups(field="f", values=("a", "b"), max_deferral_gap=0.1)}
    assert need(confidence=0.95, groups=groups) == Need(rows=math.inf, truths=0)
    assert need(confidence=0.95).rows == 20


def test_an_equally_good_update_passes_with_what_is_planned(spec):
    rows = needed(with_limits(spec, Limits(min_rows=20, confidence=0.95, max_loss=0.05))).truths
    tenth = round(rows / 20)
    planned = PairedLoss(lost=tenth, won=tenth, n=int(rows), effective=float(rows))
    assert planned.bound("upper", 0.95) < 0.05


@pytest.mark.parametrize("limit", [0.03, 0.06, 0.1])
def test_what_is_kept_lets_an_equally_good_student_differ_on_a_tenth(limit):
    rows = enough(Limits(min_rows=20, confidence=0.95, max_forgetting=limit), "classification")
    tenth = rows // 20
    differs = PairedLoss(lost=tenth, won=tenth, n=rows, effective=float(rows))
    assert differs.bound("upper", 0.95) < limit
    fewer = PairedLoss(lost=tenth // 4, won=tenth // 4, n=rows // 4, effective=float(rows // 4))
    assert fewer.bound("upper", 0.95) > limit, "no more than is needed"


@pytest.mark.parametrize("limit", [0.05, 0.1, 0.2])
def test_what_is_kept_lets_an_equally_good_embedding_differ(limit):
    rows = enough(Limits(min_rows=5, confidence=0.95, max_forgetting=limit), "embedding")
    chance = np.random.default_rng(3)

    def kept(n):
        drawn = (chance.normal(0.0, COSINES_DIFFER, n).clip(-2.0, 2.0) for _ in range(40))
        means = (Mean(values=tuple(d), weights=(1.0,) * n, least=-2.0, most=2.0, paired=True) for d in drawn)
        return sum(m.bound("upper", 0.95) <= limit for m in means)

    assert kept(rows) >= 32 and kept(rows // 2) <= 20, "nine of ten, and no more than is needed"


def test_a_limit_that_nothing_shows_keeps_all(spec):
    for task in ("classification", "embedding"):
        assert enough(Limits(min_rows=20, confidence=0.95, max_forgetting=0.0), task) == MOST_LABELS


def test_a_regression_s_loss_has_no_number(spec):
    lines = msgspec.structs.replace(with_limits(spec, Limits(confidence=0.95, max_loss=0.05)), task="regression")
    assert needed(lines).truths == math.inf


def test_shares_hold_for_the_older_windows_of_a_teacher():
    windows = [window(1), window(2, kept_share=0.3), window(3, "u@1"), window(4, kept_share=0.1), window(5, "u@1")]
    assert kept_shares(windows) == {1: 0.1, 2: 0.1, 3: 1.0, 4: 1.0, 5: 1.0}
    assert kept_shares(windows[:2]) == {1: 0.3, 2: 1.0}, "as it stood then"
    assert kept_shares([window(1), window(2)]) == {1: 1.0, 2: 1.0}, "windows from before release nothing"


def test_a_window_holds_out_what_its_verdict_needs(spec, tape, store, artifacts, put, make_label):
    firm = with_limits(spec, FIRM)
    put(*(make_label(i) for i in range(600)))
    row = freeze(firm, tape, store, artifacts, now=1.8e9)
    held = row.manifest["holdout_rows"]
    assert held == needed(firm).rows < 0.2 * 600 and row.manifest["holdout_share"] < 0.25
    assert row.manifest["kept_share"] == 1.0
    by_place = {f"i{i:04d}": place(content_hash(b"payload %d" % i)) for i in range(600)}
    assert all((s == "holdout") == (by_place[n] < row.manifest["holdout_share"]) for n, s in sides(row).items())


@pytest.mark.parametrize("limits", [Limits(min_rows=20, min_agreement=0.8), Limits(confidence=0.95, min_accuracy=0.8)])
def test_without_a_number_or_its_truths_as_much_as_may_be_is_held_out(
    spec, tape, store, artifacts, put, make_label, limits
):
    put(*(make_label(i) for i in range(400)))
    row = freeze(with_limits(spec, limits), tape, store, artifacts, now=1.8e9)
    assert row.manifest["holdout_share"] == 0.25 and 70 < row.manifest["holdout_rows"] < 130


def test_a_policy_s_unequal_rows_count_for_less(spec, tape, store, artifacts, put, make_label):
    put(*(msgspec.structs.replace(make_label(i), probability=0.5, policy="random") for i in range(400)))
    row = freeze(with_limits(spec, FIRM), tape, store, artifacts, now=1.8e9)
    assert row.manifest["holdout_share"] == 0.25


def test_a_student_that_was_held_gets_as_much_evidence_as_there_may_be(spec, tape, store, artifacts, put, make_label):
    firm = with_limits(spec, FIRM)
    put(*(make_label(i) for i in range(600)))
    first = freeze(firm, tape, store, artifacts, now=1.8e9)
    folder = evidence_folder(first).removeprefix("file://")
    Path(folder).mkdir(parents=True)
    Path(folder, "a.jsonl").write_text('{"kind":"verdict","decision":"hold","findings":[],"reasons":[]}\n')
    put(*(make_label(i) for i in range(600, 1200)))
    assert freeze(firm, tape, store, artifacts, now=1.8e9 + 1).manifest["holdout_share"] == 0.25


def frozen(spec, tape, store, artifacts, put, make_label, make_truth, windows, rows=300):
    found = []
    for n in range(windows):
        names = range(n * rows, (n + 1) * rows)
        put(*(make_label(i) for i in names), *(make_truth(i, 1.7e9) for i in names))
        found.append(freeze(spec, tape, store, artifacts, now=1.8e9 + n))
        serve(store)
    return found


def held_now(windows):
    kept = kept_shares(windows)
    return sum(standing(read(w.uri, w.digest), kept[w.number])["split"].to_pylist().count("holdout") for w in windows)


def test_older_holdouts_are_released_once_a_champion_serves(spec, tape, store, artifacts, put, make_label, make_truth):
    windows = frozen(with_limits(spec, FIRM), tape, store, artifacts, put, make_label, make_truth, 4)
    assert [w.manifest["kept_share"] for w in windows] == [1.0, 0.05, 0.05, 0.05]
    assert held_now(windows) < 0.1 * 1200 < sum(w.manifest["holdout_rows"] for w in windows)
    fixed = with_limits(spec, FIRM, holdout="fixed")
    put(*(make_label(i) for i in range(2_000, 2_300)))
    row = freeze(fixed, tape, store, artifacts, now=1.9e9)
    assert (row.manifest["holdout_share"], row.manifest["kept_share"]) == (0.25, 0.05), "released stays released"


def test_before_a_champion_serves_nothing_is_released(spec, tape, store, artifacts, put, make_label):
    for n in range(2):
        put(*(make_label(i) for i in range(n * 100, (n + 1) * 100)))
        row = freeze(with_limits(spec, FIRM), tape, store, artifacts, now=1.8e9 + n)
    assert row.manifest["kept_share"] == 1.0


def test_what_forgetting_is_judged_on_is_kept(spec, tape, store, artifacts, put, make_label, make_truth):
    limits = msgspec.structs.replace(FIRM, max_forgetting=0.1)
    firm = with_limits(spec, limits)
    windows = frozen(firm, tape, store, artifacts, put, make_label, make_truth, 4)
    shares = [w.manifest["kept_share"] for w in windows]
    assert shares[0] == 1.0 and all(a >= b >= 0.05 for a, b in pairwise(shares))
    assert shares[1] > 0.05
    for n in range(2, 5):
        older = held_now(windows[:n]) - windows[n - 1].manifest["holdout_rows"]
        assert older >= min(enough(limits, "classification"), sum(w.manifest["holdout_rows"] for w in windows[: n - 1]))


def table(make_label, *numbers, share):
    return snapshot_table([make_label(i) for i in numbers], {}, share)


def between(low, high, n=1):
    return [i for i in range(2_000) if low <= place(content_hash(b"payload %d" % i)) < high][:n]


def test_equal_content_goes_where_it_stands_now(spec, make_label):
    """Windows with other shares, and released rows: by content alone, without a look at what is alike."""
    bare = msgspec.structs.replace(spec, student=msgspec.structs.replace(spec.student, near_duplicate=None))
    kept, going = between(0.0, 0.05)[0], between(0.1, 0.2)[0]
    before, _ = guarded(bare, table(make_label, kept, going, share=0.25), [])
    assert before["split"].to_pylist() == ["holdout"] * 2
    made, counts = guarded(bare, table(make_label, kept, going, share=0.05), [before])
    assert sorted(made["split"].to_pylist()) == ["holdout", REFUSED] and counts == {EQUAL: 1}
    now = standing(before, 0.05)
    assert sorted(now["split"].to_pylist()) == ["holdout", "train"]
    made, counts = guarded(bare, table(make_label, kept, going, share=0.25), [now])
    assert sorted(made["split"].to_pylist()) == ["holdout", "train"] and counts == {MOVED: 1}


def test_a_released_audit_row_is_a_row_like_others(spec, make_label):
    going = between(0.5, 0.9)[0]
    audited = msgspec.structs.replace(make_label(going), audit=True)
    before, _ = guarded(spec, snapshot_table([audited], {}, 0.25), [])
    again = table(make_label, going, share=0.25)
    assert guarded(spec, again, [before])[0]["split"].to_pylist() == [REFUSED]
    assert guarded(spec, again, [standing(before, 0.05)])[0]["split"].to_pylist() == ["train"]


def test_what_was_refused_waits_for_what_it_is_like(spec, make_label):
    words = " ".join(f"word{n}" for n in range(40))

    def said(low, high, tail):
        found = (f"{words} {tail}{n}".encode() for n in range(1_000))
        return make_label(1, payload=next(p for p in found if low <= place(content_hash(p)) < high))

    first, near = said(0.1, 0.25, "a"), said(0.25, 1.0, "b")
    before, _ = guarded(spec, snapshot_table([first], {}, 0.25), [])
    refused, counts = guarded(spec, snapshot_table([near], {}, 0.25), [before])
    assert counts == {ALIKE: 1} and standing(refused, 1.0)["split"].to_pylist() == [REFUSED]
    assert standing(refused, 0.05)["split"].to_pylist() == ["train"]


def test_a_window_that_is_frozen_again_is_the_same(spec, tape, store, artifacts, put, make_label, make_truth, tmp_path):
    firm = with_limits(spec, FIRM)
    frozen(firm, tape, store, artifacts, put, make_label, make_truth, 3)
    again = migrated(f"sqlite:///{tmp_path}/again.db")
    for w in store.windows("files")[:2]:
        again.add_window(type(w)(digest=w.digest, workload=w.workload, number=w.number, uri=w.uri, rows=w.rows,
                                 created_at=w.created_at, manifest=w.manifest))  # fmt: skip
    serve(again)
    row = freeze(firm, tape, again, artifacts, now=1.8e9 + 2)
    last = store.windows("files")[-1]
    assert (row.digest, row.manifest["kept_share"]) == (last.digest, last.manifest["kept_share"])
    again.close()
