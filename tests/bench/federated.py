"""Federated distillation against pooled: four sites that share no inputs, one of them shifted, on CLINC150.

MiniLM labels 2,000 inputs of each site, so that all have as many teacher calls as the pooled student, which learns from
all 8,000. Three sites see all ten domains; the fourth sees three of them alone, and knows next to nothing of others
(what its teacher takes for them). 7,000 other inputs are public, 3,000 of them those that the teacher's head was fitted
on: no teacher is asked about them, they are labelled by what the sites' students say, by the whole of the product's
way: signed files, the recorded mixture, the teacher, an update. Students are bags of n-grams; all are judged on the
4,500 test rows against the truth. Once the task is to tell the ten domains apart, once the 150 intents. What is set
here was chosen on the 3,000 validation rows, with other seeds.

FedDF: one student learns the sites' ``log_mean``. FedMD: it learns their ``mean``, and each site goes on from it on its
own rows, to a student of its own, which answers the public inputs in the next round. No round asks a teacher.
A byzantine site answers with its classes shuffled; ``public`` is what the mixture itself has right of public inputs.
In private the sites' students are trained by DP-SGD; what they answer, to 4,000 public inputs of the traffic alone,
costs nothing more, and the pooled student beside it has the same epsilon. ``COHOBATE_BENCH_DATA`` names the folder that
holds ``clinc150/``; ``COHOBATE_BENCH_SEEDS`` and ``COHOBATE_BENCH_ARMS`` (a list of tasks: domains, intents) make a
shorter run.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
from securesystemslib.signer import CryptoSigner

from components.contracts.records import Input, Label, SoftLabel, label_key
from components.contracts.spec import Export, Factory, Privacy, Student, Variant
from components.contracts.storage import digest_of, get_bytes, put_bytes
from components.control.intent import ModelRef
from components.control.tables import WindowRow
from components.distill.train import distill
from components.federation.agreement import Agreement, Site
from components.federation.exchange import Said, row_id, set_digest, write
from components.federation.rounds import mixed
from components.snapshot.table import parquet_bytes, snapshot_table
from components.student.runtime import Student as Served
from components.teachers.contract import reference
from components.teachers.federation import Federation
from tests.bench.students import DATA, Bench, spread
from tests.keys import keys

SEEDS = int(os.environ.get("COHOBATE_BENCH_SEEDS", "5"))
TASKS = os.environ.get("COHOBATE_BENCH_ARMS", "domains,intents").split(",")
SITES = ("north", "east", "south", "shifted")
ROWS, PUBLIC, SEEN, DELTA = 2_000, 4_000, 3, 1e-5
"""Labelled inputs of a site, public ones of the traffic, and the domains that the shifted site sees."""

PLAIN = {"holdout": "fixed", "calibration": "apart", "epochs": 40, "learning_rate": 0.01}
PRIVATE = {
    "near_duplicate": None, "holdout": "fixed", "calibration": "apart", "calibration_share": 0.0,
    "export": Export(serve="float32"), "batch_size": 256, "epochs": 20, "learning_rate": 0.05,
}  # fmt: skip
MIXED = {**PLAIN, "temperature": 1.0}
"""Of students of a mixture, which is soft enough as it is."""

ROUNDS, SHORT = 6, {"epochs": 12}
"""Rounds of FedMD, and what an update of a later one has otherwise: it begins from the last round's student."""

BUCKETS, WIDE, SMALL = 8_192, Variant(name="wide", dim=32, hidden=64), Variant(name="small", dim=16, hidden=64)
"""In private noise is added to every weight, so that fewer of them cost less."""

EPSILONS = (8.0, 3.0)


class Task:
    """A way to name the classes of CLINC150: its rows as (text, what the teacher says), the truth beside the test's."""

    def __init__(self, bench, name, folder):
        self.folder, self.name = folder, name
        domains = json.loads((DATA / "domains.json").read_text())
        self.domain = {intent: domain for domain, intents in domains.items() for intent in intents}
        self.named = named = self.domain if name == "domains" else {intent: intent for intent in self.domain}
        self.classes = tuple(sorted(set(named.values())))
        self.space = f"clinc150-{name}@1"
        soft = [self._merged(s, named) for s in bench.soft]
        self.traffic = [(text, intent, s) for (text, intent), s in zip(bench.traffic, soft, strict=False)]
        self.gold = [(text, named[intent]) for text, intent in bench.gold]
        self.test, self.truth = [t for t, _ in bench.test], [named[c] for _, c in bench.test]
        self.taught = [s.label for s in soft[len(bench.traffic) :]]
        features = Factory(factory="components.student.text:TextNgrams", options={"buckets": BUCKETS})
        self.spec = msgspec.structs.replace(bench.spec, name=f"clinc150-{name}", features=features)
        self.who = reference(bench.teacher)

    def _merged(self, soft, named):
        shares = dict.fromkeys(self.classes, 0.0)
        for intent, share in soft.distribution.items():
            shares[named[intent]] += share
        return SoftLabel.of(self.space, self.classes, list(shares.values()))

    def parted(self, seed):
        """Rows of each site, and the public ones; the shifted site's domains are others in every seed."""
        chance = np.random.default_rng(seed)
        order = [self.traffic[i] for i in chance.permutation(len(self.traffic))]
        seen = set(chance.permutation(sorted(set(self.domain.values())))[:SEEN].tolist())
        mine = [row for row in order if self.domain[row[1]] in seen][:ROWS]
        taken = {id(row) for row in mine}
        rest = [row for row in order if id(row) not in taken]
        rest = [rest[i] for i in chance.permutation(len(rest))]
        parts = {name: rest[i * ROWS : (i + 1) * ROWS] for i, name in enumerate(SITES[:-1])}
        return {**parts, "shifted": mine}, rest[3 * ROWS : 3 * ROWS + PUBLIC]

    def window(self, rows, who):
        """The window that the snapshot step would freeze, of (text, soft label)."""
        labels = []
        for i, (text, soft) in enumerate(rows):
            entry = Input(workload=self.spec.name, id=f"i{i}", key="k", time=1.7e9 + i, payload=text.encode())
            key = label_key(entry, who, self.space)
            labels.append(Label(key=key, teacher=who, soft=soft, input=entry, labelled_at=1.7e9))
        data = parquet_bytes(snapshot_table(labels, {}, self.spec.student.holdout_share))
        uri = f"{self.folder}/{digest_of(data)}.parquet"
        put_bytes(uri, data)
        return WindowRow(
            digest=digest_of(data), workload=self.spec.name, number=1, uri=uri, rows=len(rows), created_at=0.0,
            manifest={"teacher": who, "space": self.space},
        )  # fmt: skip

    def student(self, rows, seed, section, variant=WIDE, parent=None, who=None):
        """An update on rows, as it is registered, and as it serves."""
        spec = msgspec.structs.replace(self.spec, student=Student(variants=(variant,), **section))
        window = self.window(rows, who or self.who)
        done = distill(
            spec, [window], variant=variant, parent=parent, artifacts=self.folder, seed=seed, secret=seed
        )  # fmt: skip
        ref = ModelRef(version="1", uri=done.uri, digest=done.digest, snapshot=window.digest, teacher=who or self.who)
        return ref, Served.load(get_bytes(done.uri))

    def own(self, rows, seed, section, variant=WIDE, parent=None):
        """A student of rows that the teacher labelled."""
        return self.student([(t, s) for t, _, s in rows], seed, section, variant, parent)

    def right(self, served):
        """Accuracy on the test."""
        said = served.predict([t.encode() for t in self.test])
        return sum(s.label == c for s, c in zip(said, self.truth, strict=True)) / len(said)


class Federated:
    """Rounds of one seed, by the files that sites would hand on; ``gold``: the head's inputs are public, too."""

    def __init__(self, task, folder, seed, gold=True):
        self.task, self.seed, self.folder = task, seed, Path(folder)
        self.rows, public = task.parted(seed)
        given = [(text, task.named[intent]) for text, intent, _ in public] + (task.gold if gold else [])
        self.public, self.named = [text for text, _ in given], [name for _, name in given]
        self.made = {name: keys(self.folder, name) for name in SITES}

    def mixture(self, served, rule, number, byzantine=None, most_distance=None):
        """The teacher of a round, from the answers of each site's student."""
        ids = {row_id(text): text for text in self.public}
        agreement = Agreement(
            name="bench", space=self.task.space, classes=self.task.classes, rule=rule, min_sites=2,
            most_distance=most_distance, sites={name: Site(key=str(self.made[name][1])) for name in SITES},
        )  # fmt: skip
        files = {}
        for name, one in served.items():
            soft = [s.distribution for s in one.predict([t.encode() for t in ids.values()])]
            if name == byzantine:
                known = one.card.classes
                swap = dict(zip(known, (*known[1:], known[0]), strict=True))
                soft = [{swap[c]: p for c, p in s.items()} for s in soft]
            said = Said(
                federation="bench", site=name, round=number, space=self.task.space, classes=one.card.classes,
                public=set_digest(ids), student=one.digest,
            )  # fmt: skip
            files[name] = write(said, dict(zip(ids, soft, strict=True)), _signer(self.made[name][0])).data
        done = mixed(agreement, number, ids, files)
        place = self.folder / f"{digest_of(done.data)}.jsonl"
        place.write_bytes(done.data)
        return Federation(str(place))

    def right(self, teacher):
        """Accuracy of a mixture on the public inputs."""
        said = teacher.label(self.public)
        return sum(s.label == c for s, c in zip(said, self.named, strict=True)) / len(said)

    def learnt(self, teacher, section, parent=None):
        """The student of a mixture."""
        rows = list(zip(self.public, teacher.label(self.public), strict=True))
        return self.task.student(rows, self.seed, section, parent=parent, who=reference(teacher))


def _signer(path):
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return CryptoSigner(load_pem_private_key(path.read_bytes(), None))


def apart(task, fed):
    """The students of the sites' own rows, as they are registered and as they serve, by site."""
    return {name: task.own(rows, fed.seed, PLAIN) for name, rows in fed.rows.items()}


def pooled(task, fed):
    """Accuracy of the student that learns from the rows of all sites."""
    return task.right(task.own([row for rows in fed.rows.values() for row in rows], fed.seed, PLAIN)[1])


def rounds(task, fed, sites):
    """Accuracy by arm, of rounds that begin with these students of the sites."""
    found, served = {}, {name: one for name, (_, one) in sites.items()}
    alone = {name: task.right(one) for name, one in served.items()}
    found["a site alone, mean of the three"] = np.mean([alone[n] for n in SITES[:-1]])
    found["the shifted site alone"] = alone["shifted"]
    found["FedDF, one student"] = task.right(fed.learnt(fed.mixture(served, "log_mean", 1), MIXED)[1])
    parent, student = fed.learnt(fed.mixture(served, "mean", 1), MIXED)
    found["FedMD, one student"] = task.right(student)
    for number in range(2, ROUNDS + 1):
        served = {n: task.own(rows, fed.seed, {**PLAIN, **SHORT}, parent=parent)[1] for n, rows in fed.rows.items()}
        scores = {name: task.right(one) for name, one in served.items()}
        parent, student = fed.learnt(fed.mixture(served, "mean", number), {**MIXED, **SHORT}, parent=parent)
        found[f"FedMD, one student, round {number}"] = task.right(student)
    found["the three sites' own of the last round, mean"] = np.mean([scores[n] for n in SITES[:-1]])
    found["the shifted site's own of it"] = scores["shifted"]
    return found


def robust(fed, served):
    """What mixtures have right of the public inputs, with a byzantine site and without, and the sites' distances."""
    found, away = {}, {}
    for rule, limit in (("mean", None), ("geometric_median", None), ("mean", 0.5)):
        honest, teacher = (fed.mixture(served, rule, 1, who, limit) for who in (None, "south"))
        name = f"public, {rule}" + (f", most_distance {limit}" if limit else "")
        found[name], found[f"{name}, a byzantine site"] = fed.right(honest), fed.right(teacher)
        away = {name: part.distance for name, part in teacher.sites.items()} if limit is None else away
    return found, away


def private(task, fed):
    """Accuracy by arm of students that learn in private."""
    found, pool = {}, [row for rows in fed.rows.values() for row in rows]
    for epsilon in EPSILONS:
        section = {**PRIVATE, "privacy": Privacy(epsilon=epsilon, delta=DELTA)}
        found[f"epsilon {epsilon:g}, pooled"] = task.right(task.own(pool, fed.seed, section, SMALL)[1])
        made = {n: task.own(rows, fed.seed, section, SMALL)[1] for n, rows in fed.rows.items()}
        for method, rule in (("FedMD", "mean"), ("FedDF", "log_mean")):
            found[f"epsilon {epsilon:g}, {method}, one student"] = task.right(
                fed.learnt(fed.mixture(made, rule, 1), PLAIN)[1]
            )
    return found


def measured(task, seed, folder):
    """Accuracy by arm, and the sites' distances by what they are called."""
    fed = Federated(task, folder, seed)
    sites = apart(task, fed)
    told, away = robust(fed, {name: one for name, (_, one) in sites.items()})
    hidden = private(task, Federated(task, folder, seed, gold=False))
    return {"pooled, 8,000 labels": pooled(task, fed), **rounds(task, fed, sites), **told, **hidden}, away


def main():
    if not DATA.is_dir():
        sys.stdout.write(
            f"skipped: no CLINC150 at {DATA}; name the folder that holds clinc150/ in COHOBATE_BENCH_DATA\n"
        )
        return
    for name in TASKS:
        with tempfile.TemporaryDirectory() as folder:
            task = Task(Bench(f"file://{folder}"), name, f"file://{folder}")
            top = sum(a == b for a, b in zip(task.taught, task.truth, strict=True)) / len(task.truth)
            print(
                f"{name}: teacher {100 * top:.1f} %; {SEEDS} seeds, accuracy in %, mean and 95 % interval", flush=True
            )
            runs, aways = [], []
            for seed in range(SEEDS):
                began = time.perf_counter()
                found, away = measured(task, seed, folder)
                runs.append(found)
                aways.append(away)
                shown = ", ".join(f"{arm} {100 * value:.1f}" for arm, value in found.items())
                print(f"  seed {seed}, {time.perf_counter() - began:.0f} s: {shown}", flush=True)
            pooled = next(iter(runs[0]))
            for arm in runs[0]:
                gaps = [run[arm] - run[pooled] for run in runs]
                print(f"  {arm:44}{spread([r[arm] for r in runs]):>14}   against pooled {spread(gaps):>14}", flush=True)
            for site in SITES:
                of = [a[site] for a in aways]
                told = "byzantine" if site == "south" else site
                print(f"  distance of {told}: {min(of):.3f} to {max(of):.3f}", flush=True)


if __name__ == "__main__":
    main()
