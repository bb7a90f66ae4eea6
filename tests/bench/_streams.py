"""Streams of real inputs whose kind changes, with a teacher's answers, for the benchmark of whole platforms.

The teacher is asked once about every input; its answers are kept in the cache (``COHOBATE_CACHE``). A seed draws which
inputs come and in what order, so that streams of two seeds differ in all but their kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from components.contracts.records import SoftLabel, content_hash
from components.contracts.settings import Settings
from components.contracts.spec import Factory, Payload
from components.contracts.storage import digest_of
from components.student.bytes import ByteNgrams
from components.teachers.minilm import MiniLM
from infra.workloads.files import PHASES
from tests.bench._pools import Labelled, labelled_files, labelled_mail

HISTORY, LENGTH = 300, 1_400
DIM = 384
"""Numbers of an embedding: MiniLM's, or a fixed random projection of a file's byte n-grams."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Inputs with the teacher's answers and truths, each of a kind; ``embeddings`` (N, DIM) are for those who want."""

    payload: Payload
    features: Factory
    classes: tuple[str, ...]
    payloads: Sequence[bytes]
    soft: Sequence[SoftLabel]
    truths: Sequence[str]
    kinds: np.ndarray
    embeddings: np.ndarray

    def of(self, *kinds: str) -> np.ndarray:
        """The places of inputs of these kinds."""
        return np.flatnonzero(np.isin(self.kinds, kinds))


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A history, and then inputs, as places in a pool; ``switches``: where in ``rows`` another kind begins.

    ``after``: for each switch the inputs that are like those behind it, on which a student is judged.
    """

    name: str
    pool: Pool
    history: np.ndarray
    rows: np.ndarray
    switches: tuple[int, ...]
    after: tuple[np.ndarray, ...]

    @property
    def teacher(self) -> Recorded:
        """Who answers from memory what the teacher answered."""
        return Recorded(self.pool)

    def head(self, length: int) -> Stream:
        """The first inputs of it."""
        kept = sum(s < length for s in self.switches)
        return Stream(
            name=self.name, pool=self.pool, history=self.history, rows=self.rows[:length],
            switches=self.switches[:kept], after=self.after[:kept],
        )  # fmt: skip


class Recorded:
    """The teacher's answers by content."""

    name = "recorded"
    task = "classification"
    size_bytes = 1

    def __init__(self, pool: Pool) -> None:
        self.space = pool.soft[0].space
        self.classes = pool.classes
        self.digest = digest_of(repr((self.space, self.classes, len(pool.payloads))).encode())
        self._answers = dict(zip(map(content_hash, pool.payloads), pool.soft, strict=True))

    def label(self, payloads: Sequence[bytes | str]) -> list[SoftLabel]:
        """What it answered to each."""
        raw = [p.encode() if isinstance(p, str) else p for p in payloads]
        return [self._answers[content_hash(p)] for p in raw]


def _pool(found: Labelled, kinds: Sequence[str], embeddings: np.ndarray, features: Factory) -> Pool:
    classes = tuple(sorted({c for d in found.soft for c in d}))
    space = f"{found.spec.name}@bench"
    made = [SoftLabel.of(space, classes, _whole([d.get(c, 0.0) for c in classes])) for d in found.soft]
    return Pool(
        payload=found.spec.payload, features=features, classes=classes, payloads=found.payloads,
        soft=made, truths=found.truths, kinds=np.array(kinds), embeddings=embeddings,
    )  # fmt: skip


def _whole(shares: Sequence[float]) -> list[float]:
    total = sum(shares)
    return [s / total for s in shares]


@cache
def files_pool() -> Pool:
    """Real files and Magika."""
    found = labelled_files()
    names = list(PHASES)
    ids, weights = ByteNgrams(head=512, buckets=32_768).encode(found.payloads)
    projection = np.random.default_rng(0).normal(size=(32_768, DIM)).astype(np.float32)
    rows = np.stack([w @ projection[i] for i, w in zip(ids, weights, strict=True)])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return _pool(found, [names[p] for p in found.phases], rows, found.spec.features)


@cache
def mail_pool() -> Pool:
    """The mails of 2002, by quarters of the corpus in time, and MiniLM."""
    found = labelled_mail()
    kept = Settings().cache / f"bench-streams-mail-{len(found.payloads)}.npy"
    if not kept.is_file():
        np.save(kept, MiniLM(64).embed([p.decode() for p in found.payloads]))
    features = Factory(factory="components.student.text:TextNgrams", options={"buckets": 16_384, "head": 1_000})
    return _pool(found, [f"quarter {p + 1}" for p in found.phases], np.load(kept), features)


@cache
def clinc_pool() -> Pool:
    """CLINC150's requests, by domain, and MiniLM with a head of its own."""
    from tests.bench import students

    bench = students.Bench("")
    rows = bench.traffic + bench.test
    domains = json.loads((students.DATA / "domains.json").read_text())
    of = {intent: domain for domain, names in domains.items() for intent in names}
    known = [i for i, (_, intent) in enumerate(rows) if intent in of]
    last = {rows[i][0]: i for i in known}  # no text twice
    known = sorted(last.values())
    return Pool(
        payload=Payload(decoder="text"),
        features=Factory(factory="components.student.text:TextNgrams", options={"buckets": 32_768}),
        classes=tuple(bench.teacher.classes),
        payloads=[rows[i][0].encode() for i in known], soft=[bench.soft[i] for i in known],
        truths=[rows[i][1] for i in known], kinds=np.array([of[rows[i][1]] for i in known]),
        embeddings=bench.embeddings[known],
    )  # fmt: skip


def _taken(chance: np.random.Generator, places: np.ndarray, n: int) -> np.ndarray:
    if n > len(places):
        raise ValueError(f"{n} inputs are wanted and there are {len(places)}")
    return chance.permutation(places)[:n]


def _phases(name: str, pool: Pool, kinds: Sequence[Sequence[str]], seed: int, first: Sequence[str]) -> Stream:
    """A history of ``first``, and a phase of each of ``kinds``; none of the inputs comes twice."""
    chance, each, used = np.random.default_rng(seed), LENGTH // len(kinds), np.zeros(len(pool.payloads), dtype=bool)

    def some(of: Sequence[str], n: int) -> np.ndarray:
        free = pool.of(*of)
        found = _taken(chance, free[~used[free]], n)
        used[found] = True
        return found

    history = some(first, HISTORY)
    parts = [some(of, each) for of in kinds]
    after = []
    for of, part in zip(kinds[1:], parts[1:], strict=True):
        free = pool.of(*of)
        free = free[~used[free]]
        after.append(_taken(chance, free, 200) if len(free) >= 200 else part)
    return Stream(
        name=name, pool=pool, history=history, rows=np.concatenate(parts),
        switches=tuple(each * i for i in range(1, len(kinds))), after=tuple(after),
    )  # fmt: skip


def files(seed: int) -> Stream:
    """The four kinds of files of the demo, one after the other."""
    names = list(PHASES)
    return _phases("files", files_pool(), [[n] for n in names], seed, [names[0]])


def mail(seed: int) -> Stream:
    """Mails in the order of time, some of them left out; a switch is where a quarter of the corpus ends."""
    pool, chance = mail_pool(), np.random.default_rng(seed)
    chosen = np.sort(_taken(chance, np.arange(len(pool.payloads)), HISTORY + LENGTH))
    rows = chosen[HISTORY:]
    quarters = sorted(set(pool.kinds[rows]))[1:]
    begins = [int(np.argmax(pool.kinds[rows] == q)) for q in quarters]
    return Stream(
        name="mail", pool=pool, history=chosen[:HISTORY], rows=rows, switches=tuple(begins),
        after=tuple(rows[pool.kinds[rows] == q] for q in quarters),
    )  # fmt: skip


def domains(seed: int) -> Stream:
    """Two of CLINC150's domains, then four others, one after the other."""
    names = sorted(set(clinc_pool().kinds))
    order = np.random.default_rng(seed + 1_000).permutation(names).tolist()
    kinds = [[n] for n in order[2:6]]
    made = _phases("clinc domains", clinc_pool(), [order[:2], *kinds], seed, order[:2])
    return made


def recurring(seed: int) -> Stream:
    """Two pairs of CLINC150's domains in turn: A, B, A, B."""
    names = sorted(set(clinc_pool().kinds))
    order = np.random.default_rng(seed + 2_000).permutation(names).tolist()
    a, b = order[:2], order[2:4]
    return _phases("recurring", clinc_pool(), [a, b, a, b], seed, a)


def gradual(seed: int) -> Stream:
    """Files: code gives way to web pages and documents, from nothing at a quarter of the stream to all at three."""
    pool, chance = files_pool(), np.random.default_rng(seed)
    old, new = (chance.permutation(pool.of(*k)) for k in (("python", "cpp"), ("web", "docs and media")))
    at = np.arange(LENGTH) / LENGTH
    turned = chance.random(LENGTH) < np.clip((at - 0.25) * 2.0, 0.0, 1.0)
    history, old = old[:HISTORY], old[HISTORY:]
    rows = np.empty(LENGTH, dtype=int)
    rows[~turned], rows[turned] = old[: (~turned).sum()], new[: turned.sum()]
    return Stream(
        name="gradual", pool=pool, history=history, rows=rows, switches=(LENGTH // 4,), after=(rows[turned][-200:],)
    )


def steady(seed: int) -> Stream:
    """Four of CLINC150's domains, mixed throughout."""
    names = sorted(set(clinc_pool().kinds))
    some = np.random.default_rng(seed + 3_000).permutation(names).tolist()[:4]
    return _phases("no drift", clinc_pool(), [some], seed, some)


STREAMS: Mapping[str, Callable[[int], Stream]] = {
    "files": files, "mail": mail, "clinc domains": domains, "recurring": recurring, "gradual": gradual,
    "no drift": steady,
}  # fmt: skip
