"""Every network that ships learns sets of classes: chances by sigmoid, a head that grows, exports that answer alike."""

import random

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import load as weights_of

from components.contracts.records import SoftLabel, set_text
from components.contracts.spec import Export, Factory, Limits, Pruning, Spec
from components.contracts.storage import get_bytes
from components.control.intent import ModelRef
from components.distill.data import encoded, window_rows
from components.distill.grow import grow_head
from components.distill.networks.contract import head_of, load, logits, network, tensors
from components.distill.train import distill
from components.student.card import export_uri
from components.student.runtime import Student
from tests.components.distill.networks.examples import EXAMPLES

SETS = {"a": {"x"}, "b": {"x", "y"}, "c": {"y", "z"}}
"""What an input of each kind has; some inputs have nothing of it, by chance."""

WRONG = 0.1


def rows(make, kinds, n, seed):
    chance = random.Random(seed)
    drawn = [k for k in kinds for _ in range(n)]
    chance.shuffle(drawn)
    made = []
    for kind in drawn:
        has = SETS[kind] if chance.random() > WRONG else set()
        soft = SoftLabel.multilabel("sets@1", "xyz", [0.93 if c in has else 0.04 for c in "xyz"])
        made.append((make(kind, chance), soft, set_text(has)))
    return made


@pytest.fixture(params=list(EXAMPLES))
def lineage(request, made, tmp_path_factory, freeze_rows):
    if request.param not in made:
        made[request.param] = bred(EXAMPLES[request.param], tmp_path_factory.mktemp("sets"), freeze_rows)
    return made[request.param]


@pytest.fixture(scope="module")
def made():
    return {}


def bred(example, home, freeze_rows):
    if example.files:
        example.files(str(home))
    export = Export(also=("pruned",), pruning=Pruning(share=0.4, epochs=2))
    spec = Spec(
        name="sets", task="multilabel", teacher=Factory(factory="t:T"), features=example.features,
        payload=example.payload, student=msgspec.structs.replace(example.student, export=export),
        limits=Limits(max_parity_gap=0.05), source=str(home / "spec.yaml"),
    )  # fmt: skip
    artifacts, variant = f"file://{home}/artifacts", spec.student.variants[0]
    windows = [
        freeze_rows(spec, rows(example.make, "ab", 110, 1), artifacts, 1),
        freeze_rows(spec, rows(example.make, "abc", 80, 2), artifacts, 2),
    ]
    plain = msgspec.structs.replace(spec, student=example.student)
    first = distill(plain, windows[:1], variant=variant, parent=None, artifacts=artifacts, seed=0)
    parent = ModelRef(version="1", uri=first.uri, digest=first.digest, snapshot=windows[0].digest, teacher="t@1")
    second = distill(spec, windows, variant=variant, parent=parent, artifacts=artifacts, seed=0)
    return spec, windows, first, second


def held(spec, window):
    found = window_rows(window, "holdout", spec.task, "t@1")
    return found.payloads, found.truth


def student(spec, uri):
    return Student.load(get_bytes(uri), source=spec.source)


def right(spec, uri, window):
    payloads, truth = held(spec, window)
    return np.mean([a.label == t for a, t in zip(student(spec, uri).predict(payloads), truth, strict=True)])


def test_it_learns_sets_and_an_update_learns_a_new_class(lineage):
    spec, windows, first, second = lineage
    assert first.card.classes == ("x", "y") and second.card.classes == ("x", "y", "z")
    assert right(spec, first.uri, windows[0]) > 0.7 and right(spec, second.uri, windows[1]) > 0.65
    said = {a.label for a in student(spec, second.uri).predict(held(spec, windows[1])[0])}
    assert said >= {set_text(has) for has in SETS.values()}


def test_a_grown_head_answers_as_before_for_the_old_classes(lineage):
    spec, windows, first, second = lineage
    state = weights_of(get_bytes(first.weights_uri))
    old = load(network(first.card, spec.source), state).eval()
    grown = grow_head(state, head_of(old, 2), first.card.classes, second.card.classes, 0)
    new = load(network(second.card, spec.source), grown).eval()
    features = tensors(encoded(spec, held(spec, windows[0])[0][:5]))
    with torch.no_grad():
        assert torch.equal(logits(new(**features))[:, :2], logits(old(**features)))


def test_the_float_export_has_the_sigmoid_of_the_calibrated_logits_and_the_others_answer_like_it(lineage):
    spec, windows, _, done = lineage
    payloads = held(spec, windows[1])[0]
    net = load(network(done.card, spec.source), weights_of(get_bytes(done.weights_uri))).eval()
    with torch.no_grad():
        said = logits(net(**tensors(encoded(spec, payloads))))
    expected = torch.sigmoid(said / done.metrics["temperature"]).numpy()
    found = [[s.distribution.get(c, 0.0) for c in "xyz"] for s in student(spec, done.float_uri).predict(payloads)]
    assert done.metrics["temperature"] != 1.0 and np.abs(np.array(found) - expected).max() < 1e-4
    assert done.metrics["int8_parity_gap"] <= 0.05 and done.metrics["int8_largest_difference"] < 0.15
    assert done.metrics["pruned_parity_gap"] <= 0.3
    pruned = student(spec, export_uri(done.uri.rsplit("/", 1)[0], "pruned"))
    assert pruned.tells_novelty and pruned.predict(payloads)[0].task == "multilabel"
