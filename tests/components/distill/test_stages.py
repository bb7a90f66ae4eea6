"""What a student learns before its labels, and from inside its teacher."""

import msgspec
import numpy as np
import pytest
import torch

from components.contracts.errors import ConfigError, TeacherError, UnavailableError
from components.contracts.spec import Factory, Variant
from components.contracts.spec.objective import Hidden, Kl, Rkd
from components.contracts.spec.privacy import Privacy
from components.contracts.spec.student import Cohort, Stage
from components.contracts.storage import digest_of, files, get_bytes
from components.control.intent import ModelRef
from components.distill import signals
from components.distill.signals import teacher_states
from components.distill.stages import pretraining
from components.distill.start import wanted_of
from components.distill.train import distill
from components.distill.unlabelled import Unlabelled
from components.student.card import StudentCard
from components.student.parity import parity
from components.student.runtime import Student
from tests.components.distill.teachers import DIGEST, Embedding, Letters

TEACHER = f"t@{DIGEST}"
TINY = Variant(name="tiny", dim=8, hidden=16)
GENERAL = Stage(name="general", objective=(Hidden(student="hidden", teacher="shares", distance="cosine"),), epochs=6)


@pytest.fixture(scope="module")
def spec(letter_spec):
    return msgspec.structs.replace(letter_spec, teacher=Factory(factory="tests.components.distill.teachers:Letters"))


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return f"file://{tmp_path_factory.mktemp('stages')}"


@pytest.fixture(scope="module")
def window(spec, letters, freeze_rows, artifacts):
    return freeze_rows(spec, letters("ab", 60), artifacts, 1, teacher=TEACHER)


@pytest.fixture(scope="module")
def traffic(letters):
    return Unlabelled(payloads=[p for p, _, _ in letters("abcd", 60, seed=5)], digest="f" * 64)


def learning(spec, **values):
    return msgspec.structs.replace(spec, student=msgspec.structs.replace(spec.student, **values))


def run(spec, window, artifacts, traffic=None, parent=None):
    inputs = {"inputs": lambda: traffic} if traffic else {}
    return distill(spec, [window], variant=TINY, parent=parent, artifacts=artifacts, seed=0, **inputs)


def test_a_stage_learns_from_traffic_before_the_labels_come(spec, window, artifacts, traffic):
    staged = run(learning(spec, stages=(GENERAL,)), window, artifacts, traffic)
    plain = run(spec, window, artifacts)
    assert staged.metrics["unlabelled_rows"] == 240 and staged.card.unlabelled == "f" * 64
    assert staged.metrics["stage_loss_general"] < 0.2  # a cosine distance, of which unrelated states have one
    assert staged.digest != plain.digest and "stage_loss_general" not in plain.metrics and plain.card.unlabelled == ""
    assert staged.history[0] < plain.history[0]


def test_a_stage_of_any_name_hides_no_other_number_of_an_update(spec, window, artifacts, traffic):
    done = run(learning(spec, stages=(msgspec.structs.replace(GENERAL, name="training"),)), window, artifacts, traffic)
    assert done.metrics["training_loss"] == done.history[-1] != done.metrics["stage_loss_training"]


def test_the_stage_is_a_fresh_student_s_unless_it_says_otherwise(spec, window, artifacts, traffic):
    first = run(learning(spec, stages=(GENERAL,)), window, artifacts, traffic)
    parent = ModelRef(version="1", uri=first.uri, digest=first.digest, snapshot=window.digest, teacher=TEACHER)
    again = run(learning(spec, stages=(GENERAL,)), window, artifacts, traffic, parent)
    assert "stage_loss_general" not in again.metrics and again.card.unlabelled == ""
    always = learning(spec, stages=(msgspec.structs.replace(GENERAL, updates=True),))
    assert "stage_loss_general" in run(always, window, artifacts, traffic, parent).metrics


def test_without_traffic_the_stage_is_left_out_and_says_so(spec, window, artifacts, caplog):
    done = run(learning(spec, stages=(GENERAL,)), window, artifacts, Unlabelled(payloads=[]))
    assert done.metrics["unlabelled_rows"] == 0.0 and "no unlabelled inputs" in caplog.text


class KilledError(Exception):
    """What a test ends an update by."""


def killed(*_, **__):
    raise KilledError


EMBEDDING = Factory(factory="tests.components.distill.teachers:Embedding")


def embedding(spec, **student):
    return msgspec.structs.replace(learning(spec, **student), teacher=EMBEDDING)


def test_a_student_that_names_no_stage_learns_the_embedding_that_its_teacher_shows(spec, window, artifacts, traffic):
    done = run(embedding(spec), window, artifacts, traffic)
    plain = run(embedding(spec, pretrain="off"), window, artifacts, traffic)
    assert done.metrics["stage_loss_pretrain"] < 0.3 and done.metrics["unlabelled_rows"] == 240
    assert done.card.unlabelled == "f" * 64 and done.history[0] < plain.history[0]
    assert not any(name.startswith("stage_loss") for name in plain.metrics) and plain.card.unlabelled == ""
    parent = ModelRef(version="1", uri=done.uri, digest=done.digest, snapshot=window.digest, teacher=TEACHER)
    assert "stage_loss_pretrain" not in run(embedding(spec), window, artifacts, traffic, parent).metrics


@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        (EMBEDDING, {"stages": (GENERAL,)}),
        (EMBEDDING, {"privacy": Privacy(epsilon=3.0, delta=1e-5, unit="input")}),
        (EMBEDDING, {"network": Factory(factory="components.distill.networks.table:TableNetwork")}),
        (Factory(factory="components.teachers.oip:OipTeacher"), {}),
        (Factory(factory="nowhere.at_all:Teacher"), {}),
    ],
    ids=["stages", "privacy", "network", "teacher", "code elsewhere"],
)
def test_what_has_no_stage_by_itself(spec, teacher, student):
    assert pretraining(embedding(spec), TINY)
    assert not pretraining(msgspec.structs.replace(learning(spec, **student), teacher=teacher), TINY)


def test_a_teacher_that_shows_no_embedding_after_all_stops_no_update(spec, window, tmp_path, traffic, caplog):
    artifacts = tmp_path.as_uri()  # where nothing is kept of a teacher of this digest that shows one
    done = run(spec, window, artifacts, traffic)
    assert "learns from its labels alone" in caplog.text
    assert done.metrics["unlabelled_rows"] == 0.0 and done.card.unlabelled == ""
    assert done.digest == run(learning(spec, pretrain="off"), window, artifacts, traffic).digest


@pytest.mark.parametrize("fault", ["raises", "nan", "deep"])
def test_a_stage_that_nobody_asked_for_stops_no_update(
    spec, letters, freeze_rows, artifacts, traffic, caplog, monkeypatch, fault
):
    monkeypatch.setattr(Embedding, "digest", digest_of(fault.encode()))  # what others gave is kept
    monkeypatch.setattr(Embedding, "fault", fault)
    window = freeze_rows(spec, letters("ab", 60), artifacts, 1, teacher=f"t@{Embedding.digest}")
    done = run(embedding(spec), window, artifacts, traffic)
    assert "learns from its labels alone" in caplog.text and done.metrics["unlabelled_rows"] == 0.0
    objective = (Hidden(student="hidden", teacher="embedding", distance="cosine"),)
    asked = embedding(spec, stages=(msgspec.structs.replace(GENERAL, objective=objective),))
    with pytest.raises((ValueError, TeacherError, ConfigError)):
        run(asked, window, artifacts, traffic)


def test_a_champion_keeps_its_widths_where_the_spec_has_none(spec, window, artifacts):
    first = run(spec, window, artifacts)
    parent = ModelRef(version="1", uri=first.uri, digest=first.digest, snapshot=window.digest, teacher=TEACHER)
    bare = learning(spec, variants=(Variant(name="tiny"),))
    fresh, again = (
        distill(bare, [window], variant=bare.student.variants[0], parent=given, artifacts=artifacts, seed=0)
        for given in (None, parent)
    )
    assert fresh.card.network.options == {"dim": 128, "hidden": 256}
    assert again.card.network == first.card.network and "taught_rows" not in again.metrics
    network = {
        name: wanted_of(learning(spec, variants=(one,)), first.card, one).options
        for name, one in {
            "one width": Variant(name="tiny", dim=8),
            "another": Variant(name="tiny", hidden=32),
            "gone": Variant(name="base"),
        }.items()
    }
    assert network == {
        "one width": {"dim": 8, "hidden": 16}, "another": {"dim": 8, "hidden": 32}, "gone": {"dim": 128, "hidden": 256},
    }  # fmt: skip


def test_an_update_that_is_made_again_does_not_go_on_from_one_that_had_no_stage(
    spec, window, artifacts, traffic, tmp_path, monkeypatch
):
    """The teacher fails, and the update is killed; then both are well."""
    with monkeypatch.context() as first:
        first.setattr("components.distill.stages.with_states", killed)
        first.setattr("components.distill.train.export", killed)
        with pytest.raises(KilledError):
            run(embedding(spec), window, tmp_path.as_uri(), traffic)
    assert files(f"{tmp_path.as_uri()}/letters/training/*/checkpoint.pt")
    done = run(embedding(spec), window, tmp_path.as_uri(), traffic)
    assert "stage_loss_pretrain" in done.metrics
    assert done.digest == run(embedding(spec), window, artifacts, traffic).digest


def test_an_input_that_the_featuriser_refuses_stops_no_update_that_asked_for_none(
    spec, window, artifacts, traffic, monkeypatch, caplog
):
    monkeypatch.setattr("components.distill.stages.encoded", killed)
    done = run(embedding(spec), window, artifacts, traffic)
    assert "KilledError" in caplog.text and done.card.unlabelled == ""
    with pytest.raises(KilledError):
        run(learning(spec, stages=(GENERAL,)), window, artifacts, traffic)


def test_a_stream_that_is_away_stops_the_stages_that_were_asked_for_alone(spec, window, artifacts, caplog):
    def away():
        raise UnavailableError("kafka", "does not answer", "start it")

    done = distill(embedding(spec), [window], variant=TINY, parent=None, artifacts=artifacts, seed=0, inputs=away)
    assert "does not answer" in caplog.text and done.metrics["unlabelled_rows"] == 0.0
    asked = embedding(spec, stages=(GENERAL,))
    with pytest.raises(UnavailableError):
        distill(asked, [window], variant=TINY, parent=None, artifacts=artifacts, seed=0, inputs=away)


def test_terms_inside_go_with_labels_too_and_every_term_is_told(spec, window, artifacts):
    both = (Kl(weight=0.8), Rkd(weight=0.2, student="hidden", teacher="shares"))
    done = run(learning(spec, objective=both), window, artifacts)
    assert done.metrics["loss_kl"] > 0 and done.metrics["loss_rkd"] > 0
    assert done.metrics["loss_kl"] + done.metrics["loss_rkd"] == pytest.approx(done.metrics["training_loss"], rel=1e-5)


def test_a_variant_learns_by_its_recipe(spec, window, artifacts):
    cold = learning(
        spec,
        recipes={"cold": (Kl(temperature=1.0),)},
        variants=(Variant(name="tiny", dim=8, hidden=16, recipe="cold"),),
    )
    done = distill(cold, [window], variant=cold.student.variants[0], parent=None, artifacts=artifacts, seed=0)
    assert done.card.recipe == "cold" and done.digest != run(spec, window, artifacts).digest


@pytest.mark.parametrize(
    ("term", "reason"),
    [
        (Hidden(student="hidden", teacher="thoughts"), "thoughts"),
        (Hidden(student="nowhere", teacher="shares"), "no state of the student"),
        (Hidden(student="hidden", teacher="shares", project="none"), "wide"),
    ],
)
def test_a_state_that_is_not_there_is_refused(spec, window, artifacts, term, reason):
    with pytest.raises(Exception, match=reason):
        run(learning(spec, objective=(Kl(), term)), window, artifacts)


class Told(torch.nn.Module):
    def __init__(self, *, task, inputs, outputs):
        super().__init__()
        self.table = torch.nn.Embedding(inputs["ids"].below, 4)
        self.head = torch.nn.Linear(4, outputs)

    def forward(self, ids, weights):
        pooled = (self.table(ids) * weights.unsqueeze(2)).sum(dim=1)
        return {"logits": self.head(pooled), "pooled": pooled}


TOLD = Factory(factory="tests.components.distill.test_stages:Told")


def test_states_that_a_network_returns_are_among_those_that_a_refusal_names(spec, window, artifacts, traffic):
    stage = Stage(name="general", objective=(Hidden(student="hidden", teacher="shares"),), epochs=1)
    told = {"network": TOLD, "variants": (Variant(name="tiny"),)}
    wanted = r"student\.stages\[0\]\.objective\[0\]\.student.*'hidden'.*which has head, pooled, table"
    with pytest.raises(Exception, match=wanted):
        distill(
            learning(spec, **told, stages=(stage,)), [window], variant=Variant(name="tiny"), parent=None,
            artifacts=artifacts, seed=0, inputs=lambda: traffic,
        )  # fmt: skip


def test_states_are_asked_once(spec, tmp_path):
    before = Letters.asked
    first = teacher_states(spec, [b"ab", b"aab"], ["shares"], TEACHER, tmp_path.as_uri())
    second = teacher_states(spec, [b"ab", b"aab"], ["shares"], TEACHER, tmp_path.as_uri())
    assert Letters.asked == before + 2 and np.array_equal(first.arrays["shares"], second.arrays["shares"])
    assert first.arrays["shares"][1, :2] == pytest.approx([2 / 3, 1 / 3], abs=1e-3) and first.mask is None


def test_states_of_another_teacher_than_made_the_labels_are_refused(spec, tmp_path):
    with pytest.raises(ConfigError, match="made the labels"):
        teacher_states(spec, [b"ab"], ["shares"], f"t@{'0' * 64}", tmp_path.as_uri())


def test_states_that_do_not_fit_are_refused(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "MOST_BYTES", 1 << 20)
    with pytest.raises(ConfigError, match=r"take 2 MiB for 1 rows, of 1 at most.*fewer rows") as refused:
        teacher_states(spec, [b"ab"], ["wide"], TEACHER, tmp_path.as_uri(), field="student.recipes.wide")
    assert refused.value.field == "student.recipes.wide"


def test_a_teacher_without_states_is_no_source_of_them(letter_spec, tmp_path):
    spec = msgspec.structs.replace(letter_spec, teacher=Factory(factory="tests.components.distill.test_stages:Closed"))
    with pytest.raises(ConfigError, match="shows no inner states"):
        teacher_states(spec, [b"ab"], ["shares"], TEACHER, tmp_path.as_uri())


def test_a_refusal_of_a_stage_s_encoder_names_the_stage(spec, window, tmp_path, traffic):
    closed = Factory(factory="tests.components.distill.test_stages:Closed")
    stages = (msgspec.structs.replace(GENERAL, encoder=closed),)
    with pytest.raises(ConfigError, match="shows no inner states") as refused:
        run(learning(spec, stages=stages), window, tmp_path.as_uri(), traffic)
    assert refused.value.field == "student.stages[0].objective"


class Closed(Letters):
    states = None


def test_a_card_without_a_stage_is_as_it_was():
    given = StudentCard.__struct_defaults__
    without = dict(zip(StudentCard.__struct_fields__[-len(given) :], given, strict=True))
    assert [without[name] for name in ("recipe", "unlabelled", "privacy", "labels", "learnt", "novelty")] == [
        "", "", None, 0, 0, (),
    ]  # fmt: skip


def test_a_stage_may_learn_from_a_model_that_is_not_the_teacher(letter_spec, letters, freeze_rows, tmp_path, traffic):
    closed = Factory(factory="tests.components.distill.test_stages:Closed")
    other = msgspec.structs.replace(GENERAL, encoder=Factory(factory="tests.components.distill.teachers:Letters"))
    spec = learning(msgspec.structs.replace(letter_spec, teacher=closed), stages=(other,))
    window = freeze_rows(spec, letters("ab", 30), tmp_path.as_uri(), 1)
    assert run(spec, window, tmp_path.as_uri(), traffic).metrics["stage_loss_general"] < 0.2


class Nameless:
    asked = 0

    def states(self, payloads, names):
        type(self).asked += len(payloads)
        return Letters().states(payloads, names)


NAMELESS = Factory(factory="tests.components.distill.test_stages:Nameless")


def test_an_encoder_needs_states_alone_and_is_asked_anew_where_its_code_may_be_another(spec, tmp_path):
    for version in ("a", "a", "b"):
        versioned = msgspec.structs.replace(spec, source=f"workload:{spec.name}@{version * 64}")
        teacher_states(versioned, [b"ab"], ["shares"], TEACHER, tmp_path.as_uri(), NAMELESS)
    assert Nameless.asked == 2


class Loose(Letters):
    def states(self, payloads, names):
        return super().states(payloads, names).arrays


def test_states_that_are_none_are_the_encoder_s_fault(spec, tmp_path):
    loose = Factory(factory="tests.components.distill.test_stages:Loose")
    with pytest.raises(TeacherError, match=r"gave a dict as states: components\.teachers\.contract\.States"):
        teacher_states(spec, [b"ab"], ["shares"], TEACHER, tmp_path.as_uri(), loose)


def cohort_of(spec, weight):
    wide = Variant(name="wide", dim=16, hidden=32, recipe="cold")
    return learning(spec, variants=(TINY, wide), recipes={"cold": (Kl(temperature=1.0),)}, cohort=Cohort(weight=weight))


def test_a_cohort_s_variants_learn_from_each_other(spec, window, artifacts):
    """Both steps of a bootstrap train the same members, so that each of them ends as it does in the other's run."""
    alone, beside = run(spec, window, artifacts), run(cohort_of(spec, 1.0), window, artifacts)
    unmoved = run(cohort_of(spec, 1e-30), window, artifacts)
    assert beside.metrics["loss_mutual"] > 0 and "loss_mutual" not in alone.metrics
    assert weights_of(unmoved) == weights_of(alone) != weights_of(beside)


def test_a_member_may_learn_from_inside_the_teacher_by_its_recipe(spec, window, artifacts):
    inside = {"cold": (Kl(), Rkd(student="hidden", teacher="shares"))}
    done = run(learning(cohort_of(spec, 1.0), recipes=inside), window, artifacts)
    assert done.metrics["loss_mutual"] > 0 and "loss_rkd" not in done.metrics


def test_a_refusal_of_a_member_s_state_names_its_own_recipe(spec, window, artifacts):
    made = cohort_of(spec, 1.0)
    made = learning(made, recipes={"cold": (Kl(), Rkd(student="gone", teacher="shares"))})
    with pytest.raises(Exception, match=r"student\.recipes\.cold\[1\]\.student.*'gone'"):
        run(made, window, artifacts)


def weights_of(done):
    return get_bytes(done.weights_uri)


def test_a_warm_start_has_no_cohort(spec, window, artifacts):
    first = run(cohort_of(spec, 1.0), window, artifacts)
    parent = ModelRef(version="1", uri=first.uri, digest=first.digest, snapshot=window.digest, teacher=TEACHER)
    assert "loss_mutual" not in run(cohort_of(spec, 1.0), window, artifacts, parent=parent).metrics


def test_members_agree_more_the_more_they_learn_from_each_other(spec, window, artifacts, letters):
    payloads = [p for p, _, _ in letters("ab", 60, seed=9)]
    gaps = []
    for weight in (1e-30, 5.0):
        members = cohort_of(spec, weight)
        said = [
            Student.load(
                get_bytes(distill(members, [window], variant=v, parent=None, artifacts=artifacts, seed=0).float_uri)
            )
            for v in members.student.variants
        ]
        gaps.append(parity(said[0].predict(payloads), said[1].predict(payloads)).variation)
    assert gaps[1] < gaps[0]
