"""What the label policies are worth: agreement for a share of the labels, and how true estimates over labels are.

CLINC150 (150 intents and what fits none) as traffic whose intents have Zipf's frequencies. The teacher is a linear
model; the student is the project's network, trained anew after every window on all labels so far, and scores the next
window. ``COHOBATE_BENCH_DATA`` names the folder that holds ``clinc150/``.
"""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from components.contracts.records import Input, SoftLabel
from components.contracts.sampling import bucket
from components.contracts.spec import Factory, Label, Policy, Serve, Spec
from components.contracts.spec.objective import Kl
from components.distill.networks.bag import BagOfFeatures
from components.distill.terms import Objective, Said, Taught
from components.query.policies import UNCERTAINTY, decide
from components.query.selector import Selector
from components.student.features import bag_signature
from components.student.text import TextNgrams
from drift.quality import weighted_proportion
from drift.reweight import hajek

DATA = Path(os.environ.get("COHOBATE_BENCH_DATA", Path(__file__).parents[3] / "shared" / "data")) / "clinc150"
SHARES = (0.1, 0.2, 0.4)
KINDS = ("random", "margin", "entropy", "committee")
SEEDS = 5
WINDOWS, WINDOW, BATCH = 4, 1_200, 32
JUDGED = 3_000
DRAWS = 400
SKEW = 0.7
SPACE = "clinc@1"

torch.set_num_threads(1)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Texts with their features and the teacher's distributions (N, C)."""

    texts: list[str]
    ids: np.ndarray
    weights: np.ndarray
    soft: np.ndarray

    def take(self, rows):
        return Pool(
            texts=[self.texts[i] for i in rows], ids=self.ids[rows], weights=self.weights[rows], soft=self.soft[rows]
        )


def load():
    """What streams by and what is judged on, with intents by class index, and the class names."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_union

    raw = json.loads((DATA / "data_full.json").read_text())
    rows = {part: raw[part] + raw[f"oos_{part}"] for part in ("train", "val", "test")}
    texts = {part: [text for text, _ in rows[part]] for part in rows}
    names = sorted({intent for _, intent in rows["train"]})
    place = {name: i for i, name in enumerate(names)}
    intents = {part: np.array([place[intent] for _, intent in rows[part]]) for part in rows}
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4), sublinear_tf=True),
    )
    known = features.fit_transform(texts["train"] + texts["val"])
    teacher = SGDClassifier(loss="log_loss", alpha=3e-6, max_iter=20, tol=None, random_state=0)
    teacher.fit(known, np.concatenate([intents["train"], intents["val"]]))
    encoder = TextNgrams(buckets=8_192)
    made = {}
    for part in ("train", "test"):
        ids, weights = encoder.encode(texts[part])
        soft = teacher.predict_proba(features.transform(texts[part]))
        made[part] = Pool(texts=texts[part], ids=ids, weights=weights, soft=soft)
    right = (made["test"].soft.argmax(1) == intents["test"]).mean()
    print(f"teacher: accuracy {right:.3f} on {len(texts['test'])} inputs of {len(names)} classes")
    return made["train"], intents["train"], made["test"], intents["test"], tuple(names)


def traffic(pool, intents, n, chance):
    """``n`` different inputs; intents have Zipf's frequencies, in one order for all seeds."""
    order = np.random.default_rng(0).permutation(intents.max() + 1)
    odds = (1.0 / (1 + np.argsort(order)) ** SKEW)[intents]
    return pool.take(chance.choice(len(intents), n, replace=False, p=odds / odds.sum()))


def train(pool, classes, seed, epochs=12, rate=0.005):
    torch.manual_seed(seed)
    net = BagOfFeatures(task="classification", inputs=bag_signature(8_192), outputs=len(classes), dim=32, hidden=96)
    optimiser = torch.optim.Adam(net.parameters(), lr=rate, fused=True)
    ids, weights = torch.from_numpy(pool.ids), torch.from_numpy(pool.weights)
    soft = torch.from_numpy(pool.soft.astype(np.float32))
    objective = Objective((Kl(),), "classification")
    steps = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * -(-len(pool.texts) // 64), rate * 0.05)
    for _ in range(epochs):
        for rows in torch.randperm(len(pool.texts)).split(64):
            logits = net(ids[rows], weights[rows])
            loss, _ = objective(Said(logits=logits), Taught(soft=soft[rows]), 0.0)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            steps.step()
    return net


def answers(net, pool):
    with torch.no_grad():
        return torch.softmax(net(torch.from_numpy(pool.ids), torch.from_numpy(pool.weights)), dim=1).double().numpy()


def soft_labels(shares, classes):
    return [SoftLabel.of(SPACE, classes, row) for row in (shares / shares.sum(1, keepdims=True)).tolist()]


def agreement(net, pool):
    return float((answers(net, pool).argmax(1) == pool.soft.argmax(1)).mean())


def selector(kind, share, seed):
    spec = Spec(
        name="clinc", teacher=Factory(factory="t:T"), features=Factory(factory="f:F"), seed=seed,
        serve=Serve(audit_share=0.0),
        label=Label(audit_share=0.0, policy=Policy(kind=kind, share=share)),
    )  # fmt: skip
    return Selector(spec)


def follow(kind, share, seed, stream, classes):
    """Label ``share`` of a stream window by window; the last student, and how many labels it took."""
    chosen, nets, select = [], [], selector(kind, share, seed)
    for first in range(0, len(stream.texts), WINDOW):
        window = list(range(first, first + WINDOW))
        members = [soft_labels(answers(net, stream.take(window)), classes) for net in reversed(nets[-3:])]
        if kind in UNCERTAINTY and kind != "committee":
            members = members[:1]
        for start in range(0, WINDOW, BATCH):
            rows = window[start : start + BATCH]
            inputs = [Input(workload="clinc", id=f"{seed}-{i}", key="k", time=1.0, payload=b"x") for i in rows]
            scores = [member[start : start + BATCH] for member in members] or None
            decisions = select.choose(inputs, scores).decisions
            chosen += [i for i, d in zip(rows, decisions, strict=True) if d.label]
        last = first + WINDOW >= len(stream.texts)
        if last or kind in UNCERTAINTY:
            nets.append(train(stream.take(chosen), classes, seed))
    return nets[-1], len(chosen)


def interval(values):
    """The mean and half the width of its 95 % interval by Student's t."""
    spread = np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values)), float(stats.t.ppf(0.975, len(values) - 1) * spread)


def compare(train_pool, intents, test_pool, test_intents, classes):
    """Agreement with the teacher by policy and share; every seed has its own traffic, which the policies share."""
    print(f"\nagreement with the teacher, {SEEDS} seeds, {WINDOWS} windows of {WINDOW}; +-: 95 % interval of the mean")
    print(f"{'labels':>7} {'policy':10} {'drawn':>6} {'agreement':>18} {'less random, paired':>22}")
    keep = None
    for share in SHARES:
        found = {kind: [] for kind in KINDS}
        drawn = {kind: [] for kind in KINDS}
        for seed in range(SEEDS):
            chance = np.random.default_rng(seed)
            stream = traffic(train_pool, intents, WINDOWS * WINDOW, chance)
            judged = traffic(test_pool, test_intents, JUDGED, chance)
            for kind in KINDS:
                net, labels = follow(kind, share, seed, stream, classes)
                found[kind].append(agreement(net, judged))
                drawn[kind].append(labels)
                keep = keep or (net, judged)
        for kind in KINDS:
            mean, half = interval(found[kind])
            gain, wide = interval(np.subtract(found[kind], found["random"]))
            versus = f"{gain:+.4f} +- {wide:.4f}" if kind != "random" else ""
            taken = int(np.mean(drawn[kind]))
            print(f"{share:7.0%} {kind:10} {taken:6} {mean:8.4f} +- {half:.4f} {versus:>22}", flush=True)
    return keep


def estimate(net, pool, classes):
    """Agreement estimated from the labels that a policy drew, against that over all inputs."""
    shares = answers(net, pool)
    right = (shares.argmax(1) == pool.soft.argmax(1)).astype(float)
    blurred = shares * 0.7 + 0.3 * np.roll(shares, 1, axis=0)  # another mind: where the first is unsure, it votes else
    scores = [soft_labels(shares, classes), soft_labels(blurred, classes)]
    ids = [f"i{k}" for k in range(len(right))]
    print(f"\nagreement of one student on {len(right)} inputs is {right.mean():.4f}; estimates over {DRAWS} draws")
    print(
        f"{'labels':>7} {'policy':10} {'plain bias':>11} {'weighted bias':>20} {'coverage':>9} {'of t':>6} {'width':>7}"
    )
    for share in SHARES[:2]:
        for kind in KINDS:
            decisions = decide(Policy(kind=kind, share=share), ids, scores, float("inf"), 0)
            chances = np.array([d.probability for d in decisions])
            plain, weighted, covered, by_t, width = [], [], 0, 0, []
            for seed in range(DRAWS):
                drawn = np.array([bucket("", f"label {seed}", name) for name in ids]) < chances
                kept, weights = right[drawn], 1.0 / chances[drawn]
                part = weighted_proportion((kept > 0).tolist(), weights.tolist())
                mean = hajek(kept, chances[drawn])
                plain.append(kept.mean() - right.mean())
                weighted.append(part.value - right.mean())
                covered += part.lower <= right.mean() <= part.upper
                by_t += mean.lower <= right.mean() <= mean.upper
                width.append(part.upper - part.lower)
            bias, half = interval(weighted)
            print(
                f"{share:7.0%} {kind:10} {np.mean(plain):+11.4f} {bias:+11.4f} +- {half:.4f}"
                f" {covered / DRAWS:9.1%} {by_t / DRAWS:6.1%} {np.mean(width):7.4f}",
                flush=True,
            )


def main() -> None:
    if not DATA.is_dir():
        sys.stdout.write(
            f"skipped: no CLINC150 at {DATA}; name the folder that holds clinc150/ in COHOBATE_BENCH_DATA\n"
        )
        return
    started = time.perf_counter()
    train_pool, intents, test_pool, test_intents, classes = load()
    net, judged = compare(train_pool, intents, test_pool, test_intents, classes)
    estimate(net, judged, classes)
    print(f"\n{time.perf_counter() - started:.0f} s")
