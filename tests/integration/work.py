"""What Ray's workers train in tests: rows that are told apart, and a network that notes which of them it was shown."""

import numpy as np

from components.contracts.spec import Factory, Payload, Spec, Student
from components.distill.data import TrainingSet
from components.distill.work import Work
from components.student.card import StudentCard
from components.student.features import featuriser

ROWS, EPOCHS, STEPS = 90, 3, 6

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
