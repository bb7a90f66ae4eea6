"""Real inputs with truth and a teacher's labels, and small students of it, for the benchmarks of the gate."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch

from components.contracts.errors import CohobateError
from components.contracts.settings import Settings
from components.contracts.spec import Spec, build, load_spec
from components.contracts.spec.objective import Kl, Truth
from components.distill.networks.bag import BagOfFeatures
from components.distill.terms import Objective, Said, Taught
from components.student.bytes import ByteNgrams
from components.student.features import bag_signature
from components.student.text import TextNgrams

DATA = "COHOBATE_BENCH_DATA"
"""The environment's name of the folder that holds ``clinc150/data_full.json`` and ``clinc150/domains.json``."""

DIM, HIDDEN, BUCKETS = 24, 64, 8_192
MAILS = 1_800

torch.set_num_threads(1)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Inputs in the order of their arrival: features, truths and teacher's labels by class index, and the phase."""

    name: str
    classes: tuple[str, ...]
    ids: np.ndarray
    weights: np.ndarray
    soft: np.ndarray
    truth: np.ndarray
    phase: np.ndarray

    def __len__(self):
        return len(self.truth)

    def take(self, rows):
        parts = {n: getattr(self, n)[rows] for n in ("ids", "weights", "soft", "truth", "phase")}
        return Pool(name=self.name, classes=self.classes, **parts)

    @property
    def teacher(self):
        return self.soft.argmax(1)


def pools(*, names: Sequence[str] = ("clinc150", "files", "mail")) -> list[Pool]:
    """The pools that can be had here; says why one is left out."""
    found = []
    for name in names:
        try:
            found.append({"clinc150": clinc, "files": files, "mail": mail}[name]())
        except (CohobateError, ImportError, OSError) as error:
            print(f"without {name}: {error}")
    if not found:
        raise SystemExit("no data: a benchmark that measured nothing has shown nothing")
    return found


def _pool(name, encoder, payloads, soft_labels, truths, phase):
    classes = tuple(sorted({c for s in soft_labels for c in s} | set(truths)))
    place = {c: i for i, c in enumerate(classes)}
    soft = np.zeros((len(truths), len(classes)))
    for row, label in zip(soft, soft_labels, strict=True):
        for c, p in label.items():
            row[place[c]] = p
    ids, weights = encoder.encode(payloads)
    return Pool(
        name=name, classes=classes, ids=ids, weights=weights, soft=soft / soft.sum(1, keepdims=True),
        truth=np.array([place[t] for t in truths]), phase=np.array(phase),
    )  # fmt: skip


def _labelled(name, teacher, payloads, key):
    """The teacher's distributions, kept for the next run."""
    digest = hashlib.sha256(repr((name, key, len(payloads))).encode()).hexdigest()[:12]
    kept = Settings().cache / f"bench-{name}-{digest}.msgpack"
    if kept.is_file():
        return msgspec.msgpack.decode(kept.read_bytes())
    made = []
    for first in range(0, len(payloads), 32):
        made += [dict(s.distribution) for s in teacher().label(payloads[first : first + 32])]
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(msgspec.msgpack.encode(made))
    return made


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Inputs in the order of their arrival, with the teacher's distributions, truths, and phases, under a spec."""

    spec: Spec
    payloads: list[bytes]
    soft: list[dict[str, float]]
    truths: list[str]
    phases: list[int]


def labelled_files() -> Labelled:
    from infra.workloads import files as workload

    source = workload.source(seed=0)
    spec = load_spec(source.spec)
    runs = [source.history, *(phase.items for phase in source.phases)]
    items = [(i, item) for i, run in enumerate(runs) for item in run]
    loaded = []

    def teacher():
        loaded.append(build(spec.teacher, spec.source)) if not loaded else None
        return loaded[0]

    soft = _labelled("files", teacher, [item.payload for _, item in items], [item.id for _, item in items])
    return Labelled(
        spec=spec, payloads=[x.payload for _, x in items], soft=soft, truths=[x.truth for _, x in items],
        phases=[max(0, i - 1) for i, _ in items],
    )  # fmt: skip


def files() -> Pool:
    found = labelled_files()
    return _pool("files", ByteNgrams(head=512, buckets=BUCKETS), found.payloads, found.soft, found.truths, found.phases)


def labelled_mail() -> Labelled:
    from infra.workloads import mail as workload

    settings = Settings()
    stream = workload.prepare(settings.cache).stream
    kept = [stream[i * len(stream) // MAILS] for i in range(MAILS)]
    texts = [m.text for m in kept]
    loaded = []

    def teacher():
        loaded.append(workload.teacher()) if not loaded else None
        return loaded[0]

    soft = _labelled("mail", teacher, texts, texts)
    spec = load_spec(Path(workload.__file__).with_name("mail.yaml"))
    return Labelled(
        spec=spec, payloads=[t.encode() for t in texts], soft=soft, truths=[m.truth for m in kept],
        phases=[4 * i // MAILS for i in range(MAILS)],
    )  # fmt: skip


def mail() -> Pool:
    found, encoder = labelled_mail(), TextNgrams(buckets=BUCKETS, head=2_000)
    return _pool("mail", encoder, [p.decode() for p in found.payloads], found.soft, found.truths, found.phases)


def clinc() -> Pool:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier

    if DATA not in os.environ:
        raise FileNotFoundError(f"{DATA} names no folder")
    folder = Path(os.environ[DATA]) / "clinc150"
    raw = json.loads((folder / "data_full.json").read_text())
    domains = {i: d for d, names in json.loads((folder / "domains.json").read_text()).items() for i in names}
    rows = {part: [(t, domains[i]) for t, i in raw[part] if i in domains] for part in ("train", "val", "test")}
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    fitted = vectors.fit_transform([t for t, _ in rows["val"]])
    teacher = SGDClassifier(loss="log_loss", alpha=1e-5, max_iter=20, tol=None, random_state=0)
    teacher.fit(fitted, [d for _, d in rows["val"]])
    traffic = rows["train"] + rows["test"]
    order = np.random.default_rng(0).permutation(len(traffic))[:8_000]
    texts, truths = [traffic[i][0] for i in order], [traffic[i][1] for i in order]
    shares = teacher.predict_proba(vectors.transform(texts))
    soft = [dict(zip(teacher.classes_.tolist(), row.tolist(), strict=True)) for row in shares]
    return _pool("clinc150", TextNgrams(buckets=BUCKETS), texts, soft, truths, [0] * len(texts))


def train(pool: Pool, seed: int, *, epochs: int = 8, rate: float = 0.01, by_truth: bool = False) -> BagOfFeatures:
    """The project's network, distilled from the teacher (or taught by truth alone)."""
    torch.manual_seed(seed)
    net = BagOfFeatures(
        task="classification", inputs=bag_signature(BUCKETS), outputs=len(pool.classes), dim=DIM, hidden=HIDDEN
    )
    optimiser = torch.optim.Adam(net.parameters(), lr=rate, fused=True)
    ids, weights = torch.from_numpy(pool.ids), torch.from_numpy(pool.weights)
    soft, truth = torch.from_numpy(pool.soft.astype(np.float32)), torch.from_numpy(pool.truth)
    objective = Objective((Truth() if by_truth else Kl(),), "classification")
    for _ in range(epochs):
        for rows in torch.randperm(len(pool)).split(64):
            logits = net(ids[rows], weights[rows])
            loss, _ = objective(Said(logits=logits), Taught(soft=soft[rows], truth=truth[rows]), 0.0)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    return net


def answers(net: BagOfFeatures, pool: Pool) -> np.ndarray:
    """Probabilities (N, C)."""
    with torch.no_grad():
        logits = net(torch.from_numpy(pool.ids), torch.from_numpy(pool.weights))
        return torch.softmax(logits, dim=1).double().numpy()
