"""The student of README's example beside TF-IDF with logistic regression, on a task that is harder than the example.

CLINC150 (150 intents), 1,200 rows to learn from, judged on its 4,500 test rows, which hold each intent as often. The
teacher says the true intent with probability 0.9. Features, variants and training are the example's; only the number
of classes is not. ``narrow`` is a student of 16 and 32 for comparison. ``COHOBATE_BENCH_DATA`` names the folder that
holds ``clinc150/``.
"""

import json
import os
import random
import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from components.contracts.records import SoftLabel
from components.contracts.spec import Payload, Variant, load_spec
from components.distill.data import Rows, arrays, encoded
from components.distill.fit import fit
from components.distill.prune import answers
from components.distill.work import Work
from components.student.card import StudentCard
from components.student.features import featuriser

DATA = Path(os.environ.get("COHOBATE_BENCH_DATA", Path(__file__).parents[3] / "shared" / "data")) / "clinc150"
EXAMPLE = Path(__file__).parents[1] / "workloads" / "tickets" / "tickets.yaml"
ROWS, SEEDS, SURE = 1_200, 5, 0.9
NARROW = Variant(name="narrow", dim=16, hidden=32)

torch.set_num_threads(1)


def logistic_regression(train, test, c):
    vectoriser = TfidfVectorizer(ngram_range=(1, 2))
    model = LogisticRegression(C=c, max_iter=1_000).fit(
        vectoriser.fit_transform([t for t, _ in train]), [c for _, c in train]
    )
    return float(model.score(vectoriser.transform([t for t, _ in test]), [c for _, c in test]))


def student(spec, variant, train, test, seed):
    classes = tuple(sorted({c for _, c in train}))
    rest = (1 - SURE) / (len(classes) - 1)
    soft = [
        SoftLabel(task="classification", space="s", distribution={k: SURE if k == c else rest for k in classes})
        for _, c in train
    ]
    data = arrays(spec, Rows(payloads=[t.encode() for t, _ in train], soft=soft, truth=[None] * len(train)), classes)
    card = StudentCard(
        workload=spec.name, task=spec.task, space="s", classes=classes, features=spec.features, payload=spec.payload,
        inputs=dict(featuriser(spec.features, spec.source).signature), network=spec.student.network_of(variant),
        variant=variant.name, snapshots=(), teacher="t@1", parent=None, code="0",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        work = Work(
            spec=spec,
            card=card,
            data=data,
            objective=spec.student.objective_of(spec.student.variants[0], spec.task),
            epochs=spec.student.epochs_of(len(data)),
            start=None,
            checkpoint=f"file://{folder}/c.pt",
            seed=seed,
        )
        net = fit(work, "run", f"file://{folder}/ray").net
    found = answers(net, encoded(spec, [t.encode() for t, _ in test])).argmax(1).tolist()
    return float(np.mean([classes[i] == c for i, (_, c) in zip(found, test, strict=True)]))


def main():
    if not DATA.is_dir():
        sys.stdout.write(
            f"skipped: no CLINC150 at {DATA}; name the folder that holds clinc150/ in COHOBATE_BENCH_DATA\n"
        )
        return
    content = json.loads((DATA / "data_full.json").read_text())
    example = load_spec(EXAMPLE)
    spec = msgspec.structs.replace(example, payload=Payload(decoder="text"))
    found = {}
    for seed in range(SEEDS):
        train = content["train"][:]
        random.Random(seed).shuffle(train)
        train, test = train[:ROWS], content["test"]
        for c in (1.0, 10.0):
            found.setdefault(f"TF-IDF, logistic regression, C={c:g}", []).append(logistic_regression(train, test, c))
        for variant in (NARROW, *spec.student.variants):
            name = f"{variant.name} ({variant.dim}, {variant.hidden})"
            found.setdefault(name, []).append(student(spec, variant, train, test, seed))
    for name, values in found.items():
        print(f"{name:40} {np.mean(values):.3f}  ({min(values):.3f} to {max(values):.3f})")


if __name__ == "__main__":
    main()
