"""A student that tags: learnt, grown, exported, quantised, calibrated and asked, as every network is."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import load as weights_of

from components.contracts.errors import ArtifactError, ConfigError
from components.contracts.records import spans_text
from components.contracts.spec import Factory, Limits, Payload, Spec, Student, Variant
from components.contracts.storage import get_bytes
from components.control.intent import ModelRef
from components.distill.data import NO_TRUTH, arrays, encoded, window_rows
from components.distill.export import body
from components.distill.grow import grow_head
from components.distill.networks.contract import head_of, load, logits, made, network, tensors
from components.distill.networks.tagger import Tagger
from components.distill.tagging import token_accuracy, token_rows
from components.distill.temperature import HIGHEST, LOWEST, fit_tokens
from components.distill.train import distill
from components.student.features import made_up
from components.student.parity import parity
from components.student.runtime import Student as Loaded
from components.student.tagging import TaggedWords
from tests.spans import rows

FEATURES = Factory(factory="components.student.tagging:TaggedWords", options={"buckets": 2048})
TAGGER = Factory(factory="components.distill.networks.tagger:Tagger", options={"dim": 32, "layers": 2})
SPEC = Spec(
    name="names", task="tagging", teacher=Factory(factory="t:T"), features=FEATURES, payload=Payload(decoder="text"),
    student=Student(
        network=TAGGER, variants=(Variant(name="small"),), epochs=12, batch_size=16, learning_rate=0.01,
        near_duplicate=None,
    ),
    limits=Limits(min_rows=10, max_parity_gap=0.05),
)  # fmt: skip
INPUTS = TaggedWords(buckets=512).signature


@pytest.fixture(scope="module")
def lineage(tmp_path_factory, freeze_rows):
    """A student of letters, and the one that went on from it with notes of deliveries; and their windows."""
    artifacts = f"file://{tmp_path_factory.mktemp('artifacts')}"
    windows = [
        freeze_rows(SPEC, rows("mail", 160), artifacts, 1),
        freeze_rows(SPEC, rows("parcel", 160, truth=False), artifacts, 2),
    ]
    variant = SPEC.student.variants[0]
    first = distill(SPEC, windows[:1], variant=variant, parent=None, artifacts=artifacts, seed=0)
    parent = ModelRef(version="1", uri=first.uri, digest=first.digest, snapshot=windows[0].digest, teacher="t@1")
    second = distill(SPEC, windows, variant=variant, parent=parent, artifacts=artifacts, seed=0)
    return first, second, windows


def right(done, regime):
    test = rows(regime, 60, seed=9)
    said = Loaded.load(get_bytes(done.uri, done.digest)).predict([p for p, _, _ in test])
    return sum(s.label == t for s, (_, _, t) in zip(said, test, strict=True)) / len(test)


def test_it_learns_and_an_update_learns_a_new_kind_and_keeps_the_old_ones(lineage):
    first, second, _ = lineage
    assert first.card.classes == ("B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER", "O")
    assert second.card.classes == (*first.card.classes, "B-NUM", "I-NUM") and second.card.parent == "1"
    assert right(first, "mail") > 0.7 and right(first, "parcel") < 0.4
    assert right(second, "mail") > 0.7 and right(second, "parcel") > 0.7
    assert first.history[-1] < first.history[0] and {*first.terms[-1]} == {"token-kl", "truth"}
    assert first.metrics["calibration_rows"] >= 30 and LOWEST < first.metrics["temperature"] < HIGHEST


def test_a_grown_head_answers_as_before_for_the_old_tags(lineage):
    first, second, _ = lineage
    old = load(network(first.card), weights_of(get_bytes(first.weights_uri))).eval()
    state = weights_of(get_bytes(first.weights_uri))
    grown = grow_head(state, head_of(old, 7), first.card.classes, second.card.classes, 0)
    new = load(network(second.card), grown).eval()
    features = tensors(encoded(SPEC, [p for p, _, _ in rows("mail", 5)]))
    with torch.no_grad():
        assert torch.allclose(logits(new(**features))[..., :7], logits(old(**features)), atol=1e-6)


def test_the_float_export_answers_as_the_network_does_and_is_calibrated(lineage):
    done, payloads = lineage[1], [p for p, _, _ in rows("parcel", 8)]
    with torch.no_grad():
        net = load(network(done.card), weights_of(get_bytes(done.weights_uri))).eval()
        said = torch.softmax(logits(net(**tensors(encoded(SPEC, payloads)))) / done.metrics["temperature"], dim=2)
    for soft, row in zip(Loaded.load(get_bytes(done.float_uri)).predict(payloads), said.numpy(), strict=True):
        found = [[t.distribution.get(c, 0.0) for c in done.card.classes] for t in soft.tokens]
        assert np.abs(np.array(found) - row[: len(found)]).max() < 1e-4


def test_answers_say_where_the_tokens_of_their_text_stand(lineage):
    text = "Ada Lovelace  of Globex will be in\tBerlin on Monday. ref 1"
    (soft,) = Loaded.load(get_bytes(lineage[0].uri)).predict([text.encode()])
    assert [(t.start, t.end) for t in soft.tokens] == TaggedWords().tokens(text) and soft.space == "names@1"
    assert [(text[s.start : s.end], s.label) for s in soft.spans] == [
        ("Ada Lovelace", "PER"), ("Globex", "ORG"), ("Berlin", "LOC"),
    ]  # fmt: skip
    assert soft.label == spans_text(soft.spans)


def test_padding_and_order_in_a_batch_change_nothing(lineage):
    asked = Loaded.load(get_bytes(lineage[1].float_uri))
    payloads = [*(p for p, _, _ in rows("mail", 6)), b"x", b" \n", b"a much longer text " * 20]
    together = asked.predict(payloads)
    assert together[7].tokens == () and (together[7].label, together[7].confidence) == ("[]", 1.0)
    for one, soft in zip(payloads, together, strict=True):
        (alone,) = asked.predict([one])
        found = parity([soft], [alone])
        assert found.gap == 0.0 and found.largest < 1e-5
    assert [s.label for s in asked.predict(payloads[::-1])] == [s.label for s in together][::-1]


def test_the_int8_export_is_judged_as_it_is_served(lineage):
    done = lineage[1]
    assert done.card.precision == "int8" and done.metrics["int8_parity_gap"] <= 0.05
    assert 0.0 < done.metrics["int8_largest_difference"] < 0.2
    assert done.metrics["int8_bytes"] < 0.6 * done.metrics["float_bytes"]


def test_it_tells_novelty_by_the_mean_of_a_text_s_words(lineage):
    student = Loaded.load(get_bytes(lineage[0].uri))
    known = [r.novelty for r in student.reply([p for p, _, _ in rows("mail", 60, seed=9)])]
    strange = [r.novelty for r in student.reply([p for p, _, _ in rows("parcel", 60, seed=9)])]
    assert np.median(strange) < 0.2 < np.median(known)


def test_features_alone_are_numbered_characters(lineage):
    student = Loaded.load(get_bytes(lineage[0].uri))
    (soft,) = student.exercise(made_up(student.card.inputs, 1, 3))
    assert [(t.start, t.end) for t in soft.tokens] == [(0, 1), (1, 2), (2, 3)]


def test_the_same_training_gives_the_same_bytes(lineage, tmp_path):
    variant = SPEC.student.variants[0]
    again = distill(SPEC, lineage[2][:1], variant=variant, parent=None, artifacts=f"file://{tmp_path}", seed=0)
    assert again.digest == lineage[0].digest


def test_another_network_s_answers_are_learnt_first(lineage, tmp_path):
    """A student of another width learns what the parent answers, by its tokens."""
    first, _, windows = lineage
    wide = msgspec.structs.replace(SPEC.student, network=Factory(factory=TAGGER.factory, options={"dim": 48}))
    spec = msgspec.structs.replace(SPEC, student=wide)
    parent = ModelRef(version="1", uri=first.uri, digest=first.digest, snapshot=windows[0].digest, teacher="t@1")
    done = distill(spec, windows[:1], variant=wide.variants[0], parent=parent, artifacts=f"file://{tmp_path}", seed=0)
    assert done.metrics["taught_rows"] > 100 and right(done, "mail") > 0.65


def test_targets_are_those_of_the_teacher_and_the_truth_by_token(lineage):
    windows, tags = lineage[2], lineage[1].card.classes
    some = window_rows(windows[0], "train", "tagging", "t@1").take(range(20))
    data = arrays(SPEC, some, tags)
    assert data.soft.shape == (*data.features["ids"].shape[:2], len(tags)) and data.truth.shape == data.soft.shape[:2]
    there = data.features["ids"].any(axis=2)
    assert np.array_equal(data.soft.sum(axis=2) > 0, there) and np.allclose(data.soft.sum(axis=2)[there], 1.0)
    assert np.array_equal(data.truth != NO_TRUTH, there)
    assert np.array_equal(data.soft.argmax(axis=2)[there], data.truth[there])
    without = arrays(SPEC, some, ("B-PER", "O"))  # a head that does not have the others
    assert np.allclose(without.soft.sum(axis=2)[there], 1.0)
    lost = data.truth == tags.index("B-ORG")
    assert lost.any() and (without.truth[lost] == NO_TRUTH).all()


def test_a_temperature_is_fitted_by_token_and_on_truth_where_there_is_enough_of_it(lineage):
    data = arrays(SPEC, window_rows(lineage[2][0], "train", "tagging", "t@1"), lineage[1].card.classes)
    sure = np.log(data.soft.clip(1e-6))
    by_truth = fit_tokens(sure, data)
    assert by_truth < 0.8  # what the teacher is nine tenths sure of is always true
    untold = np.full_like(data.truth, NO_TRUTH)
    by_teacher = fit_tokens(3.0 * sure, replace(data, truth=untold))
    assert by_teacher == pytest.approx(3.0, rel=0.02)
    assert token_rows(sure[:5], data.soft[:5], data.truth[:5], 30) is None
    assert token_accuracy(sure, data.soft, data.truth) == 1.0
    assert token_accuracy(-sure, data.soft, untold) < 0.5


@pytest.mark.parametrize(
    ("options", "field"), [({"width": 2}, "width"), ({"layers": 0}, "layers"), ({"task": "classification"}, "task")]
)
def test_options_that_it_cannot_have_are_refused(options, field):
    with pytest.raises(ConfigError, match=field):
        Tagger(**{"task": "tagging", "inputs": INPUTS, "outputs": 3, **options})


class OfTexts(torch.nn.Module):
    def __init__(self, task, inputs, outputs):
        super().__init__()
        self.head = torch.nn.Linear(1, outputs)

    def forward(self, ids):
        return self.head(ids.float().mean(dim=(1, 2)).unsqueeze(1))


def test_a_network_that_answers_texts_and_not_tokens_is_refused():
    of_texts = Factory(factory=f"{__name__}:OfTexts")
    with pytest.raises(ConfigError, match=r"3 numbers a token, shape \(3, 5, 3\) of 3 inputs of 5 tokens"):
        made(of_texts, "tagging", INPUTS, 3)
    assert made(of_texts, "classification", INPUTS, 3) is not None


def test_its_export_is_proved_at_other_lengths_and_has_no_loop():
    torch.manual_seed(0)
    found = body(Tagger(task="tagging", inputs=INPUTS, outputs=3), INPUTS)
    kinds = {node.op_type for node in found.model.graph.node}
    assert found.state == "novelty_state" and "Conv" in kinds and not kinds & {"Loop", "SequenceEmpty", "If"}


def test_a_student_whose_featuriser_tells_no_places_is_no_artifact(lineage):
    """As with an artifact whose card was changed."""
    import onnx

    from components.student.card import CARD_KEY

    model = onnx.load_from_string(get_bytes(lineage[0].uri))
    (entry,) = [p for p in model.metadata_props if p.key == CARD_KEY]
    entry.value = entry.value.replace('"classes":["B-LOC",', '"classes":["B-LOC","B-X",')
    with pytest.raises(ArtifactError, match="gives 7 probabilities for the card's 8 classes"):
        Loaded.load(model.SerializeToString())
