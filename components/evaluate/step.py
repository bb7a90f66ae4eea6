"""The pipelines' steps that judge a candidate and show how."""

from __future__ import annotations

from contextlib import closing

import msgspec

from components.contracts.settings import Settings
from components.contracts.spec import Spec, load_spec
from components.contracts.storage import digest_of, get_bytes, put_bytes
from components.control.store import ControlStore
from components.control.tables import WindowRow
from components.process import short_lived
from components.steps import Candidate, champion, windows_until

__all__ = ["judge", "quality_page", "report", "sign"]


@short_lived
def judge(spec_path: str, candidate: Candidate) -> Candidate:
    """Evaluate a candidate's artifact on the windows that it was made from, and put the gate's verdict on it.

    The evidence is signed where the settings name a key.

    Raises:
        UntrustedError: the policy asks for signatures, and a window's does not count.

    """
    from components.evaluate.evaluate import evaluate
    from components.evaluate.weights_and_biases import track, wanted
    from components.ledger import signatures

    spec, settings = load_spec(spec_path), Settings()
    store = ControlStore.open(settings.control_url)
    windows = windows_until(store, spec, candidate.card.snapshots[0])
    signatures.require(settings, store, spec.name, [(w.uri, w.digest) for w in windows], signatures.SNAPSHOT)
    done = evaluate(
        spec,
        candidate.uri,
        candidate.digest,
        candidate.float_uri,
        windows=windows,
        champion=champion(store, spec),
        previous=store.intent(spec.name)[1].previous,
        store=store,
    )
    sign(settings, store, windows[-1], candidate.digest, done.evidence_uri)
    store.close()
    judged = msgspec.structs.replace(
        candidate,
        decision=done.verdict.decision,
        measurements=dict(done.measurements),
        verdict=done.verdict.as_dict(),
        confusion=done.confusion,
    )
    if wanted():
        track(spec, settings, judged, windows)
    return judged


def sign(settings: Settings, store: ControlStore, window: WindowRow, digest: str, uri: str) -> None:
    """Sign the evidence at ``uri`` of a student's evaluation, where the settings name a key.

    Raises as :func:`components.ledger.signatures.sign` does.
    """
    from components.ledger import signatures

    if not signatures.wanted(settings):
        return
    data = get_bytes(uri)
    last = msgspec.json.decode(data.splitlines()[-1])
    said = {
        "workload": window.workload, "student": digest, "window": window.digest, "decision": last.get("decision"),
    }  # fmt: skip
    subject = {uri.rsplit("/", 1)[-1]: digest_of(data)}
    signatures.sign(settings, store, uri, subject, signatures.EVALUATION, said)


@short_lived
def report(spec_path: str, candidate: Candidate) -> bytes:
    """Evidently's report (HTML) of the window that a candidate was made from; empty without an older window."""
    from components.evaluate.report import drift_report

    spec, settings = load_spec(spec_path), Settings()
    windows = _windows(spec, settings, candidate)
    uri, _, _ = drift_report(spec, windows, _reports(spec, settings, candidate, windows), settings.evidently)
    return get_bytes(uri) if uri else b""


@short_lived
def quality_page(spec_path: str, candidate: Candidate) -> bytes:
    """The page (HTML) of a candidate's evaluation; it is kept beside the drift report as ``quality.html``."""
    from components.evaluate.page import quality_page as render

    spec, settings = load_spec(spec_path), Settings()
    windows = _windows(spec, settings, candidate)
    page = render(spec, windows, candidate.digest)
    put_bytes(f"{_reports(spec, settings, candidate, windows)}/quality.html", page)
    return page


def _windows(spec: Spec, settings: Settings, candidate: Candidate) -> list[WindowRow]:
    """Those that a candidate was made from."""
    with closing(ControlStore.open(settings.control_url)) as store:
        return windows_until(store, spec, candidate.card.snapshots[0])


def _reports(spec: Spec, settings: Settings, candidate: Candidate, windows: list[WindowRow]) -> str:
    return f"{settings.artifacts}/{spec.name}/reports/{candidate.digest}-{windows[-1].digest[:12]}"
