"""The steps of the pipelines as plain functions of strings: what a Kubeflow component's body calls.

A component finds its platform by the environment (:class:`~components.contracts.settings.Settings`) and its workload
by the path of the spec.
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from typing import Any

import msgspec

from components.contracts.errors import ConfigError, NotFoundError, OrderError
from components.contracts.settings import Settings
from components.contracts.spec import Spec, load_spec
from components.contracts.storage import get_bytes, put_bytes
from components.control.intent import ModelRef
from components.control.store import ControlStore
from components.control.tables import WindowRow
from components.label.history import Historic
from components.process import short_lived
from components.student.card import StudentCard

__all__ = [
    "NOTHING",
    "Candidate",
    "Historic",
    "distil",
    "judge",
    "label_history",
    "order",
    "quality_page",
    "register",
    "report",
    "take_snapshot",
]

ORDER_SECONDS = 60.0
"""How long a pipeline waits for the rollout controller to carry out its order."""

NOTHING = "nothing"
"""In place of a snapshot's digest: there were no new labels."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A distilled student on its way through a pipeline: where its artifacts lie, and what was measured so far."""

    uri: str
    digest: str
    float_uri: str
    card: StudentCard
    parity_gap: float | None
    metrics: dict[str, float]
    history: tuple[float, ...]
    decision: str = "hold"
    measurements: dict[str, float | None] = {}
    verdict: dict[str, Any] = {}
    confusion: dict[str, Any] = {}

    @property
    def score(self) -> tuple[bool, float]:
        """What the better of two variants has more of: a verdict to promote, then agreement (or less error)."""
        error = self.measurements.get("rmse")
        quality = self.measurements.get("agreement") if error is None else -error
        return self.decision == "promote", float("-inf") if quality is None else quality


@short_lived
def label_history(spec_path: str, history_uri: str) -> int:
    """Put a history on the workload's topics and label it; returns how many inputs it holds."""
    from components.label.assembly import assemble
    from components.label.history import label_history as label
    from components.label.history import read_history
    from components.stream import open_broker

    spec, settings = load_spec(spec_path), Settings()
    broker = open_broker(settings)
    with closing(ControlStore(settings.control_url)) as store:
        counts = label(
            spec,
            broker,
            read_history(history_uri, spec.name),
            make=lambda: assemble(spec, settings, store, broker),
        )
    return counts["inputs"]


@short_lived
def take_snapshot(spec_path: str) -> tuple[int, str]:
    """Freeze what is new; returns the window's rows and digest, 0 and :data:`NOTHING` when nothing is new."""
    from components.snapshot.window import freeze
    from components.stream import open_broker

    spec, settings = load_spec(spec_path), Settings()
    store = ControlStore(settings.control_url)
    window = freeze(spec, open_broker(settings), store, settings.artifacts, now=time.time())
    store.close()
    return (window.rows, window.digest) if window else (0, NOTHING)


def windows_until(store: ControlStore, spec: Spec, digest: str) -> list[WindowRow]:
    """The workload's windows up to the one with this digest, oldest first; all of them for :data:`NOTHING`.

    Raises:
        NotFoundError: there is no window with this digest.

    """
    windows = store.windows(spec.name)
    if digest == NOTHING:
        return windows
    for i, window in enumerate(windows, start=1):
        if window.digest == digest:
            return windows[:i]
    raise NotFoundError("snapshot", digest, f"the control database has {len(windows)} of {spec.name}")


@short_lived
def distil(spec_path: str, variant: str, fresh: bool, digest: str) -> Candidate | None:
    """Train a student on the windows up to ``digest``.

    From the champion, or a ``fresh`` one of the named variant (empty: the first of the spec). Where the digest is
    :data:`NOTHING` there is nothing to update with (None), while a fresh one learns from all windows there are.

    Raises:
        ConfigError: the spec has no such variant, or there is no window.
        NotFoundError: there is no window with this digest.

    """
    if digest == NOTHING and not fresh:
        return None
    from components.distill.train import distill

    spec, settings = load_spec(spec_path), Settings()
    store = ControlStore(settings.control_url)
    named = {v.name: v for v in spec.student.variants}
    if variant and variant not in named:
        raise ConfigError("variant", variant, f"the spec of {spec.name} has {', '.join(named)}")
    windows = windows_until(store, spec, digest)
    if not windows:
        raise ConfigError("windows", [], "there is no snapshot to learn from: label a history first")
    parent = None if fresh else champion(store, spec)
    done = distill(
        spec,
        windows,
        variant=named[variant] if variant else spec.student.variants[0],
        parent=parent,
        artifacts=settings.artifacts,
        seed=spec.seed,
    )
    store.close()
    return Candidate(
        uri=done.uri,
        digest=done.digest,
        float_uri=done.float_uri,
        card=done.card,
        parity_gap=done.parity_gap,
        metrics=done.metrics,
        history=done.history,
    )


def champion(store: ControlStore, spec: Spec) -> ModelRef | None:
    """The version that serves, from the durable intent."""
    return store.intent(spec.name)[1].champion


@short_lived
def judge(spec_path: str, candidate: Candidate) -> Candidate:
    """Evaluate a candidate's artifact on the windows that it was made from, and put the gate's verdict on it."""
    from components.evaluate.evaluate import evaluate

    spec, settings = load_spec(spec_path), Settings()
    store = ControlStore(settings.control_url)
    done = evaluate(
        spec,
        candidate.uri,
        candidate.digest,
        candidate.float_uri,
        windows=windows_until(store, spec, candidate.card.snapshots[0]),
        champion=champion(store, spec),
        previous=store.intent(spec.name)[1].previous,
        store=store,
    )
    store.close()
    return msgspec.structs.replace(
        candidate,
        decision=done.verdict.decision,
        measurements=dict(done.measurements),
        verdict=done.verdict.as_dict(),
        confusion=done.confusion,
    )


@short_lived
def report(spec_path: str, candidate: Candidate) -> bytes:
    """Evidently's report (HTML) of the window that a candidate was made from; empty without an older window."""
    from components.evaluate.report import drift_report

    spec, settings = load_spec(spec_path), Settings()
    store = ControlStore(settings.control_url)
    windows = windows_until(store, spec, candidate.card.snapshots[0])
    store.close()
    uri, _, _ = drift_report(spec, windows, _reports(spec, settings, candidate, windows), settings.evidently)
    return get_bytes(uri) if uri else b""


@short_lived
def quality_page(spec_path: str, candidate: Candidate) -> bytes:
    """The page (HTML) of a candidate's evaluation; it is kept beside the drift report as ``quality.html``."""
    from components.evaluate.page import quality_page as render

    spec, settings = load_spec(spec_path), Settings()
    store = ControlStore(settings.control_url)
    windows = windows_until(store, spec, candidate.card.snapshots[0])
    store.close()
    page = render(spec, windows, candidate.digest)
    put_bytes(f"{_reports(spec, settings, candidate, windows)}/quality.html", page)
    return page


def _reports(spec: Spec, settings: Settings, candidate: Candidate, windows: list[WindowRow]) -> str:
    return f"{settings.artifacts}/{spec.name}/reports/{candidate.digest}-{windows[-1].digest[:12]}"


@short_lived
def register(spec_path: str, candidate: Candidate, force: bool = False) -> str:
    """Register a judged candidate with its lineage and give it the alias ``candidate``; returns its version.

    ``force`` registers one that the gate did not promote; the verdict and the ledger then say that it was forced. The
    rollout controller starts no such version by itself: order it with ``forced``.

    Raises:
        OrderError: the gate did not promote it, and ``force`` was not given.

    """
    from components.ledger.ledger import append
    from components.registry.registry import Registry

    spec, settings = load_spec(spec_path), Settings()
    forced = candidate.decision != "promote"
    if forced and not force:
        reasons = "; ".join(candidate.verdict.get("reasons", ())) or "it was not judged"
        raise OrderError("register a student of", spec.name, f"the gate says {candidate.decision}: {reasons}")
    registry, store = Registry(settings), ControlStore(settings.control_url)
    known = {k: v for k, v in candidate.measurements.items() if v is not None and math.isfinite(v)}
    measured = {k: v for k, v in known.items() if "[" not in k}  # those of slices stand in the verdict
    model = registry.register(
        spec,
        candidate.uri,
        candidate.digest,
        candidate.card,
        verdict={**candidate.verdict, "forced": forced},
        metrics={**candidate.metrics, **measured},
        params={"variant": candidate.card.variant, "spec": spec.digest, "seed": str(spec.seed)},
    )
    if not forced:
        registry.set_alias(spec.name, "candidate", model.version)
    detail = {"version": model.version, "digest": model.digest, "verdict": candidate.decision, "forced": forced}
    append(store, spec.name, settings.actor, "register", detail)
    store.close()
    return model.version


@short_lived
def order(spec_path: str, verb: str, reason: str, key: str, args: dict[str, Any]) -> str:
    """Order a verb of the rollout controller and wait for its outcome; the same ``key`` orders it once.

    It goes to the admin API that the settings name, with their token, else into the control database.

    Raises:
        ConfigError: there is no reason, or no key of its own.
        OrderError: it was refused, or no controller took it in time.
        AccessError: the admin API does not let the caller do this.

    """
    from components.control.desk import Order, open_desk

    if "{{" in key or not key:  # a placeholder that was not filled in is the same for all runs
        raise ConfigError(
            "key", key, "must be an order's own: with one key for all only the first would be carried out"
        )
    spec = load_spec(spec_path)
    wanted = Order(workload=spec.name, verb=verb, reason=reason, args=args, key=key)
    done = open_desk(Settings()).place(wanted, ORDER_SECONDS)
    if done.ok is None:
        late = (
            f"no controller took it in {ORDER_SECONDS:.0f} s; it stays open and will be carried out when one comes up"
        )
        raise OrderError(verb, spec.name, late)
    if not done.ok:
        raise OrderError(verb, spec.name, f"refused: {done.outcome}")
    return str(done.outcome)
