"""Students of vectors: every text network learns them, exports them, goes on from them, and begins anew if it must."""

import logging
import math
import random

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load as weights_of

from components.contracts.records import SoftLabel
from components.contracts.spec import Export, Factory, Limits, Pruning, Spec, Variant
from components.contracts.spec.objective import Cosine, Distance, Rkd, Spkd
from components.contracts.storage import get_bytes
from components.contracts.vectors import distance
from components.control.intent import ModelRef
from components.control.store import ControlStore
from components.distill.data import arrays, window_rows
from components.distill.networks.contract import load, network
from components.distill.search import score
from components.distill.train import distill
from components.evaluate.evaluate import evaluate
from components.student.card import export_uri
from components.student.runtime import Student
from tests.components.distill.networks.examples import EXAMPLES, WORDS

NUMBERS = 6


def direction(name, numbers=NUMBERS):
    chance = random.Random(name)
    return np.array([chance.gauss(0.0, 1.0) for _ in range(numbers)])


def taught(payload, numbers=NUMBERS):
    """The direction of a text's class, with a little of each word that tells it."""
    words = payload.decode().split()
    vector = sum(
        direction(c, numbers) + 0.4 * direction(w, numbers) for c in "abc" for w in words if w in WORDS[c]
    )  # fmt: skip
    return SoftLabel(task="embedding", space="v@1", vector=tuple((3.0 * vector).tolist()), scale=0.1)


def rows(make, classes, n, seed, numbers=NUMBERS):
    chance = random.Random(seed)
    payloads = [make(chance.choice(classes), chance) for _ in range(n)]
    return [(p, taught(p, numbers), None) for p in payloads]


def workload(example, home, **student):
    if example.files:
        example.files(str(home))
    return Spec(
        name="vectors", task="embedding", teacher=Factory(factory="t:T"), features=example.features,
        payload=example.payload, student=msgspec.structs.replace(example.student, epochs=12, **student),
        limits=Limits(min_rows=20, max_parity_gap=0.05, neighbours=3, searched=12), source=str(home / "spec.yaml"),
    )  # fmt: skip


def mean_distance(student, window):
    held = window_rows(window, "holdout", "embedding", "t@1")
    said = student.predict(held.payloads)
    return float(np.mean([distance(a.vector, s.vector) for a, s in zip(said, held.soft, strict=True)]))


def ref(done, window):
    return ModelRef(version="1", uri=done.uri, digest=done.digest, snapshot=window.digest, teacher="t@1")


@pytest.mark.parametrize("name", ["bag", "text convolution", "transformer"])
def test_a_text_network_learns_vectors_and_an_update_goes_on_from_them(name, tmp_path, freeze_rows):
    spec, artifacts = workload(EXAMPLES[name], tmp_path), f"file://{tmp_path}/artifacts"
    make, variant = EXAMPLES[name].make, spec.student.variants[0]
    windows = [freeze_rows(spec, rows(make, "ab", 200, 1), artifacts, 1)]
    first = distill(spec, windows, variant=variant, parent=None, artifacts=artifacts, seed=0)
    student = Student.load(get_bytes(first.uri), source=spec.source)
    assert student.card.dimension == NUMBERS and first.card.outputs == NUMBERS + 1
    assert mean_distance(student, windows[0]) < 0.1
    assert first.metrics["loss_cosine"] < 0.1 and first.metrics["loss_distance"] < 0.0  # nats, of distances far below 1

    windows.append(freeze_rows(spec, rows(make, "c", 150, 2), artifacts, 2))
    stale = mean_distance(student, windows[1])
    second = distill(spec, windows, variant=variant, parent=ref(first, windows[0]), artifacts=artifacts, seed=0)
    newer = Student.load(get_bytes(second.uri), source=spec.source)
    assert second.card.parent == "1"
    assert mean_distance(newer, windows[1]) < min(0.2, 0.5 * stale) and mean_distance(newer, windows[0]) < 0.2


@pytest.fixture(scope="module")
def bag(tmp_path_factory, freeze_rows):
    """A workload of the bag with one window, and the student of it, whose exports are pruned too."""
    home = tmp_path_factory.mktemp("bag")
    pruned = Export(also=("pruned",), pruning=Pruning(share=0.3, epochs=4))
    spec, artifacts = workload(EXAMPLES["bag"], home, export=pruned), f"file://{home}/artifacts"
    window = freeze_rows(spec, rows(EXAMPLES["bag"].make, "abc", 240, 1), artifacts, 1)
    done = distill(spec, [window], variant=spec.student.variants[0], parent=None, artifacts=artifacts, seed=0)
    return spec, artifacts, window, done


def test_all_exports_answer_as_the_network_and_the_scale_is_calibrated(bag):
    spec, _, window, done = bag
    held = window_rows(window, "holdout", "embedding", "t@1")
    full = Student.load(get_bytes(done.float_uri), source=spec.source).predict(held.payloads)
    served = Student.load(get_bytes(done.uri), source=spec.source)
    cut = Student.load(get_bytes(export_uri(done.uri.rsplit("/", 1)[0], "pruned")), source=spec.source)
    assert served.card.precision == "int8" and done.parity_gap == 0.0
    for other, most in ((served, 0.01), (cut, 0.2)):
        assert (
            np.mean([distance(a.vector, b.vector) for a, b in zip(full, other.predict(held.payloads), strict=True)])
            < most
        )
    came = [distance(a.vector, s.vector) for a, s in zip(full, held.soft, strict=True)]
    assert np.mean(came) == pytest.approx(np.mean([a.scale for a in full]), rel=0.6)
    assert served.tells_novelty and all(r.novelty is not None for r in served.reply(held.payloads[:3]))


def test_a_network_of_another_shape_first_learns_the_parent_s_vectors(bag):
    spec, artifacts, window, done = bag
    wider = msgspec.structs.replace(
        spec, student=msgspec.structs.replace(spec.student, variants=(Variant(name="small", options={"hidden": 24}),),
                                              export=Export()),
    )  # fmt: skip
    made = distill(
        wider, [window], variant=wider.student.variants[0], parent=ref(done, window), artifacts=artifacts, seed=0
    )
    assert made.metrics["taught_rows"] > 0 and made.card.parent == "1"
    assert mean_distance(Student.load(get_bytes(made.uri), source=spec.source), window) < 0.1


def test_vectors_of_another_length_are_no_start(bag, freeze_rows, caplog):
    spec, artifacts, window, done = bag
    longer = freeze_rows(spec, rows(EXAMPLES["bag"].make, "ab", 120, 5, numbers=9), artifacts, 2, teacher="other@1")
    plain = msgspec.structs.replace(spec, student=msgspec.structs.replace(spec.student, export=Export(), epochs=2))
    with caplog.at_level(logging.WARNING):
        made = distill(plain, [window, longer], variant=plain.student.variants[0], parent=ref(done, window),
                       artifacts=artifacts, seed=0)  # fmt: skip
    assert made.card.dimension == 9 and made.card.parent is None
    assert "gives vectors of 6 numbers, not 9: starting afresh" in caplog.text


@pytest.mark.parametrize(
    "term", [Rkd(student="vector", teacher="vector", angles=0.5), Spkd(student="vector", teacher="vector")]
)
def test_relations_among_the_answers_of_a_batch_can_be_learnt_beside(bag, term):
    spec, artifacts, window, _ = bag
    student = msgspec.structs.replace(
        spec.student, objective=(Cosine(), Distance(weight=0.1), term), export=Export(), epochs=3
    )
    related = msgspec.structs.replace(spec, student=student)
    made = distill(related, [window], variant=student.variants[0], parent=None, artifacts=artifacts, seed=0)
    assert made.metrics[f"loss_{term.name}"] > 0.0 and made.terms[-1][term.name] < made.terms[0][term.name]


def test_a_recipe_is_chosen_by_the_mean_cosine(bag):
    spec, _, window, done = bag
    held = window_rows(window, "holdout", "embedding", "t@1")
    net = load(network(done.card, spec.source), weights_of(get_bytes(done.weights_uri))).eval()
    found = score(net, arrays(spec, held, ()), "embedding")
    full = Student.load(get_bytes(done.float_uri), source=spec.source)
    assert found == pytest.approx(1.0 - mean_distance(full, window), abs=1e-4)
    assert math.isfinite(found)


def test_the_gate_measures_what_it_was_made_from(bag, tmp_path, store: ControlStore):
    spec, _, window, done = bag
    judged = evaluate(spec, done.uri, done.digest, done.float_uri, windows=[window], champion=None, store=store)
    found = judged.measurements
    assert found["cosine"] > 0.9 and found["recall"] > 0.3 and found["rank_correlation"] > 0.5
    assert found["cosine_lower"] < found["cosine"] and found["truth_rows"] == 0.0 and found["recall_loss"] is None
    assert judged.confusion == {"labels": [], "matrix": []} and not judged.slices
