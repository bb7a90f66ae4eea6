import copy

import msgspec
import pytest

from components.contracts.errors import ArtifactError, ConfigError
from components.contracts.spec import Groups, Serve, Variant
from components.contracts.storage import digest_of, get_bytes, put_bytes
from components.control import learning
from components.control.intent import ModelRef
from components.control.tables import WindowRow
from components.distill.data import update_rows, window_rows
from components.distill.train import distill
from components.evaluate.criteria import NO_CHAMPION, NO_CONFIDENCE, NO_OLDER_WINDOW
from components.evaluate.evaluate import GAUGE, LABEL_FREE, evaluate
from components.evaluate.evidence import decode, encode, verdict_line
from components.evaluate.judge import judge
from components.evaluate.page import quality_page
from components.snapshot import erase
from components.steps import evidence_folder
from components.student.card import CARD_KEY
from tests.stores import migrated

TINY = Variant(name="tiny", dim=8, hidden=16)


def reference(done):
    return ModelRef(version="1", uri=done.uri, digest=done.digest, snapshot="s", teacher="t@1")


class World:
    """Two windows of letters, a student of the first, and its update on the second."""

    def __init__(self, spec, letters, freeze_rows, folder):
        self.spec, self.artifacts = spec, f"file://{folder}"
        self.windows = [
            freeze_rows(spec, letters("ab", 80), self.artifacts, 1),
            freeze_rows(spec, letters("cd", 80), self.artifacts, 2),
        ]
        self.first = self.distil(self.windows[:1], None)
        self.second = self.distil(self.windows, reference(self.first))
        self.store = migrated(f"sqlite:///{folder}/control.db")

    def apart(self, folder, store):
        """The same with a store of its own, and windows beside which no evaluation lies yet."""
        made = copy.copy(self)
        made.artifacts, made.store = f"file://{folder}", store
        made.windows = [self._copied(w, f"{made.artifacts}/{w.uri.removeprefix(self.artifacts)}") for w in self.windows]
        return made

    @staticmethod
    def _copied(window, uri):
        put_bytes(uri, get_bytes(window.uri, window.digest))
        return WindowRow(
            digest=window.digest, workload=window.workload, number=window.number, uri=uri, rows=window.rows,
            created_at=window.created_at, manifest=window.manifest,
        )  # fmt: skip

    def distil(self, windows, parent):
        return distill(self.spec, windows, variant=TINY, parent=parent, artifacts=self.artifacts, seed=0)

    def evaluate(self, done, *, windows=None, champion=None, spec=None):
        return evaluate(
            spec or self.spec, done.uri, done.digest, done.float_uri,
            windows=self.windows if windows is None else windows, store=self.store,
            champion=reference(champion) if champion else None,
        )  # fmt: skip


@pytest.fixture(scope="module")
def trained(letter_spec, letters, freeze_rows, tmp_path_factory):
    made = World(letter_spec, letters, freeze_rows, tmp_path_factory.mktemp("world"))
    yield made
    made.store.close()


@pytest.fixture
def world(trained, tmp_path, store):
    """A test's own: each evaluation on one holdout spends of its level, and the last one is what is kept."""
    return trained.apart(tmp_path, store)


@pytest.fixture(scope="module")
def update(trained):
    return trained.evaluate(trained.second, champion=trained.first)


def test_a_good_update_is_promoted(update):
    assert update.verdict.decision == "promote", update.verdict.reasons
    found = update.measurements
    assert found["accuracy"] > 0.9 and found["agreement"] >= found["agreement_lower"] > 0.7
    assert found["loss"] < -0.8 and found["forgetting"] <= 0.05
    assert found["teacher_accuracy"] == 1.0 and found["parity_gap"] <= 0.02
    assert 0 < found["p50_ms"] <= found["p99_ms"] and found["ece"] is not None
    assert update.notes == (NO_CONFIDENCE,)
    assert found["forgetting[window 1]"] == found["forgetting"] and found["loss_upper"] < -0.5
    assert found["mutual_information"] > 0.05 and found["latency_ratio"] > 0
    assert found["noise_loss[bit_flips]"] is not None and "attack_loss" not in found


def test_names_every_measurement(update):
    names = {n for n in update.measurements if not n.endswith(("_lower", "_upper"))}
    assert names == {
        "accuracy", "agreement", "loss", "forgetting", "forgetting[window 1]", "ece", "slice_loss[c]", "slice_loss[d]",
        "parity_gap", "probability_gap", "largest_probability_gap", "p50_ms", "p95_ms", "p99_ms", "latency_ratio",
        "bytes", "rows", "truth_rows", "teacher_accuracy", "worst_slice_accuracy", "noise_loss[bit_flips]",
        "noise_loss[truncation]", "teacher_entropy", "student_entropy", "entropy_gap", "mutual_information",
        "novelty_rows", "novelty_deferred", "novelty_chance", "novelty_least", "novelty_gap",
        "membership_advantage", "membership_auc",
    }  # fmt: skip


def test_an_older_window_may_have_lost_all_of_its_rows(world):
    """As retention leaves it: nothing is learnt from it, and nothing is judged on it."""
    for window in world.windows:
        world.store.add_window(window)
    erase.without(world.store, world.windows[0], lambda table: [True] * table.num_rows, lambda digest, count: {})
    world.windows = world.store.windows(world.spec.name)
    assert [w.rows for w in world.windows] == [0, 160]
    learnt = update_rows(world.spec, world.windows, 0)
    assert len(learnt.new) > 100 and not len(learnt.replay)
    done = world.evaluate(world.second, champion=world.first)
    assert done.measurements["rows"] > 20 and done.measurements["forgetting"] is None
    page = quality_page(world.spec, world.windows, world.second.digest).decode()
    assert "forgetting is not demanded: there is no older window" in page


def test_groups_are_compared_by_what_is_known_of_the_inputs(world):
    groups = {"size": Groups(descriptor="log_bytes", edges=(3.0, 4.0), min_rows=5, max_agreement_gap=0.5)}
    limits = msgspec.structs.replace(world.spec.limits, groups=groups)
    serve = msgspec.structs.replace(world.spec.serve, defer_below=2.0)
    done = world.evaluate(world.second, spec=msgspec.structs.replace(world.spec, limits=limits, serve=serve))
    new = [row for row in done.evidence.rows if row.set == "new"]
    assert {row.groups["size"] for row in new} == {"3 to 4"} and all(row.deferred for row in new)
    assert all(row.deferred is None and not row.groups for row in done.evidence.rows if row.set != "new")
    assert done.measurements["group_rows[size=3 to 4]"] == len(new)
    assert done.measurements["group_deferral[size=3 to 4]"] == 1.0
    assert done.verdict.decision == "hold" and "group_rows[size=below 3] is 0; it must be >= 5" in done.verdict.reasons
    assert judge(decode(get_bytes(done.evidence_uri).splitlines())[0]) == done.verdict


def test_the_verdict_can_be_had_again_from_what_is_kept(update):
    assert judge(update.evidence) == update.verdict
    data = get_bytes(update.evidence_uri)
    evidence, recorded = decode(data.splitlines())
    assert evidence == update.evidence and recorded == verdict_line(update.verdict)
    assert encode(evidence, judge(evidence)) == data


def test_evidence_lies_with_that_of_its_window(trained, update):
    assert update.evidence_uri == f"{evidence_folder(trained.windows[-1])}/{trained.second.digest}.jsonl"
    assert update.evidence_uri.startswith(trained.artifacts)


def test_each_further_student_on_one_holdout_spends_less_of_the_level(world, update):
    limits = msgspec.structs.replace(world.spec.limits, confidence=0.8)
    spec = msgspec.structs.replace(world.spec, limits=limits)
    window = world.windows[:1]
    assert world.evaluate(world.first, windows=window, spec=spec).evidence.judgement.look == 1
    second = world.evaluate(world.second, windows=window, spec=spec)
    assert second.evidence.judgement.look == 2
    (level,) = [c.confidence for c in second.criteria if c.measure == "accuracy"]
    assert level == pytest.approx(0.95)
    assert world.evaluate(world.first, windows=window, spec=spec).evidence.judgement.look == 1


def test_what_is_released_judges_nobody(world):
    held = window_rows(world.windows[0], "holdout", "classification", "t@1").ids
    kept = window_rows(world.windows[0], "holdout", "classification", "t@1", kept=0.05).ids
    assert set(kept) < set(held)
    world.windows[1].manifest = {**world.windows[1].manifest, "kept_share": 0.05}
    done = world.evaluate(world.second, champion=world.first)
    assert [row.id for row in done.evidence.rows if row.set.startswith("regime ")] == kept
    assert {row.id for row in done.evidence.rows if row.set == "new"} == set(
        window_rows(world.windows[1], "holdout", "classification", "t@1").ids
    )


def test_a_bound_that_cannot_be_shown_yet_holds_and_names_the_labels(world):
    limits = msgspec.structs.replace(
        world.spec.limits, confidence=0.95, max_loss=0.01, max_forgetting=None, min_accuracy=0.5
    )
    spec = msgspec.structs.replace(world.spec, limits=limits)
    held = world.evaluate(world.second, champion=world.second, spec=spec)
    assert held.verdict.decision == "hold"
    (finding,) = [f for f in held.verdict.findings if f.outcome == "missing"]
    assert finding.measure == "loss" and finding.value == 0.0 and finding.bound > 0.01
    assert 297 <= finding.more < 5000 and f"{finding.more} more labels" in finding.reason


def test_what_costs_a_process_is_measured_where_it_is_demanded(world):
    limits = msgspec.structs.replace(
        world.spec.limits, max_cold_start_ms=1e9, max_memory_bytes=10**9, core_hour_price=0.04,
        max_cost_per_1000=1e9, max_attack_loss=1.0,
    )  # fmt: skip
    done = world.evaluate(world.second, champion=world.first, spec=msgspec.structs.replace(world.spec, limits=limits))
    assert done.verdict.decision == "promote", done.verdict.reasons
    found = done.measurements
    assert found["cold_start_ms"] > 0 and 0 < found["memory_bytes"] < 10**9
    assert found["cost_per_1000"] > 0 and 0 <= found["attack_loss"] <= 1


def test_the_estimate_without_labels_is_held_against_the_truth(trained, update):
    gauge = trained.store.gauges("letters")[LABEL_FREE].value
    assert gauge["accuracy"] == 0.0  # the champion knows none of the new letters
    assert gauge["disagreement"] < 0.2 and gauge["disagreement_error"] == gauge["disagreement"]
    assert gauge["disagreement_error"] < gauge["mean_confidence"]


def test_keeps_the_confusion_and_the_slices(update):
    assert set(update.confusion["labels"]) >= {"c", "d"}
    assert sum(map(sum, update.confusion["matrix"])) == update.measurements["truth_rows"]
    assert set(update.slices) == {"c", "d"}


def test_the_last_evaluation_is_a_gauge(world):
    done = world.evaluate(world.first, windows=world.windows[:1])
    gauge = world.store.gauges("letters")[GAUGE].value
    assert gauge["digest"] == world.first.digest and gauge["decision"] == done.verdict.decision
    assert gauge["accuracy"] == done.measurements["accuracy"]


def test_an_evaluation_adds_two_points_to_the_learning_curve(world):
    """The student's after its window, and the champion's on the same rows before it; again they are the same two."""
    world.evaluate(world.first, windows=world.windows[:1])
    for _ in range(2):
        world.evaluate(world.second, champion=world.first)
    gauges = {name: row.value for name, row in world.store.gauges("letters").items()}
    first, second = learning.evaluated(gauges)
    assert (first.window, first.champion_window, first.champion_wrong) == (world.windows[0].digest, None, None)
    assert (second.window, second.digest) == (world.windows[1].digest, world.second.digest)
    assert second.champion_window == "s" and second.champion_wrong == second.rows >= 10
    assert first.wrong < 0.3 * first.rows and second.wrong < 0.3 * second.rows


def test_a_first_student_is_not_compared(world):
    done = world.evaluate(world.first, windows=world.windows[:1])
    assert done.verdict.decision == "promote" and done.notes == (NO_CHAMPION, NO_CONFIDENCE)
    assert done.measurements["loss"] is None and done.measurements["forgetting"] is None


def test_a_first_student_is_judged_on_what_was_held_out_in_all_windows(world, letters, freeze_rows):
    windows = [freeze_rows(world.spec, letters("ab", 40, seed=n), world.artifacts, n) for n in (11, 12)]
    rows = world.evaluate(world.first, windows=windows).measurements["rows"]
    alone = [world.evaluate(world.first, windows=[w]).measurements["rows"] for w in windows]
    assert rows == sum(alone) and min(alone) > 0


def test_with_one_window_nothing_can_have_been_forgotten(world):
    done = world.evaluate(world.first, windows=world.windows[:1], champion=world.first)
    assert done.measurements["loss"] == 0.0 and done.notes == (NO_OLDER_WINDOW, NO_CONFIDENCE)


def test_a_stale_student_is_rejected(world):
    done = world.evaluate(world.first, champion=world.second)
    assert done.verdict.decision == "reject"
    assert done.measurements["accuracy"] == 0.0 and done.measurements["loss"] > 0.9


def test_a_student_that_forgot_is_rejected(world):
    forgetful = world.distil(world.windows[1:], None)
    done = world.evaluate(forgetful, champion=world.first)
    assert done.measurements["accuracy"] > 0.9 and done.measurements["forgetting"] > 0.9
    assert done.verdict.decision == "reject" and done.verdict.reasons[0].startswith("forgetting[window 1] is")


def test_permuted_classes_are_rejected_and_differ_from_the_float_model(world):
    import onnx

    model = onnx.load_from_string(get_bytes(world.second.uri))
    (entry,) = [p for p in model.metadata_props if p.key == CARD_KEY]
    card = world.second.card
    permuted = msgspec.structs.replace(card, classes=(*card.classes[1:], card.classes[0]))
    entry.value = msgspec.json.encode(permuted).decode()
    data = model.SerializeToString()
    uri = f"{world.artifacts}/bad.onnx"
    put_bytes(uri, data)
    done = evaluate(
        world.spec, uri, digest_of(data), world.second.float_uri, windows=world.windows, champion=None,
        store=world.store,
    )  # fmt: skip
    assert done.verdict.decision == "reject"
    assert done.measurements["accuracy"] < 0.1 and done.measurements["parity_gap"] == 1.0


def test_too_few_rows_are_held(world):
    limits = msgspec.structs.replace(world.spec.limits, min_rows=10_000)
    done = world.evaluate(world.second, spec=msgspec.structs.replace(world.spec, limits=limits))
    assert done.verdict.decision == "hold"
    assert done.measurements["accuracy"] is None and done.measurements["rows"] < 100


def test_without_truth_nothing_is_said_of_accuracy(world, letters, freeze_rows):
    window = freeze_rows(world.spec, letters("ab", 80, seed=5, truth=False), world.artifacts, 3)
    done = world.evaluate(world.first, windows=[window])
    assert done.measurements["accuracy"] is None and done.measurements["agreement"] > 0.9
    assert done.verdict.decision == "hold"
    assert done.verdict.reasons[0] == "accuracy was not measured; it must be >= 0.9"


def test_refuses_an_artifact_that_is_not_the_one_that_was_distilled(world):
    other = msgspec.structs.replace(reference(world.second), digest="0" * 64)
    with pytest.raises(ArtifactError, match="expected 000000000000"):
        evaluate(
            world.spec, other.uri, other.digest, world.second.float_uri, windows=world.windows, champion=None,
            store=world.store,
        )  # fmt: skip


def test_needs_a_window(world):
    with pytest.raises(ConfigError, match="at least one snapshot"):
        world.evaluate(world.first, windows=[])


def test_a_regression_is_judged_by_its_error(world, line_spec, lines, freeze_rows):
    window = freeze_rows(line_spec, lines(150), world.artifacts, 1)
    done = distill(line_spec, [window], variant=TINY, parent=None, artifacts=world.artifacts, seed=0)
    judged = world.evaluate(done, windows=[window], champion=done, spec=line_spec)
    assert judged.verdict.decision == "promote", judged.verdict.reasons
    assert 0 < judged.measurements["mae"] <= judged.measurements["rmse"] < 25
    assert judged.measurements["agreement"] > 0.7 and judged.measurements["loss"] == 0.0
    assert judged.confusion == {"labels": [], "matrix": []}
    strict = msgspec.structs.replace(line_spec, limits=msgspec.structs.replace(line_spec.limits, max_rmse=0.1))
    assert world.evaluate(done, windows=[window], spec=strict).verdict.decision == "reject"


def test_older_windows_are_judged_together_until_they_have_rows_to_decide(world, letters, freeze_rows):
    newest = freeze_rows(world.spec, letters("ab", 80, seed=5), world.artifacts, 3)
    windows = [*world.windows, newest]
    plain = world.evaluate(world.second, windows=windows, champion=world.first)
    assert set(plain.evidence.sets("regime ")) == {"regime window 1", "regime window 2"}
    limits = msgspec.structs.replace(world.spec.limits, confidence=0.9, max_forgetting=0.05)
    sure = world.evaluate(
        world.second, windows=windows, champion=world.first, spec=msgspec.structs.replace(world.spec, limits=limits)
    )
    assert set(sure.evidence.sets("regime ")) == {"regime window 1-window 2"}


def test_the_deferral_limit_comes_from_the_holdout_where_the_spec_bounds_the_disagreement(world):
    bounded = msgspec.structs.replace(world.spec, serve=Serve(max_disagreement=0.5))
    good = world.evaluate(world.second, spec=bounded).measurements
    assert 0.0 <= good["defer_below"] < 1.0 and good["defer_kept"] > 0.5
    stale = world.evaluate(world.first, windows=world.windows[1:], spec=bounded).measurements
    assert stale["defer_below"] is None and stale["defer_kept"] is None
