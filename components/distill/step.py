"""The pipelines' step that trains a student."""

from __future__ import annotations

import logging

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from components.contracts.spec import Begin, Spec, load_spec
from components.contracts.spec.declared import check_training
from components.contracts.storage import get_bytes
from components.control.forgettings import Forgotten, retrained, tainted, waiting
from components.control.intent import ModelRef
from components.control.store import ControlStore
from components.process import short_lived
from components.steps import NOTHING, Candidate, champion, data_free, windows_until

__all__ = ["distil"]

log = logging.getLogger(__name__)


@short_lived
def distil(spec_path: str, variant: str, fresh: bool, digest: str) -> Candidate | None:
    """Train a student on the windows up to ``digest``.

    From the champion, or a ``fresh`` one of the named variant (empty: the first of the spec). Before there is a
    champion both start from the student of synthetic inputs, where there is one (of that variant). A student that would
    start from nothing starts from ``student.start``, where the spec has one. Where the digest is
    :data:`NOTHING` there is nothing to update with (None), while a fresh one learns from all windows there are.

    A champion that had learnt from what was forgotten since is not started from: the update is a fresh student of its
    variant, that learns from all windows as they are now, though there may be no new labels. Once it is made, the
    orders that list the champion ask for none any more. Nor is ``student.start``, once any student of the workload had
    learnt from what was forgotten, whichever serves by now: it may have learnt from that student's answers.

    Raises:
        ConfigError: the terms that the spec declares forbid training (the ledger has it), it has no such variant, or
            there is no window.
        NotFoundError: there is no window with this digest.
        UntrustedError: the policy asks for signatures, and a window's, the parent's or that of a start does not count.

    """
    from components.distill.train import distill
    from components.distill.unlabelled import unlabelled
    from components.ledger import signatures, starts
    from components.ledger.ledger import append
    from components.stream import open_broker

    spec, settings = load_spec(spec_path), Settings()
    store = ControlStore.open(settings.control_url)
    serves = champion(store, spec)
    without = tainted(store, spec.name)
    asking = waiting(store, spec.name, serves.digest) if serves is not None else ()
    if not fresh and serves is not None and serves.digest in without:
        log.warning(
            "%s: version %s had learnt from what order %s forgot: the update does not start from it, but afresh",
            spec.name, serves.version, without[serves.digest],
        )  # fmt: skip
        fresh = True
        variant = variant or _variant_of(spec, serves)
    if digest == NOTHING and not fresh:
        store.close()
        return None
    try:
        check_training(spec, settings.licence_policy)
    except ConfigError as error:
        detail = {"field": error.field, "why": str(error), "spec": spec.digest}
        append(store, spec.name, settings.actor, "refused training", detail)
        raise
    variants = {v.name: v for v in spec.student.variants}
    if variant and variant not in variants:
        raise ConfigError("variant", variant, f"the spec of {spec.name} has {', '.join(variants)}")
    windows = windows_until(store, spec, digest)
    if not windows:
        raise ConfigError("windows", [], "there is no snapshot to learn from: label a history first")
    chosen = variants[variant] if variant else spec.student.variants[0]
    parent = None if fresh else serves
    if serves is None and any(not w.manifest.get("synthetic_rows") for w in windows):
        parent = data_free(store, spec, chosen.name if fresh else "")
    if parent is not None and parent.digest in without:
        parent = None
    begun = None
    if parent is None and not without and spec.student.start is not None:
        begun = starts.begun(settings, store, spec.name, spec.student.start)
        parent = _given(spec, spec.student.start, str(windows[-1].manifest["space"]))
    named = [(w.uri, w.digest) for w in windows]
    signatures.require(settings, store, spec.name, named, signatures.SNAPSHOT)
    if parent is not None and begun is None:
        signatures.require(settings, store, spec.name, [(parent.uri, parent.digest)], signatures.PROVENANCE)
    done = distill(
        spec,
        windows,
        variant=chosen,
        parent=parent,
        artifacts=settings.artifacts,
        seed=spec.seed,
        begun=begun,
        inputs=lambda: unlabelled(
            spec, windows, open_broker(settings), settings.artifacts, Forgotten.of(store, spec.name)
        ),
    )
    retrained(store, spec.name, [order.id for order in asking])
    store.close()
    return Candidate(
        uri=done.uri,
        digest=done.digest,
        float_uri=done.float_uri,
        card=done.card,
        parity_gap=done.parity_gap,
        metrics=done.metrics,
        history=done.history,
        terms=done.terms,
    )


def _given(spec: Spec, given: Begin, space: str) -> ModelRef:
    """What a fresh student begins from, as the spec names it; it is no version here.

    Raises:
        ConfigError: it has another task, or another label space than the labels.
        ArtifactError: it is missing, or another.

    """
    from components.student.runtime import Student

    card = Student.load(get_bytes(given.uri, given.digest), source=spec.source).card
    if (card.task, card.space) != (spec.task, space):
        allowed = f"is a {card.task} student in {card.space!r}: the labels here are of a {spec.task} in {space!r}"
        raise ConfigError("student.start", given.uri, allowed)
    return ModelRef(version="", uri=given.uri, digest=given.digest, snapshot="", teacher=card.teacher)


def _variant_of(spec: Spec, model: ModelRef) -> str:
    """The name of a version's variant, where the spec still has it; else that of the first."""
    from components.distill.start import variant_of
    from components.student.runtime import Student

    card = Student.load(get_bytes(model.uri, model.digest), source=spec.source).card
    return variant_of(spec, card, spec.student.variants[0]).name
