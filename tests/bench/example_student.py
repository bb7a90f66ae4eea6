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
from pathlib import Path

import msgspec
import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from components.contracts.records import SoftLabel
from components.contracts.spec import Payload, Variant, build, load_spec
from components.distill.data import Rows, arrays
from components.distill.loop import Progress, Work, _epoch, _loader, _network
from components.student.card import StudentCard

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
        buckets=build(spec.features, spec.source).buckets, dim=variant.dim, hidden=variant.hidden,
        variant=variant.name, snapshots=(), teacher="t@1", parent=None, code="0",
    )  # fmt: skip
    work = Work(spec=spec, card=card, data=data, start=None, checkpoint="", seed=seed)
    net = _network(work)
    optimiser = torch.optim.Adam(net.parameters(), lr=spec.student.learning_rate, fused=True)
    loader = _loader(work, 1, 0, torch.Generator().manual_seed(seed))
    progress = Progress(epoch=0, step=0, history=[])
    for _ in range(spec.student.epochs):
        _epoch(work, net, optimiser, loader, progress)
    ids, weights = build(spec.features, spec.source).encode([t for t, _ in test])
    with torch.no_grad():
        found = net(torch.tensor(ids), torch.tensor(weights)).argmax(1).tolist()
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
