import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import msgspec
import pytest
import torch
from torch import nn

from components.contracts.spec import Factory
from components.contracts.storage import get_bytes, put_bytes
from components.distill.batches import Batches
from components.distill.checkpoint import EVERY_SECONDS, SHARE, Checkpoints, Progress, read_checkpoint
from components.distill.data import arrays, update_rows
from components.distill.fit import fit
from components.distill.networks.bag import BagOfFeatures
from components.distill.work import Work
from components.student.card import StudentCard
from tests.students import bag

EPOCHS = 40

INTERRUPTED = """
import os, pickle, signal, sys
from components.distill import checkpoint
from components.distill.fit import fit
save = checkpoint.Checkpoints.save
def save_and_die(self, progress, **how):
    save(self, progress, **how)
    if (progress.epoch, progress.done) == (7, 1):
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.EVERY_SECONDS, checkpoint.SHARE = 0.0, float("inf")  # after every step
checkpoint.Checkpoints.save = save_and_die
with open(sys.argv[1], "rb") as file:
    work = pickle.load(file)
fit(work, "run", sys.argv[2])
"""


@pytest.fixture(scope="module")
def work(letter_spec, letters, freeze_rows, tmp_path_factory):
    artifacts = f"file://{tmp_path_factory.mktemp('loop')}"
    spec = msgspec.structs.replace(letter_spec, student=msgspec.structs.replace(letter_spec.student, epochs=EPOCHS))
    rows = update_rows(spec, [freeze_rows(spec, letters("ab", 80), artifacts, 1)], 0).new
    card = StudentCard(
        workload="letters", task="classification", space="letters@1", classes=("a", "b"), features=spec.features,
        payload=spec.payload, **bag(1024, 8, 16), variant="tiny", snapshots=(), teacher="t@1",
        parent=None, code="0",
    )  # fmt: skip
    data = arrays(spec, rows, card.classes)
    return Work(
        spec=spec,
        card=card,
        data=data,
        objective=spec.student.objective_of(spec.student.variants[0], spec.task),
        epochs=spec.student.epochs,
        start=None,
        checkpoint=f"{artifacts}/whole/checkpoint.pt",
        seed=3,
    )


def same(net, other):
    return all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.fixture(scope="module")
def whole(work, tmp_path_factory):
    return fit(work, "run", f"file://{tmp_path_factory.mktemp('ray')}")


def test_the_loss_falls_and_every_epoch_is_told(whole):
    history = whole.history
    assert len(history) == EPOCHS
    assert history[-1] < 0.3 * history[0]


def test_the_seed_decides(work, whole, tmp_path):
    again = fit(replace(work, checkpoint=f"file://{tmp_path}/a.pt"), "run", f"file://{tmp_path}/ray")
    other = fit(replace(work, checkpoint=f"file://{tmp_path}/b.pt", seed=4), "run", f"file://{tmp_path}/ray")
    assert same(again.net, whole.net)
    assert not same(other.net, whole.net)


def test_the_rate_that_nobody_names_is_the_network_s(work, whole, tmp_path):
    def at(rate):
        student = msgspec.structs.replace(work.spec.student, learning_rate=rate)
        own = replace(work, spec=msgspec.structs.replace(work.spec, student=student))
        checkpoint = f"file://{tmp_path}/{rate}.pt"
        return fit(replace(own, checkpoint=checkpoint), f"rate-{rate}", f"file://{tmp_path}").net

    assert same(at(None), at(BagOfFeatures.RATE)) and not same(at(None), whole.net)


def test_a_finished_run_is_not_trained_again(work, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("components.distill.loop.step_of", lambda *_: lambda *_: pytest.fail("a step was made"))
    again = fit(work, "run", f"file://{tmp_path}")
    assert again.history == whole.history and same(again.net, whole.net)


@pytest.mark.integration
def test_a_run_that_was_killed_goes_on_from_its_last_step_and_ends_the_same(work, whole, tmp_path):
    cut = replace(work, checkpoint=f"file://{tmp_path}/cut.pt")
    (tmp_path / "work.pkl").write_bytes(pickle.dumps(cut))
    arguments = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "work.pkl"), f"file://{tmp_path}/ray"]
    victim = subprocess.run(arguments, cwd=os.getcwd(), timeout=300, check=False)
    assert victim.returncode == -signal.SIGKILL
    stopped = read_checkpoint(cut.checkpoint)["progress"]
    assert (stopped["epoch"], stopped["done"]) == (7, 1) and len(stopped["losses"]) == 1
    done = fit(cut, "run", f"file://{tmp_path}/ray")
    assert done.history[:7] == tuple(stopped["history"]) and done.history == whole.history
    assert done.terms == whole.terms
    assert same(done.net, whole.net)


def test_gradients_that_are_accumulated_are_those_of_the_larger_batch(work, tmp_path):
    """The last step of an epoch has fewer rows, and its last batch fewer than the others."""
    large = replace(work, spec=learning(work.spec, batch_size=24), epochs=6, checkpoint=f"file://{tmp_path}/a.pt")
    parts = replace(large, spec=learning(work.spec, batch_size=8, accumulate=3), checkpoint=f"file://{tmp_path}/b.pt")
    plain = replace(large, spec=learning(work.spec, batch_size=8), checkpoint=f"file://{tmp_path}/c.pt")
    assert len(work.data) % 24 not in (0, 8, 16)
    one, other, smaller = (fit(w, "run", f"file://{tmp_path}/ray") for w in (large, parts, plain))
    assert other.history == pytest.approx(one.history, rel=1e-4) and other.terms[-1] == pytest.approx(
        one.terms[-1], rel=1e-4
    )
    pairs = list(zip(one.net.state_dict().values(), other.net.state_dict().values(), strict=True))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in pairs)
    assert smaller.history[-1] != pytest.approx(one.history[-1], rel=1e-2)


def learning(spec, **values):
    return msgspec.structs.replace(spec, student=msgspec.structs.replace(spec.student, **values))


class Dropping(nn.Module):
    """A student that drops units by chance."""

    def __init__(self, *, task, inputs, outputs):
        super().__init__()
        self.embedding = nn.Embedding(inputs["ids"].below, 8)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, outputs)

    def forward(self, ids, weights):
        return self.head(self.dropout((self.embedding(ids) * weights.unsqueeze(2)).sum(dim=1)))


def test_a_run_that_goes_on_in_the_middle_of_an_epoch_drops_the_same_units(work, tmp_path, monkeypatch):
    factory = Factory(factory="tests.components.distill.test_loop:Dropping")
    card = msgspec.structs.replace(work.card, network=factory)
    dropping = replace(work, card=card, epochs=4, checkpoint=f"file://{tmp_path}/whole.pt")
    save, cut = Checkpoints.save, f"file://{tmp_path}/cut.pt"

    def keep(self, progress, **how):
        save(self, progress, **how)
        if (progress.epoch, progress.done) == (2, 1):
            put_bytes(cut, get_bytes(self._uri))

    monkeypatch.setattr(Checkpoints, "save", keep)
    monkeypatch.setattr(Checkpoints, "due", lambda _: True)
    whole = fit(dropping, "run", f"file://{tmp_path}/ray")
    torch.manual_seed(12345)  # of whatever ran in the process before
    again = fit(replace(dropping, checkpoint=cut), "run", f"file://{tmp_path}/ray")
    assert again.history == whole.history and same(again.net, whole.net)


def test_no_checkpoint_is_none_and_one_of_another_format_too(tmp_path):
    assert read_checkpoint(f"file://{tmp_path}/nothing.pt") is None
    torch.save({"model": {}, "epoch": 3}, tmp_path / "old.pt")
    assert read_checkpoint(f"file://{tmp_path}/old.pt") is None


def test_a_checkpoint_is_due_by_the_time_and_what_writing_takes(tmp_path):
    now = [100.0]
    net = torch.nn.Linear(1, 1)
    lesson = SimpleNamespace(net=net, objective=net, peers=net)
    made = Checkpoints(f"file://{tmp_path}/c.pt", lesson, torch.optim.Adam(net.parameters()), None, lambda: now[0])
    now[0] += EVERY_SECONDS - 1
    assert not made.due()
    now[0] += 1
    assert made.due()
    times = iter([now[0], now[0] + 3.0])  # writing takes three seconds
    made._clock = lambda: next(times)
    made.save(Progress())
    start = now[0] + 3.0
    made._clock = lambda: now[0]
    now[0] = start + 3.0 / SHARE - 1
    assert not made.due()
    now[0] += 1
    assert made.due()


def test_a_run_of_seconds_writes_once(work, tmp_path, monkeypatch):
    written = []
    save = Checkpoints.save
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, progress, **how: written.append(how) or save(self, progress, **how)
    )
    monkeypatch.setattr(Checkpoints, "due", lambda _: False)
    fit(replace(work, epochs=3, checkpoint=f"file://{tmp_path}/c.pt"), "run", f"file://{tmp_path}/ray")
    assert written == [{"over": True}]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_row_is_in_some_worker_s_batches_of_an_epoch_and_all_have_as_many(world):
    rows = {"x": torch.arange(100), "y": torch.arange(100) * 2}
    shares = [Batches(rows, 8, seed=5, device="cpu", world=world, rank=rank) for rank in range(world)]
    seen = [[batch for (batch,) in share.epoch(2, 0)] for share in shares]
    assert [len(own) for own in seen] == [len(shares[0])] * world and len(shares[0]) == {1: 13, 2: 7, 3: 5}[world]
    assert {int(x) for own in seen for batch in own for x in batch["x"]} == set(range(100))
    assert all(torch.equal(batch["y"], 2 * batch["x"]) for own in seen for batch in own)
    rest = [batch for (batch,) in shares[0].epoch(2, 3)]
    assert all(torch.equal(a["x"], b["x"]) for a, b in zip(rest, seen[0][3:], strict=True))
    other = [x for (batch,) in shares[0].epoch(3, 0) for x in batch["x"]]
    assert other != [x for batch in seen[0] for x in batch["x"]]
