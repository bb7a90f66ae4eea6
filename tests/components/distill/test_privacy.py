"""Learning in private: the account of a lineage, the influence of a row, and what is refused before anything trains."""

import math
import warnings
from dataclasses import replace
from typing import get_args

import msgspec
import numpy as np
import pytest
import torch
from opacus.accountants import PRVAccountant, RDPAccountant
from torch import nn

from components.contracts.errors import ConfigError
from components.contracts.spec import Export, Factory, Privacy, Pruning, Variant, load_spec
from components.contracts.spec import objective as terms
from components.contracts.spec.objective import Hidden, Kl, Pkt
from components.contracts.spec.privacy_check import check_privacy
from components.contracts.spec.student import Cohort, Stage
from components.contracts.storage import get_bytes, put_bytes
from components.control.intent import ModelRef
from components.distill import fit as fitting
from components.distill.account import Plan, account, epsilon_of, plan
from components.distill.admission import admitted
from components.distill.batches import sample_of
from components.distill.checkpoint import Checkpoints, read_checkpoint
from components.distill.data import Rows, TrainingSet, arrays, newest_of_each, update_rows
from components.distill.fit import fit
from components.distill.privacy import Clipped, PrivateSteps, check_modules
from components.distill.train import distill
from components.distill.work import Work, fresh, lesson_of
from components.student.card import Account, StudentCard
from components.student.runtime import Student as Served
from tests.students import bag

TINY = Variant(name="tiny", dim=8, hidden=16)
DELTA = 1e-3
ROWS = {"epochs": 2, "batch_size": 32, "near_duplicate": None}


def private(spec, *, student=None, **privacy):
    """The spec with privacy: its noise is known, and epsilon large enough, unless they are given."""
    given = Privacy(**{"epsilon": 100.0, "delta": DELTA, "noise": 2.0, **privacy})
    values = {**ROWS, "privacy": given, **(student or {})}
    return msgspec.structs.replace(spec, student=msgspec.structs.replace(spec.student, **values))


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return f"file://{tmp_path_factory.mktemp('private')}"


@pytest.fixture(scope="module")
def spec(letter_spec):
    return private(letter_spec)


@pytest.fixture(scope="module")
def windows(spec, letters, freeze_rows, artifacts):
    return [freeze_rows(spec, letters("ab", 60, seed=n), artifacts, n) for n in (1, 2)]


@pytest.fixture(scope="module")
def first(spec, windows, artifacts):
    return run(spec, windows[:1], artifacts)


def run(spec, windows, artifacts, parent=None, **values):
    values = {"secret": 7, "variant": TINY, **values}
    return distill(spec, windows, parent=parent, artifacts=artifacts, seed=0, **values)


def ref(made, window):
    return ModelRef(version="3", uri=made.uri, digest=made.digest, snapshot=window.digest, teacher="t@1")


@pytest.fixture(scope="module")
def work(spec, windows, artifacts):
    """The work of one lesson in private, of about 90 rows."""
    rows = update_rows(spec, windows[:1], 0).new
    card = StudentCard(
        workload="letters", task="classification", space="letters@1", classes=("a", "b"), features=spec.features,
        payload=spec.payload, **bag(1024, 8, 16), variant="tiny", snapshots=(), teacher="t@1",
        parent=None, code="0",
    )  # fmt: skip
    return Work(
        spec=spec, card=card, data=arrays(spec, rows, card.classes), objective=(Kl(),), epochs=4, start=None,
        checkpoint=f"{artifacts}/whole.pt", seed=3, noise=2.0, secret=11,
    )  # fmt: skip


def lesson(work, net=None):
    return lesson_of(work, net or fresh(work), work.data).train()


@pytest.fixture
def untrained(monkeypatch):
    monkeypatch.setattr(fitting, "fit", lambda *_: pytest.fail("it was trained"))


# The account


def by_formula(history, delta):
    """Epsilon by the Rényi divergence of the sampled Gaussian at integer orders (arXiv 1908.10530, section 3.3)."""
    orders = np.arange(2, 257)

    def divergence(order, noise, rate):
        k = np.arange(order + 1)
        logs = [math.lgamma(order + 1) - math.lgamma(i + 1) - math.lgamma(order - i + 1) for i in k]
        logs += (order - k) * np.log1p(-rate) + k * np.log(rate) + (k * k - k) / (2 * noise**2)
        return np.logaddexp.reduce(logs) / (order - 1)

    total = sum(np.array([divergence(a, noise, rate) for a in orders]) * steps for noise, rate, steps in history)
    return (total + np.log1p(-1 / orders) - (np.log(delta) + np.log(orders)) / (orders - 1)).min()


def test_ten_updates_add_up_to_one_composed_run():
    privacy = Privacy(epsilon=10.0, delta=1e-5, noise=4.0)
    found, spent = None, []
    for i in range(10):
        update = plan(privacy, found, rows=1000 + 10 * (i % 2), batch_size=50, epochs=3)
        spent.append((update.noise, update.rate, update.steps))
        found = account(privacy, found, spent[-1:])
        assert found.epsilon == pytest.approx(update.epsilon, rel=1e-12)
    composed = RDPAccountant()
    for noise, rate, steps in spent:
        for _ in range(steps):
            composed.step(noise_multiplier=noise, sample_rate=rate)
    assert sum(steps for _, _, steps in found.history) == 10 * 60
    assert found.epsilon == pytest.approx(composed.get_epsilon(1e-5, alphas=list(range(2, 257))), rel=1e-3)
    assert found.epsilon == pytest.approx(by_formula(spent, 1e-5), rel=1e-3)
    tighter = PRVAccountant()
    tighter.history = [(4.0, 50 / 1010, 600)]  # the smaller of the two rates: less than was spent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the orders that it looks at for a start
        assert 0.8 * found.epsilon < tighter.get_epsilon(1e-5) < found.epsilon


def test_the_order_of_updates_and_how_they_are_written_down_change_nothing():
    history = [(1.5, 0.1, 20), (1.5, 0.1, 30), (3.0, 0.02, 500)]
    assert epsilon_of(history, 1e-5) == pytest.approx(epsilon_of([*history[:0:-1], history[0]], 1e-5), rel=1e-12)
    assert account(Privacy(epsilon=9.0, delta=1e-5), None, history).history == ((1.5, 0.1, 50), (3.0, 0.02, 500))
    assert epsilon_of([], 1e-5) == 0.0


def test_an_update_spends_what_it_may_by_itself_and_the_lineage_no_more_than_epsilon():
    privacy = Privacy(epsilon=3.0, delta=1e-5, update_epsilon=1.5)
    one = plan(privacy, None, rows=2000, batch_size=100, epochs=5)
    assert 1.48 <= one.epsilon <= 1.5
    found = account(privacy, None, [(one.noise, one.rate, one.steps)])
    updates = 1
    with pytest.raises(ConfigError, match=r"student\.privacy\.epsilon is 3\.0.*has spent 2\.\d+.*would be 3\.\d+"):
        while True:
            found = account(privacy, found, [(one.noise, one.rate, one.steps)])
            updates += 1
            assert plan(privacy, found, rows=2000, batch_size=100, epochs=5).epsilon <= 3.0
    assert updates == 4  # what is spent grows as the root of the steps, not as their number
    assert plan(Privacy(epsilon=3.0, delta=1e-5), None, rows=2000, batch_size=100, epochs=5).epsilon > 2.98


def test_too_little_for_any_update_is_refused():
    with pytest.raises(ConfigError, match="too little for an update"):
        plan(Privacy(epsilon=1e-9, delta=1e-5), None, rows=100, batch_size=50, epochs=5)


def test_an_account_goes_on_with_its_own_unit_alone():
    before = Account(epsilon=1.0, delta=1e-5, unit="input", history=((2.0, 0.1, 10),))
    privacy = Privacy(epsilon=9.0, delta=1e-5, noise=2.0, unit="key")
    with pytest.raises(ConfigError, match=r"student\.privacy\.unit is 'key'.*one input.*fresh"):
        plan(privacy, before, rows=100, batch_size=50, epochs=1)
    by_key = msgspec.structs.replace(before, unit="key")
    assert plan(privacy, by_key, rows=100, batch_size=50, epochs=1).steps == 2
    by_input = msgspec.structs.replace(privacy, unit="input")
    with pytest.raises(ConfigError, match=r"student\.privacy\.unit is 'input'.*one key.*fresh"):
        plan(by_input, by_key, rows=100, batch_size=50, epochs=1)


# The influence of a row


def test_a_row_moves_the_sum_of_gradients_by_the_clipping_length_at_most(work):
    batch = sample_of(work.data, 12)
    clipped = Clipped(lesson(work), 1.0)
    whole = clipped.gradient(batch, 0.02)
    for i in range(12):
        others = {name: t[torch.arange(12) != i] for name, t in batch.items()}
        assert float((whole - clipped.gradient(others, 0.02)).norm()) == pytest.approx(0.02, rel=1e-3)


def test_what_is_not_clipped_is_the_gradient_of_the_ordinary_way(work):
    batch, ordinary = sample_of(work.data, 12), lesson(replace(work, noise=None))
    (12 * ordinary(batch, 0.0)[0]).backward()
    expected = torch.cat([p.grad.flatten() for p in ordinary.parameters()])
    assert torch.allclose(Clipped(lesson(work), 1.0).gradient(batch, math.inf), expected, atol=1e-5)


def test_the_noise_has_the_deviation_that_the_account_says(work):
    learning = lesson(work)
    before = learning.net.embedding.weight.detach().clone()
    optimiser = torch.optim.SGD(learning.parameters(), lr=1.0)
    steps = PrivateSteps(learning, optimiser, rows=90, batch_size=30, noise=2.0, clip=0.5, device="cpu", seed=1)
    steps.step(sample_of(work.data, 0), 0.0)  # of no rows: noise alone
    moved = (learning.net.embedding.weight.detach() - before).numpy()
    assert moved.std() == pytest.approx(2.0 * 0.5 / 30, rel=0.03) and abs(moved.mean()) < 0.001
    assert steps.spent == ((2.0, 30 / 90, 1),)


def test_rows_are_drawn_each_with_the_same_chance(work):
    learning = lesson(work)
    optimiser = torch.optim.SGD(learning.parameters(), lr=1.0)
    steps = PrivateSteps(learning, optimiser, rows=2000, batch_size=10, noise=1.0, clip=1.0, device="cpu", seed=1)
    assert len(steps) == 200
    sizes = [len(steps.draw()) for _ in range(200)]
    assert np.mean(sizes) == pytest.approx(10, rel=0.1)
    assert np.var(sizes) == pytest.approx(10, rel=0.4)  # of a fixed size it would be 0


# Updates


def test_a_student_that_learns_in_private_has_an_account(first, windows):
    spent = first.card.privacy
    rows = first.metrics["new_rows"]
    assert spent.history == ((2.0, 32 / rows, 2 * round(rows / 32)),)
    assert (spent.unit, spent.delta) == ("input", DELTA) and spent.epsilon == epsilon_of(spent.history, DELTA)
    assert first.metrics["privacy_epsilon"] == spent.epsilon and first.metrics["privacy_noise"] == 2.0
    assert first.metrics["privacy_steps"] == first.metrics["privacy_lineage_steps"] == spent.history[0][2]
    assert Served.load(get_bytes(first.uri)).card == first.card


def test_a_warm_start_inherits_the_account_and_an_update_past_it_is_refused(
    spec, windows, artifacts, first, monkeypatch
):
    second = run(spec, windows, artifacts, ref(first, windows[0]))
    assert second.metrics["replay_rows"] > 0  # they count as new ones do
    assert second.card.privacy.history[0] == first.card.privacy.history[0] and len(second.card.privacy.history) == 2
    assert second.card.privacy.epsilon > first.card.privacy.epsilon
    monkeypatch.setattr(fitting, "fit", lambda *_: pytest.fail("it was trained"))
    before = get_bytes(second.uri)
    tight = private(spec, epsilon=second.card.privacy.epsilon + 0.01)
    with pytest.raises(ConfigError, match=rf"has spent {second.card.privacy.epsilon:.3f}.*lower update_epsilon"):
        run(tight, windows, artifacts, ref(second, windows[1]))
    assert get_bytes(second.uri) == before


def test_every_lesson_counts_that_of_another_shape_and_stages_too(spec, windows, artifacts, first):
    wider = Variant(name="tiny", dim=6, hidden=16)
    staged = private(
        spec, student={"variants": (wider,), "stages": (Stage(name="s", rows="labelled", objective=(Kl(),), epochs=3),)}
    )
    made = run(staged, windows[1:], artifacts, ref(first, windows[0]), variant=wider)
    rows = made.metrics["new_rows"]
    assert made.metrics["taught_rows"] == rows and "stage_loss_s" in made.metrics
    assert made.card.privacy.history[1][2] == made.metrics["privacy_steps"] == (3 + 2 + 2) * round(rows / 32)


def test_nobody_can_draw_the_noise_again_unless_a_test_says_so(spec, windows, artifacts, first):
    again, other = run(spec, windows[:1], artifacts), run(spec, windows[:1], artifacts, secret=None)
    assert again.digest == first.digest and other.digest != first.digest
    assert other.card.privacy == first.card.privacy


def test_a_parent_without_an_account_is_refused(letter_spec, spec, windows, artifacts, untrained):
    card = Served.load(get_bytes(_plain(letter_spec, windows, artifacts).uri)).card
    with pytest.raises(ConfigError, match="trained without it: begin a fresh student"):
        begin(_of(spec, card), [((Kl(),), 2)], card, "3")


def _plain(spec, windows, artifacts):
    made = msgspec.structs.replace(spec, student=msgspec.structs.replace(spec.student, epochs=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "fit", fit)
        return distill(made, windows[:1], variant=TINY, parent=None, artifacts=artifacts, seed=0)


def _of(spec, card):
    rows = TrainingSet(features={"ids": np.zeros((9, 1))}, soft=None, truth=None)
    return Work(spec=spec, card=card, data=rows, objective=(), epochs=2, start=None, seed=0)


def begin(work, lessons, parent=None, version=None):
    return admitted(work, fresh(work), lessons, parent, version)


def test_a_regression_learns_in_a_declared_unit(line_spec, lines, freeze_rows, artifacts):
    spec = private(line_spec, centre=1500.0, spread=500.0, student={"epochs": 1})
    made = run(spec, [freeze_rows(spec, lines(80), artifacts, 1)], artifacts)
    from safetensors.numpy import load

    assert load(get_bytes(made.weights_uri))["unit"].tolist() == [1500.0, 500.0]


# A run that is killed


def test_a_run_that_was_cut_off_goes_on_by_the_same_draws_and_counts_every_step(work, tmp_path, monkeypatch):
    save, cut = Checkpoints.save, f"{tmp_path.as_uri()}/cut.pt"

    def save_twice(self, progress, **how):
        save(self, progress, **how)
        if (progress.epoch, progress.done) == (1, 2):
            put_bytes(cut, get_bytes(self._uri))

    monkeypatch.setattr(Checkpoints, "save", save_twice)
    monkeypatch.setattr(Checkpoints, "due", lambda _: True)
    hidden = replace(work, secret=None)  # nothing but the checkpoint knows the draws
    whole = fit(hidden, "run", f"{tmp_path.as_uri()}/ray")
    part = read_checkpoint(cut)["private"]["spent"]
    done = fit(replace(hidden, checkpoint=cut), "run", f"{tmp_path.as_uri()}/ray")
    assert part[0][2] == whole.spent[0][2] / hidden.epochs + 2 and done.spent == whole.spent
    pairs = zip(done.net.state_dict().values(), whole.net.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


# The rows


def test_of_each_key_one_row_takes_part_the_newest(spec, windows):
    old = Rows(payloads=[b"1", b"2"], soft=[None] * 2, truth=[None] * 2, ids=["a", "b"], keys=["x", "y"])
    new = Rows(
        payloads=[b"3", b"4", b"5"], soft=[None] * 3, truth=[None] * 3, ids=["c", "d", "a"], keys=["x", "x", "z"]
    )
    assert [r.payloads for r in newest_of_each([old, new], "key")] == [[b"2"], [b"4", b"5"]]
    assert [r.payloads for r in newest_of_each([old, new], "input")] == [[b"2"], [b"3", b"4", b"5"]]
    assert len(update_rows(private(spec, unit="key"), windows, 0).new) == 1  # all of these inputs have one key


def test_which_rows_are_replayed_is_for_each_to_say(spec, windows, letters, freeze_rows, artifacts):
    few = private(spec, student={"replay_rows": 30})
    chosen = update_rows(few, windows, 0).replay
    assert 12 <= len(chosen) <= 55
    one_less = msgspec.structs.replace(spec, name="less")
    old = freeze_rows(one_less, letters("ab", 60, seed=1)[:-1], artifacts, 1)
    without = update_rows(few, [old, windows[1]], 0).replay
    assert set(without.ids) <= set(chosen.ids) or len(set(without.ids) ^ set(chosen.ids)) <= 2


# What is refused


@pytest.mark.parametrize(
    ("student", "privacy", "reason"),
    [
        ({"recipes": {"a": (Kl(),), "b": (Kl(),)}, "search": ("a", "b")}, {}, r"student\.search.*name the recipe"),
        (
            {"export": Export(also=("pruned",), pruning=Pruning(share=0.5))},
            {},
            r"pruning.*leave out the pruned exports",
        ),
        ({"cohort": Cohort(), "variants": (Variant(name="a"), Variant(name="b"))}, {}, r"cohort.*leave the cohort out"),
        ({"near_duplicate": 0.8}, {}, r"near_duplicate is 0\.8.*near_duplicate: null"),
        ({"holdout": "released"}, {}, r"student\.holdout is 'released'.*holdout: fixed"),
        ({"calibration": "crossfit"}, {}, r"student\.calibration is 'crossfit'.*calibration: apart"),
        ({"workers": 2}, {}, r"student\.workers is 2"),
        ({"accumulate": 2}, {}, r"student\.accumulate is 2.*larger batch_size"),
        (
            {"stages": (Stage(name="s", objective=(Hidden(student="h", teacher="t"),)),)},
            {},
            r"stages\[0\]\.rows is 'unlabelled'.*rows: labelled",
        ),
        ({"objective": (Kl(), Pkt(student="h", teacher="t"))}, {}, r"objective\[1\]\.term is 'pkt'.*take hidden"),
        ({"recipes": {"a": (Kl(), Pkt(student="h", teacher="t"))}}, {}, r"recipes\.a\[1\]\.term is 'pkt'"),
        ({}, {"update_epsilon": 1.0}, r"noise is 2\.0: follows from update_epsilon"),
        ({}, {"noise": None, "update_epsilon": 200.0}, r"update_epsilon is 200\.0.*lower it"),
        ({}, {"epsilon": math.inf}, r"epsilon is inf: must be a finite"),
        ({}, {"centre": 0.0}, "centre.*go with a regression"),
    ],
)
def test_what_would_look_at_rows_uncounted_is_refused(letter_spec, student, privacy, reason):
    with pytest.raises(ConfigError, match=reason):
        check_privacy(private(letter_spec, student=student, **privacy).student, "classification")


def test_in_private_holdouts_are_fixed_and_calibration_rows_apart(letter_spec):
    assert letter_spec.student.releases and letter_spec.student.crossfits
    student = private(letter_spec).student
    assert not student.releases and not student.crossfits


def test_a_spec_is_checked_when_it_is_read_and_a_regression_needs_its_unit(tmp_path):
    text = "name: x\ntask: regression\nteacher: {factory: 't:T'}\nfeatures: {factory: 'f:F'}\n"
    text += "student: {near_duplicate: null, privacy: {epsilon: 8, delta: 1.0e-5"
    path = tmp_path / "spec.yaml"
    path.write_text(text + "}}")
    with pytest.raises(ConfigError, match=r"student\.privacy\.centre is None.*both"):
        load_spec(path)
    path.write_text(text + ", centre: 0, spread: 1}}")
    assert load_spec(path).student.privacy.unit == "input"
    path.write_text(text.replace("1.0e-5", "1e-5") + "}}")
    with pytest.raises(ConfigError, match=r"YAML reads a number without its point as text: 1\.0e-5"):
        load_spec(path)


def test_the_spec_knows_which_terms_take_a_row_alone():
    from components.distill.terms import objective

    made = {type(section): getattr(objective, f"{type(section).__name__}Term") for section in _sections()}
    assert {section.__name__: section.per_row for section in made} == {s.__name__: t.per_row for s, t in made.items()}


def _sections():
    for kind in get_args(terms.Term):
        yield kind() if not issubclass(kind, terms.Inside) else kind(student="s", teacher="t")


class Plain(nn.Module):
    """A network of one's own: pooled embeddings, whatever middle, a head."""

    def __init__(self, *, task, inputs, outputs, middle="norm"):
        super().__init__()
        self.embedding = nn.Embedding(inputs["ids"].below, 8)
        kinds = {"norm": nn.LayerNorm(8), "batch": nn.BatchNorm1d(8), "bare": nn.BatchNorm1d(8, affine=False)}
        self.middle = kinds.get(middle, nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.2)))
        self.kind, self.head = middle, nn.Linear(8, outputs)
        if middle == "centred":
            self.register_buffer("seen", torch.zeros(8))

    def forward(self, ids, weights):
        if self.kind == "functional":
            rows = nn.functional.embedding_bag(ids, self.embedding.weight, per_sample_weights=weights, mode="sum")
        else:
            rows = (self.embedding(ids) * weights.unsqueeze(2)).sum(dim=1)
        if self.kind == "mixing":
            rows = rows - rows.mean(dim=0)
        if self.kind == "centred" and self.training:
            self.seen = 0.9 * self.seen + 0.1 * rows.detach().mean(dim=0)
        out = self.head(self.middle(rows))
        return {"logits": out, "pooled": rows} if self.kind == "telling" else out


def of_its_own(work, middle):
    options = {"middle": middle}
    net = Factory(factory="tests.components.distill.test_privacy:Plain", options=options)
    return replace(work, card=msgspec.structs.replace(work.card, network=net))


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        ("batch", r"student\.network is 'middle \(BatchNorm1d\)'.*take LayerNorm"),
        ("bare", r"student\.network is 'middle \(BatchNorm1d\)'"),
        ("functional", r"'Plain'.*embedding\.weight is not reached.*functional\.embedding_bag"),
        ("mixing", "one row moves the sum .* times as far"),
        ("centred", "seen keeps numbers of the rows"),
    ],
)
def test_a_network_whose_rows_cannot_be_told_apart_is_refused(work, middle, reason, untrained):
    with pytest.raises(ConfigError, match=reason):
        begin(of_its_own(work, middle), [((Kl(),), 2)])


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.EmbeddingBag(9, 4), r"'0 \(EmbeddingBag\)': counts an id once .* take nn\.Embedding"),
        (nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular"), r"\(Conv1d\)': has its gradients .* with zeros"),
        (nn.Embedding(9, 4, max_norm=1.0), "shortens rows of its table"),
        (nn.Embedding(9, 4, scale_grad_by_freq=True), "by what the other rows have"),
    ],
)
def test_a_layer_that_opacus_reckons_otherwise_is_refused_whatever_the_rows_show(layer, reason):
    with pytest.raises(ConfigError, match=reason):
        check_modules(nn.Sequential(layer, nn.Linear(4, 2)))


def test_the_layers_that_it_reckons_as_pytorch_does_are_not():
    check_modules(nn.Sequential(nn.Embedding(9, 4, padding_idx=0), nn.Conv1d(4, 4, 3, padding=1), nn.Linear(4, 2)))


@pytest.mark.parametrize("middle", ["norm", "dropout"])
def test_a_network_of_one_s_own_is_admitted_and_learns(work, middle, tmp_path):
    own = replace(of_its_own(work, middle), epochs=1, checkpoint=f"{tmp_path.as_uri()}/own.pt")
    assert isinstance(begin(own, [((Kl(),), 1)]), Plan)
    assert fit(own, "run", f"{tmp_path.as_uri()}/ray").spent[0][2] == round(len(work.data) / 32)


def test_a_term_s_own_weights_are_clipped_with_the_student_s(work):
    states = np.random.default_rng(0).normal(size=(len(work.data), 5)).astype(np.float32)
    inside = (Kl(), Hidden(student="pooled", teacher="t", project="mlp", weight=5.0))
    learning = lesson(
        replace(of_its_own(work, "telling"), data=replace(work.data, states={"t": states}), objective=inside)
    )
    batch = sample_of(replace(work.data, states={"t": states}), 6)
    clipped = Clipped(learning, 1.0)
    assert len(clipped.parameters) == len(list(learning.net.parameters())) + 4
    for i in range(6):
        alone = {name: t[i : i + 1] for name, t in batch.items()}
        assert float(clipped.gradient(alone, 0.01).norm()) == pytest.approx(0.01, rel=1e-3)


def test_a_state_that_is_read_off_a_layer_is_refused(work):
    """Its gradient would lack what the term adds, and one row would move the sum further than it is clipped to."""
    term = Hidden(student="hidden", teacher="t", project="none", weight=50.0)
    states = np.random.default_rng(0).normal(size=(len(work.data), 16)).astype(np.float32)
    learning = lesson(replace(work, data=replace(work.data, states={"t": states}), objective=(Kl(), term)))
    alone = sample_of(replace(work.data, states={"t": states}), 1)
    assert float(Clipped(learning, 1.0).gradient(alone, 0.01).norm()) > 0.0125
    with pytest.raises(ConfigError, match=r"student\.objective is 'hidden'.*read off a Linear.*return the state"):
        begin(work, [((Kl(), term), 2)])
