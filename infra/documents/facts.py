"""What is known of a version: read once, and then the same for all of its documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import distributions
from typing import TYPE_CHECKING, Any

import msgspec

from components.contracts.errors import ArtifactError, CohobateError, ConfigError, NotFoundError
from components.contracts.records import CLASSED, Task, set_of
from components.contracts.reference import Reference
from components.contracts.settings import Settings
from components.contracts.spec import Spec, load_spec
from components.contracts.storage import digest_of, get_bytes
from components.contracts.tagging import spans_in
from components.control.store import ControlStore
from components.control.tables import LedgerRow, WindowRow
from components.evaluate.evidence import NEW, Evidence, Row, decode
from components.evaluate.judge import judge
from components.evaluate.measure import Measurements, flat, measures, slice_accuracies
from components.evaluate.share import known
from components.ledger import signatures
from components.ledger.ledger import entries
from components.steps import evidences, up_to
from components.student.card import StudentCard, read_card
from drift.gate import Verdict
from infra.evidence.write import card_of

if TYPE_CHECKING:
    from components.registry.registry import Registry, VersionInfo


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A version.

    ``verdict``: as it was registered; ``evidence``: of the newest window that it was judged on, with its URI and
    SHA-256, and ``measured``, what it comes to. ``ledger``: the workload's entries. ``signed``: what its signature is
    worth. ``labels``: how many of each class the teacher gave, over its windows. ``missing``: what could not be read.
    """

    workload: str
    info: VersionInfo
    card: StudentCard
    size: int
    spec: Spec
    as_registered: bool
    windows: list[WindowRow]
    verdict: dict[str, Any]
    evidence: Evidence | None
    judged: Verdict | None
    evidence_ref: str
    measured: Measurements
    ledger: list[LedgerRow]
    signed: str
    labels: dict[str, int]
    policies: dict[str, int]
    packages: dict[str, str]
    made_at: float
    missing: tuple[str, ...]

    @property
    def start(self) -> str | None:
        """The student of a federation that the lineage began with, and who signed it."""
        begun = self.card.start
        if begun is None:
            return None
        if begun.given is None or begun.taken is None:
            return f"{begun.digest}, by nobody whose signature counted here"
        return (
            f"{begun.digest} of the federation {begun.federation}, round {begun.round}: "
            f"handed on by the key {begun.given.key}, taken by {begun.taken.key}"
        )

    @property
    def card_ref(self) -> str:
        """The card inside of the artifact."""
        return f"student:{self.info.ref.digest}#card"

    @property
    def spec_ref(self) -> str:
        """The spec by its digest."""
        return f"spec:{self.spec.digest}"

    @property
    def registry_ref(self) -> str:
        """The version in the registry."""
        return f"registry:cohobate-{self.workload}/{self.info.version}"

    @property
    def windows_ref(self) -> tuple[str, ...]:
        """The snapshots by their digests."""
        return tuple(f"snapshot:{w.digest}" for w in self.windows)

    def entries_of(self, *actions: str) -> list[LedgerRow]:
        """The ledger's entries of these kinds that name the version."""
        return [
            r for r in self.ledger
            if r.action in actions and self.info.version in (r.detail.get("version"), r.detail.get("to"))
        ]  # fmt: skip

    def refs(self, rows: list[LedgerRow]) -> tuple[str, ...]:
        """Entries of the ledger as evidence."""
        return tuple(f"ledger:{r.seq}#{r.hash[:16]}" for r in rows)

    @property
    def new(self) -> list[Row]:
        """The held-out rows that it was judged on."""
        return [row for row in self.evidence.rows if row.set == NEW] if self.evidence else []

    @property
    def slices(self) -> dict[str, float]:
        """Accuracy by true class; empty of a regression."""
        return slice_accuracies(known(self.new), self.card.task) if self.card.task in CLASSED else {}


def gather(
    settings: Settings, registry: Registry, store: ControlStore, workload: str, version: str, spec: str | None = None
) -> Facts:
    """Read all that is known of a version (its number or alias).

    ``spec``: the spec's file or name, for a version that was not registered with the bundle of its own.

    Raises:
        NotFoundError: there is no such version, or no spec of it.
        ArtifactError: the artifact is missing or was changed.

    """
    info = registry.info(workload, version)
    data = get_bytes(info.ref.uri, info.ref.digest)
    card, rows = read_card(card_of(data)), entries(store, workload)
    found, own = _spec(settings, rows, workload, info, spec)
    windows = up_to(store.windows(workload), info.ref.snapshot)
    evidence, ref = _evidence(windows, info.ref.digest)
    labels, policies, missing = _labels(windows, card.task)
    return Facts(
        workload=workload,
        info=info,
        card=card,
        size=len(data),
        spec=found,
        as_registered=own,
        windows=windows,
        verdict=registry.verdict(workload, info.version),
        evidence=evidence,
        judged=judge(evidence) if evidence is not None else None,
        evidence_ref=ref,
        measured=flat(measures(evidence), evidence.judgement.confidence) if evidence is not None else {},
        ledger=rows,
        signed=_signed(store, workload, info),
        labels=labels,
        policies=policies,
        packages={d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]},
        made_at=store.clock(),
        missing=missing,
    )


def _spec(
    settings: Settings, rows: list[LedgerRow], workload: str, info: VersionInfo, given: str | None
) -> tuple[Spec, bool]:
    """The spec of a version, and whether it is the one that it was registered with."""
    for row in reversed(rows):
        if row.action == "register" and row.detail.get("digest") == info.ref.digest and "bundle" in row.detail:
            return load_spec(str(Reference(workload, row.detail["bundle"])), settings), True
    if given is None:
        remedy = f"version {info.version} was registered without its bundle: name the file by --spec"
        raise NotFoundError("spec", workload, remedy)
    spec = load_spec(given, settings)
    if spec.name != workload:
        raise ConfigError("--spec", given, f"is of {spec.name}, not of {workload}")
    return spec, False


def _evidence(windows: list[WindowRow], digest: str) -> tuple[Evidence | None, str]:
    for _, uri, data in evidences(reversed(windows), digest):
        return decode(data.splitlines())[0], f"evidence:{digest_of(data)} ({uri})"
    return None, ""


def _names(text: str, task: Task) -> Iterable[str]:
    """The names that an answer's text is made of."""
    if task == "tagging":
        return (span.label for span in spans_in(text))
    return set_of(text) if task == "multilabel" else (text,)


def _labels(windows: list[WindowRow], task: Task) -> tuple[dict[str, int], dict[str, int], tuple[str, ...]]:
    """What the teacher said, and why its rows were labelled, by two columns of each snapshot.

    Of sets the classes are counted, of texts that are tagged the kinds of the spans.
    """
    from components.snapshot.window import opened

    labels, policies, missing = Counter[str](), Counter[str](), []
    for window in windows:
        try:
            with opened(window.uri, window.digest) as frozen:
                for table in frozen.tables(["label", "policy"]):
                    said = [x for x in table["label"].to_pylist() if x is not None]
                    labels.update(name for x in said for name in _names(x, task))
                    policies.update(x for x in table["policy"].to_pylist() if x)
        except ArtifactError as error:
            missing.append(str(error))
    return dict(labels.most_common()), dict(policies.most_common()), tuple(missing)


def _signed(store: ControlStore, workload: str, info: VersionInfo) -> str:
    try:
        said = signatures.vouched(store, workload, info.ref, info.verdict.get("decision"))
    except CohobateError as error:
        return f"its signature does not count: {error}"
    return f"signed by a key that counts, as an SLSA provenance of {len(said.digests)} files"


def told(value: Any) -> str:
    """A number as a person reads it; what is none as text."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
