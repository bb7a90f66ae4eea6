import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace

import msgspec
import pytest
import torch

from components.distill.checkpoint import read_checkpoint
from components.distill.data import arrays, update_rows
from components.distill.fit import fit
from components.distill.work import Work
from components.student.card import StudentCard
from tests.students import bag

EPOCHS = 40

INTERRUPTED = """
import os, pickle, signal, sys
from components.distill import loop
from components.distill.fit import fit
save = loop.save
def save_and_die(uri, net, optimiser, generator, progress):
    save(uri, net, optimiser, generator, progress)
    if progress.epoch == 7:
        os.kill(os.getpid(), signal.SIGKILL)
loop.save = save_and_die
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


def test_a_finished_run_is_not_trained_again(work, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("components.distill.loop._epoch", lambda *_: pytest.fail("an epoch was trained"))
    again = fit(work, "run", f"file://{tmp_path}")
    assert again.history == whole.history and same(again.net, whole.net)


@pytest.mark.integration
def test_a_run_that_was_killed_goes_on_from_its_last_epoch_and_ends_the_same(work, whole, tmp_path):
    cut = replace(work, checkpoint=f"file://{tmp_path}/cut.pt")
    (tmp_path / "work.pkl").write_bytes(pickle.dumps(cut))
    arguments = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "work.pkl"), f"file://{tmp_path}/ray"]
    victim = subprocess.run(arguments, cwd=os.getcwd(), timeout=300, check=False)
    assert victim.returncode == -signal.SIGKILL
    stopped = read_checkpoint(cut.checkpoint)
    assert stopped["epoch"] == 7
    done = fit(cut, "run", f"file://{tmp_path}/ray")
    assert done.history[: stopped["epoch"]] == tuple(stopped["history"]) and done.history == whole.history
    assert same(done.net, whole.net)


def test_no_checkpoint_is_none(tmp_path):
    assert read_checkpoint(f"file://{tmp_path}/nothing.pt") is None
