"""Students of inputs that were made up: agreement with the teacher on real inputs, beside a student of real inputs.

Images: scikit-learn's digits, a convolution with batch norms as teacher, trained on half of them; the students see as
many made-up inputs, or real ones that the teacher was not trained on, and are judged on the rest. Tables: the wine data
with a network, judged on all real rows. Texts: CLINC150 with MiniLM, judged on its test rows, where
``COHOBATE_BENCH_DATA`` names the folder that holds ``clinc150/``. Every student learns from the teacher's answers
alone. ``COHOBATE_BENCH_SEEDS`` (3), ``COHOBATE_BENCH_ROWS`` (1000, of texts) and ``COHOBATE_BENCH_ARMS`` (parts of
``images``, ``tables``, ``texts``) make another run.
"""

import math
import os
import sys
import tempfile
import time
from functools import cached_property

import msgspec
import numpy as np
import torch
from scipy.stats import t as student_t
from sklearn.datasets import load_digits, load_wine
from torch import nn

from components.contracts.payload import decoder
from components.contracts.records import SoftLabel, json_bytes
from components.contracts.spec import Factory, Payload, Spec, Student
from components.contracts.spec.data_free import Column, DataFree, ImageInputs, TableInputs
from components.contracts.spec.objective import Kl
from components.distill.data import Rows, arrays, encoded
from components.distill.fit import fit
from components.distill.work import Work
from components.student.card import StudentCard
from components.student.features import featuriser
from components.synthetic.methods import make_up
from components.synthetic.spaces import png
from components.teachers.contract import Differentiable, reference
from tests.bench.students import DATA, TOKENS, Bench

SEEDS = int(os.environ.get("COHOBATE_BENCH_SEEDS", "3"))
ROWS = int(os.environ.get("COHOBATE_BENCH_ROWS", "1000").split(",")[0])
ARMS = os.environ.get("COHOBATE_BENCH_ARMS", "").split(",")
EPOCHS, NETWORKS = 20, "components.distill.networks"

torch.set_num_threads(1)


class TorchTeacher:
    """A small network with batch norms, trained on arrays (N, *shape) in [0, 1]."""

    task, size_bytes = "classification", 0

    def __init__(self, name, net, values, labels, classes):
        self.name, self.space, self.classes, self.digest = name, f"{name}@1", classes, "0" * 64
        self.shape, self.net = values.shape[1:], net
        inputs, goals = torch.from_numpy(values), torch.from_numpy(labels)
        optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
        for epoch in range(30):
            for some in torch.randperm(len(inputs), generator=torch.Generator().manual_seed(epoch)).split(64):
                loss = nn.functional.cross_entropy(net(inputs[some]), goals[some])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        net.eval()

    def label(self, payloads):
        with torch.no_grad():
            shares = self.net(torch.from_numpy(self.numbers(payloads))).softmax(dim=1).double().numpy()
        return [SoftLabel.of(self.space, self.classes, (row / row.sum()).tolist()) for row in shares]

    def differentiable(self):
        return Differentiable(module=self.net, shape=self.shape, low=0.0, high=1.0, payloads=self.payloads)


class Digits(TorchTeacher):
    def __init__(self, images, labels, seed=0):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1, stride=2),
            nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
        )  # fmt: skip
        super().__init__("digits", net, self.numbers([image(x) for x in images]), labels, tuple("0123456789"))

    def numbers(self, payloads):
        from components.student.image import Image

        pixels = Image(height=8, width=8, colour="grey").encode(payloads)["pixels"]
        return (pixels.reshape(len(payloads), 1, 8, 8) + 1.0) / 2.0

    def payloads(self, values):
        return [png((255 * v[0]).round().astype(np.uint8)) for v in values]


class Wines(TorchTeacher):
    def __init__(self, table, labels, names, seed=0):
        torch.manual_seed(seed)
        self.names, self.low, self.span = names, table.min(axis=0), np.ptp(table, axis=0)
        net = nn.Sequential(nn.Linear(13, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32), nn.BatchNorm1d(32),
                            nn.ReLU(), nn.Linear(32, 3))  # fmt: skip
        super().__init__("wines", net, self.numbers(list(map(self.row, table))), labels, ("a", "b", "c"))

    def row(self, values):
        return dict(zip(self.names, map(float, values), strict=True))

    def numbers(self, payloads):
        table = np.array([[p[n] for n in self.names] for p in payloads])
        return ((table - self.low) / self.span).astype(np.float32)

    def payloads(self, values):
        return [json_bytes(self.row(row)) for row in values * self.span + self.low]


def image(pixels):
    return png((pixels * 255 / 16).round().astype(np.uint8))


class Arm:
    """A workload, its teacher, and real inputs to learn from and to be judged on (payloads in bytes)."""

    def __init__(self, spec, teacher, real, test, rows, methods):
        self.spec, self.teacher, self.real, self.test = spec, teacher, real, test
        self.rows, self.methods = rows, methods
        self._decode = decoder(spec.payload, spec.source)

    def asked(self, payloads):
        return self.teacher.label([self._decode(p) for p in payloads])

    @cached_property
    def taught(self):
        return [s.label for s in self.asked(self.test)]

    def made(self, method, seed):
        if method == "real":
            return [self.real[i] for i in np.random.default_rng(seed).permutation(len(self.real))[: self.rows]]
        return make_up(self.spec, self.teacher, DataFree(method=method, rows=self.rows, seed=seed)).payloads

    def agreement(self, payloads, seed, folder):
        """Of a student of these inputs with the teacher, on the test."""
        spec = self.spec
        rows = Rows(payloads=payloads, soft=self.asked(payloads), truth=[None] * len(payloads))
        card = StudentCard(
            workload=spec.name, task=spec.task, space=self.teacher.space, classes=self.teacher.classes,
            features=spec.features, payload=spec.payload, inputs=dict(featuriser(spec.features, "").signature),
            network=spec.student.network_of(spec.student.variants[0]), variant="base", snapshots=(),
            teacher=reference(self.teacher), parent=None, code="",
        )  # fmt: skip
        work = Work(
            spec=spec, card=card, data=arrays(spec, rows, self.teacher.classes), objective=(Kl(temperature=1.0),),
            epochs=EPOCHS, start=None, seed=seed, checkpoint=f"{folder}/{time.monotonic_ns()}.pt",
        )  # fmt: skip
        net = fit(work, f"bench-{time.monotonic_ns()}", f"{folder}/ray").net
        with torch.inference_mode():
            given = {n: torch.from_numpy(a) for n, a in encoded(spec, self.test).items()}
            said = net(**given)["logits"].argmax(dim=1).tolist()
        return float(np.mean([self.teacher.classes[i] == t for i, t in zip(said, self.taught, strict=True)]))


def images():
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    pixels, labels = pixels.reshape(-1, 8, 8)[order], labels[order]
    spec = Spec(
        name="digits", teacher=Factory(factory="bench"),
        payload=Payload(decoder="components.student.image:image_bytes"),
        features=Factory(factory="components.student.image:Image", options={"height": 8, "width": 8, "colour": "grey"}),
        student=Student(
            network=Factory(factory=f"{NETWORKS}.image_convolution:ImageConvolution", options={"channels": [16, 32]}),
            data_free=DataFree(inputs=ImageInputs(height=8, width=8, mean=78.0, deviation=96.0)),
        ),
    )  # fmt: skip
    teacher = Digits(pixels[:800], labels[:800])
    files = [image(x) for x in pixels]
    return Arm(spec, teacher, files[800:1300], files[1300:], 500, ("real", "noise", "inversion", "generator"))


def tables():
    found = load_wine()
    names = [str(n) for n in found.feature_names]
    order = np.random.default_rng(0).permutation(len(found.target))
    table, labels = found.data[order], found.target[order]
    columns = {
        n: Column(mean=round(float(m), 3), deviation=round(float(d), 3))
        for n, m, d in zip(names, table.mean(axis=0), table.std(axis=0), strict=True)
    }
    numbers = [{"name": n, "mean": c.mean, "scale": c.deviation} for n, c in columns.items()]
    spec = Spec(
        name="wines", teacher=Factory(factory="bench"), payload=Payload(decoder="json"),
        features=Factory(factory="components.student.columns:MixedColumns", options={"numbers": numbers}),
        student=Student(
            network=Factory(factory=f"{NETWORKS}.table:TableNetwork", options={"hidden": [32, 32]}),
            data_free=DataFree(inputs=TableInputs(columns=columns)),
        ),
    )  # fmt: skip
    teacher = Wines(table, labels, names)
    rows = [json_bytes(teacher.row(x)) for x in table]
    return Arm(spec, teacher, rows[:90], rows[90:], 500, ("real", "noise", "search", "inversion", "generator"))


def texts(folder):
    bench = Bench(folder)
    words = Factory(factory="components.student.words:WordSequence", options={"length": TOKENS})
    network = Factory(factory=f"{NETWORKS}.text_convolution:TextConvolution")
    spec = msgspec.structs.replace(bench.spec, features=words, student=Student(network=network))
    real = [t.encode() for t, _ in bench.traffic]
    test = [t.encode() for t, _ in bench.test[::3]]
    return Arm(spec, bench.teacher, real, test, ROWS, ("real", "noise", "search"))


def spread(values):
    half = student_t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return f"{100 * np.mean(values):5.1f} ± {100 * half:4.1f}"


def main():
    made = {"images": lambda _: images(), "tables": lambda _: tables(), "texts": texts}
    with tempfile.TemporaryDirectory() as scratch:
        folder = f"file://{scratch}"
        print(f"agreement with the teacher on real inputs, %; {SEEDS} seeds, mean and 95 % interval", flush=True)
        for name, make in made.items():
            if not any(part in name for part in ARMS):
                continue
            if name == "texts" and not DATA.is_dir():
                sys.stdout.write(f"{name}: skipped: no CLINC150 at {DATA}; name its folder in COHOBATE_BENCH_DATA\n")
                continue
            arm = make(folder)
            for method in arm.methods:
                found, began, different = [], time.perf_counter(), []
                for seed in range(SEEDS):
                    payloads = arm.made(method, seed)
                    different.append(len({*payloads}))
                    found.append((payloads, seed))
                seconds = (time.perf_counter() - began) / SEEDS
                shares = [arm.agreement(payloads, seed, folder) for payloads, seed in found]
                rows = int(np.mean(different))
                print(f"  {name:7} {method:10} {rows:5} rows  {spread(shares)}   {seconds:6.1f} s to make", flush=True)
