"""Two Ray workers that train one student, one of which is killed: what comes of it is what one process learns."""

import os
import pickle
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from components.contracts import failpoint
from components.contracts.spec import Factory, Payload, Spec, Student
from components.distill import checkpoint
from components.distill.data import TrainingSet
from components.distill.fit import fit
from components.distill.prune import answers
from components.distill.work import Work, fresh
from components.student.card import StudentCard
from components.student.features import featuriser
from tests.forks import forked, preload
from tests.ray_start import init

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]  # a busy machine takes minutes to start Ray

ROWS, EPOCHS, STEPS = 90, 3, 6
DIES_AFTER = 10
"""More than half of the steps: with as many left, the next life would die as well, once it has nothing left to do."""

NETWORK = '''
import os
from pathlib import Path
import torch
from components.distill import checkpoint
from components.distill.networks.bag import BagOfFeatures

checkpoint.EVERY_SECONDS, checkpoint.SHARE = 0.0, float("inf")  # a checkpoint after every step


class Watched(BagOfFeatures):
    """Notes the rows of each of its steps in a file of its process."""

    def __init__(self, *, folder, **rest):
        super().__init__(**rest)
        self.folder = Path(folder)

    def forward(self, ids, weights):
        if self.training and torch.distributed.is_initialized():
            name = f"{torch.distributed.get_rank()}-{os.getpid()}"
            with (self.folder / name).open("a") as file:
                print(*(round(20 * row) for row in weights[:, 0].tolist()), file=file)
        return super().forward(ids, weights)
'''


preload(__name__)


def by_two(folder):
    """Learn by two workers, in Ray of its own, where the second of them dies once: its next life has few steps left."""
    environment = {**os.environ, failpoint.VARIABLE: f"train.3.1:{DIES_AFTER}", "PYTHONWARNINGS": "ignore"}
    process = forked(learn, folder, environment=environment, log=folder / "log")
    process.join()
    assert process.exitcode == 0, (folder / "log").read_text()[-3000:]
    return pickle.loads((folder / "found.pkl").read_bytes())  # noqa: S301


def learn(folder):
    """What a step does that has a process of its own."""
    import ray

    init(num_cpus=3)
    found = fit(pickle.loads((folder / "work.pkl").read_bytes()), "two", f"file://{folder}/ray")  # noqa: S301
    (folder / "found.pkl").write_bytes(pickle.dumps((found.history, found.net.state_dict())))
    ray.shutdown()


def work(folder, workers=2):
    """Rows that are told apart by their first column, and that no two have alike."""
    (folder / "nets.py").write_text(NETWORK)
    (folder / "seen").mkdir()
    network = Factory(factory="nets.py:Watched", options={"folder": f"{folder}/seen", "dim": 8, "hidden": 8})
    columns = [{"name": name, "mean": 0.0, "scale": 20.0} for name in "xy"]
    features = Factory(factory="components.student.table:TableColumns", options={"columns": columns})
    spec = Spec(
        name="w", teacher=Factory(factory="t:T"), features=features, payload=Payload(decoder="json"),
        student=Student(network=network, workers=workers, batch_size=8, learning_rate=0.05),
        source=f"{folder}/spec.yaml",
    )  # fmt: skip
    card = StudentCard(
        workload="w", task="classification", space="s@1", classes=("a", "b"), features=features, payload=spec.payload,
        inputs=dict(featuriser(features, "").signature), network=network, variant="base", snapshots=(), teacher="t@1",
        parent=None, code="0",
    )  # fmt: skip
    kinds = np.arange(ROWS) % 2
    encoded = featuriser(features, "").encode([{"x": i, "y": 30 * int(k) - 15} for i, k in enumerate(kinds)])
    soft = np.eye(2, dtype=np.float32)[kinds]
    return Work(
        spec=spec, card=card, data=TrainingSet(features=encoded, soft=soft, truth=kinds.astype(np.int64)),
        epochs=EPOCHS, objective=spec.student.objective_of(spec.student.variants[0], "classification"), start=None,
        seed=1, checkpoint=f"file://{folder}/two.pt",
    )  # fmt: skip


def seen(folder):
    """The rows of each step, by the worker's rank, of each of its lives."""
    lives = {}
    for path in sorted((folder / "seen").iterdir(), key=lambda p: p.stat().st_mtime_ns):
        steps = [[int(x) for x in line.split()] for line in path.read_text().splitlines()]
        lives.setdefault(path.name.partition("-")[0], []).append(steps)
    return lives


def test_two_workers_one_of_which_is_killed_learn_what_one_process_does(tmp_path, monkeypatch):
    for name in ("EVERY_SECONDS", "SHARE"):  # which importing the network sets in this process too
        monkeypatch.setattr(checkpoint, name, getattr(checkpoint, name))
    two = work(tmp_path)
    (tmp_path / "work.pkl").write_bytes(pickle.dumps(two))
    history, state = by_two(tmp_path)
    alone = msgspec.structs.replace(two.spec.student, workers=0, batch_size=16)
    one = replace(
        two, spec=msgspec.structs.replace(two.spec, student=alone), checkpoint=f"file://{tmp_path}/one.pt"
    )  # fmt: skip
    whole = fit(one, "one", f"file://{tmp_path}/ray")
    lives = seen(tmp_path)
    assert {rank: len(of) for rank, of in lives.items()} == {"0": 2, "1": 2}, "one was killed, and both began anew"
    assert len(lives["1"][0]) == DIES_AFTER and DIES_AFTER - 1 <= EPOCHS * STEPS - len(lives["1"][1]) <= DIES_AFTER
    for life, steps in ((0, slice(0, STEPS)), (1, slice(-STEPS, None))):
        of_an_epoch = [row for rank in lives for step in lives[rank][life][steps] for row in step]
        assert sorted(of_an_epoch) == list(range(ROWS)), "each row once, by one of them"
    assert len(history) == EPOCHS and history[-1] < history[0]
    pairs = zip(state.values(), whole.net.state_dict().values(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in pairs), "the gradient is that of both batches together"
    found = fresh(one)
    found.load_state_dict(state)
    labels = [answers(net.eval(), two.data.features).argmax(dim=1) for net in (found, whole.net)]
    assert torch.equal(*labels) and torch.equal(labels[0], torch.from_numpy(two.data.truth))
    assert not list(tmp_path.glob("*.rows")), "what the workers read is gone"
