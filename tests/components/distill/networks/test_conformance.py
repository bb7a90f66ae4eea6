"""What every network that ships does alike: it is learnt, grown, exported, quantised, pruned, calibrated and tried."""

import random
import site
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import load as weights_of
from safetensors.numpy import save

from components.contracts.records import SoftLabel
from components.contracts.spec import Export, Factory, Limits, Pruning, Spec
from components.contracts.storage import get_bytes, local_path
from components.control.intent import ModelRef
from components.distill import artifact
from components.distill.artifact import Distilled
from components.distill.data import arrays, encoded, update_rows, window_rows
from components.distill.export import Body, body, to_onnx
from components.distill.fit import fit
from components.distill.grow import grow_head
from components.distill.networks.contract import head_of, load, logits, made, network, state_of, tensors
from components.distill.novelty import nearness, states
from components.distill.start import read_start
from components.distill.temperature import HIGHEST, LEAST_ROWS, LOWEST
from components.distill.train import distill
from components.distill.work import Work
from components.student.card import export_uri
from components.student.features import featuriser, files_of, made_up
from components.student.runtime import Student
from serving.replica.admission import BATCHES, LENGTHS
from tests.components.distill.networks.examples import EXAMPLES

EXPORT = Export(also=("pruned",), pruning=Pruning(share=0.4, epochs=2))

ROOT = Path(__file__).parents[4]


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """A student of two classes, and the one that went on from it with a third.

    ``graph``: what that one's exports were made of.
    """

    spec: Spec
    windows: list[Any]
    first: Distilled
    second: Distilled
    graph: Body
    artifacts: str

    def payloads(self, window: int) -> tuple[list[bytes], list[Any]]:
        rows = window_rows(self.windows[window], "holdout", "classification", "t@1")
        return rows.payloads, rows.truth


WRONG = 0.15
"""Share of inputs whose label is drawn by chance: of answers that are all sure, no difference would be seen."""


def rows(make, classes, n, seed):
    chance = random.Random(seed)
    kinds = [c for c in classes for _ in range(n)]
    chance.shuffle(kinds)
    told = {c: SoftLabel.of("letters@1", "abc", [0.9 if x == c else 0.05 for x in "abc"]) for c in "abc"}
    labels = [chance.choice(classes) if chance.random() < WRONG else c for c in kinds]
    return [(make(c, chance), told[label], label) for c, label in zip(kinds, labels, strict=True)]


@pytest.fixture(scope="module")
def lineages():
    """Those that were made: in random order a fixture with parameters would make them again and again."""
    return {}


@pytest.fixture(params=list(EXAMPLES))
def lineage(request, lineages, tmp_path_factory, freeze_rows):
    if request.param not in lineages:
        lineages[request.param] = bred(EXAMPLES[request.param], tmp_path_factory.mktemp("lineage"), freeze_rows)
    return lineages[request.param]


def bred(example, home, freeze_rows):
    if example.files:
        example.files(str(home))
    spec = Spec(
        name="conformance", teacher=Factory(factory="t:T"), features=example.features, payload=example.payload,
        student=msgspec.structs.replace(example.student, export=EXPORT), limits=Limits(max_parity_gap=0.05),
        source=str(home / "spec.yaml"),
    )  # fmt: skip
    artifacts = f"file://{home}/artifacts"
    windows = [
        freeze_rows(spec, rows(example.make, "ab", 110, 1), artifacts, 1),
        freeze_rows(spec, rows(example.make, "abc", 80, 2), artifacts, 2),
    ]
    variant = spec.student.variants[0]
    plain = msgspec.structs.replace(spec, student=example.student)
    first = distill(plain, windows[:1], variant=variant, parent=None, artifacts=artifacts, seed=0)
    parent = ModelRef(version="1", uri=first.uri, digest=first.digest, snapshot=windows[0].digest, teacher="t@1")
    graphs = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifact, "body", lambda *given: graphs.append(body(*given)) or graphs[-1])
        second = distill(spec, windows, variant=variant, parent=parent, artifacts=artifacts, seed=0)
    return Lineage(spec=spec, windows=windows, first=first, second=second, graph=graphs[0], artifacts=artifacts)


def student(lineage, uri):
    return Student.load(get_bytes(uri), source=lineage.spec.source)


def trained(lineage, done):
    """The network with its weights, as training goes on from it."""
    return load(network(done.card, lineage.spec.source), weights_of(get_bytes(done.weights_uri))).eval()


def right(lineage, uri, window):
    payloads, truth = lineage.payloads(window)
    said = student(lineage, uri).predict(payloads)
    return sum(a.label == t for a, t in zip(said, truth, strict=True)) / len(payloads)


def test_it_learns_and_an_update_learns_a_new_class_and_keeps_the_old_ones(lineage):
    assert lineage.first.card.classes == ("a", "b") and right(lineage, lineage.first.uri, 0) > 0.75
    assert lineage.second.card.classes == ("a", "b", "c") and lineage.second.card.parent == "1"
    assert right(lineage, lineage.second.uri, 1) > 0.7 and right(lineage, lineage.second.uri, 0) > 0.75


def test_a_grown_head_answers_as_before_for_the_old_classes(lineage):
    first, second = lineage.first, lineage.second
    old = trained(lineage, first)
    state = weights_of(get_bytes(first.weights_uri))
    grown = grow_head(state, head_of(old, 2), first.card.classes, second.card.classes, 0)
    new = load(network(second.card, lineage.spec.source), grown).eval()
    features = tensors(encoded(lineage.spec, lineage.payloads(0)[0][:5]))
    with torch.no_grad():
        assert torch.equal(logits(new(**features))[:, :2], logits(old(**features)))


def test_the_float_export_answers_as_the_network_does_and_is_calibrated(lineage):
    payloads, done = lineage.payloads(1)[0], lineage.second
    temperature = done.metrics["temperature"]
    assert LOWEST < temperature < HIGHEST and temperature != 1.0 and done.metrics["calibration_rows"] >= LEAST_ROWS
    with torch.no_grad():
        said = logits(trained(lineage, done)(**tensors(encoded(lineage.spec, payloads))))
    expected = torch.softmax(said / temperature, dim=1).numpy()
    found = [[s.distribution.get(c, 0.0) for c in "abc"] for s in student(lineage, done.float_uri).predict(payloads)]
    assert np.abs(np.array(found) - expected).max() < 1e-4


def test_padding_and_order_in_a_batch_change_nothing(lineage):
    payloads = lineage.payloads(1)[0][:12]
    asked = student(lineage, lineage.second.float_uri)
    together = asked.predict(payloads)
    for one, soft in zip(payloads, together, strict=True):
        assert asked.predict([one])[0].distribution == pytest.approx(soft.distribution, abs=1e-5)
    assert [s.label for s in asked.predict(payloads[::-1])] == [s.label for s in together][::-1]


def test_the_int8_export_is_judged_as_it_is_served(lineage):
    metrics = lineage.second.metrics
    assert metrics["int8_parity_gap"] <= 0.05 and metrics["int8_largest_difference"] < 0.1
    assert lineage.second.card.precision == "int8"


def test_it_can_be_pruned_and_learns_to_answer_as_before(lineage):
    metrics = lineage.second.metrics
    assert metrics["pruned_bytes"] < 0.95 * metrics["float_bytes"] and metrics["pruned_parity_gap"] <= 0.2
    folder = lineage.second.uri.rsplit("/", 1)[0]
    assert right(lineage, export_uri(folder, "pruned"), 1) > 0.65


def test_the_same_training_and_export_give_the_same_bytes(lineage, tmp_path):
    spec, done = lineage.spec, lineage.first
    learnt = update_rows(spec, lineage.windows[:1], 0)
    data = arrays(spec, learnt.new, done.card.classes)
    work = Work(
        spec=spec, card=done.card, data=data, objective=spec.student.objective_of(spec.student.variants[0], spec.task),
        epochs=spec.student.epochs, start=None, checkpoint=f"file://{tmp_path}/c.pt", seed=0,
    )  # fmt: skip
    net = fit(work, "again", f"file://{tmp_path}/ray").net
    assert save({k: np.ascontiguousarray(v) for k, v in state_of(net).items()}) == get_bytes(done.weights_uri)
    made = body(net, done.card.inputs, files_of(featuriser(spec.features, spec.source)))
    card = student(lineage, done.float_uri).card
    known = nearness(made, data, spec.task)
    assert to_onnx(made, card, done.metrics["temperature"], known=known) == get_bytes(done.float_uri)


def test_every_export_tells_novelty_and_finds_what_nothing_was_learnt_of(lineage):
    """Its score is read from what the head is fed (a network that writes its own graph names the state)."""
    spec, done = lineage.spec, lineage.second
    learnt = update_rows(spec, lineage.windows, 0)
    data = arrays(spec, learnt.new + learnt.replay, done.card.classes)
    made = lineage.graph
    assert made.state != "logits"
    known = nearness(made, data, spec.task)
    payloads = lineage.payloads(1)[0][:20]
    scores = student(lineage, done.float_uri).scores(payloads)
    assert scores == pytest.approx(known.distances(states(made, encoded(spec, payloads))).tolist(), rel=1e-3, abs=1e-3)
    assert 0.0 <= done.metrics["int8_novelty_gap"] < 0.2
    for form in ("model", "float", "pruned"):
        served = student(lineage, f"{done.uri.rsplit('/', 1)[0]}/{form}.onnx")
        assert served.tells_novelty and served.card.novelty == tuple(tuple(sorted(g)) for g in served.card.novelty)
        assert all(0.0 < reply.novelty <= 1.0 for reply in served.reply(payloads))
        assert [reply.soft for reply in served.reply(payloads)] == served.predict(payloads)


def test_no_path_of_this_machine_is_in_an_artifact(lineage):
    folder = local_path(lineage.second.uri).parent
    places = [*site.getsitepackages(), sys.prefix, str(ROOT), str(Path.home()), str(folder.parents[2])]
    for file in folder.iterdir():
        assert [p for p in places if len(p) > 5 and p.encode() in file.read_bytes()] == [], file.name


def test_admission_s_made_up_inputs_are_answered(lineage):
    for uri in (lineage.second.uri, lineage.second.float_uri):
        tried = student(lineage, uri)
        for batch in BATCHES:
            for length in LENGTHS:
                assert len(tried.exercise(made_up(tried.card.inputs, batch, length))) == batch


@pytest.mark.parametrize("lineage", ["transformer"], indirect=True)
def test_a_tokenizer_that_has_changed_makes_a_new_student_which_learns_from_the_old_one(lineage, tmp_path):
    done, variant = lineage.first, lineage.spec.student.variants[0]
    parent = ModelRef(version="1", uri=done.uri, digest=done.digest, snapshot="s", teacher="t@1")
    assert read_start(parent, lineage.spec, variant).state is not None
    text = Path(lineage.spec.source).with_name("tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text.replace('"refund"', '"rebate"'))
    other = msgspec.structs.replace(lineage.spec, source=str(tmp_path / "spec.yaml"))
    assert read_start(parent, other, variant).state is None


SERVING = """
import sys
from pathlib import Path
from components.student.runtime import Student
student = Student.load(Path(sys.argv[1]))
print(len(student.predict([Path(sys.argv[2]).read_bytes()])))
print([m for m in ("torch", "transformers", "torch_pruning", "onnxscript", "onnx") if m in sys.modules])
"""


def test_serving_needs_no_torch_and_no_other_file(lineage, tmp_path):
    (tmp_path / "payload").write_bytes(lineage.payloads(0)[0][0])
    command = [sys.executable, "-c", SERVING, str(local_path(lineage.second.uri)), str(tmp_path / "payload")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env={"PATH": ""})
    assert done.stdout.split("\n")[:2] == ["1", "[]"], done.stderr


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_a_regression_has_a_value_and_a_scale(name, tmp_path):
    example = EXAMPLES[name]
    if example.files:
        example.files(str(tmp_path))
    features = featuriser(example.features, str(tmp_path / "spec.yaml"))
    net = made(example.network, "regression", features.signature, 2)
    with torch.no_grad():
        assert logits(net.eval()(**tensors(made_up(features.signature, 4, 6)))).shape == (4, 2)


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_the_seed_decides(name, tmp_path):
    example = EXAMPLES[name]
    if example.files:
        example.files(str(tmp_path))
    features = featuriser(example.features, str(tmp_path / "spec.yaml"))

    def state(seed):
        torch.manual_seed(seed)
        return made(example.network, "classification", features.signature, 3).state_dict()

    one, same, other = state(0), state(0), state(1)
    assert all(torch.equal(one[n], same[n]) for n in one)
    assert any(not torch.equal(one[n], other[n]) for n in one)
