"""What the steps of the pipelines share.

A step is a plain function of strings, in ``step.py`` beside what it does; a Kubeflow component's body calls it. It
finds its platform by the environment (:class:`~components.contracts.settings.Settings`) and its workload by the
spec's bundle (``workload:NAME@DIGEST``) or the path of its file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from components.contracts.errors import ArtifactError, NotFoundError
from components.contracts.spec import Spec
from components.contracts.storage import get_bytes
from components.control.intent import ModelRef
from components.control.store import ControlStore
from components.control.tables import WindowRow
from components.student.card import StudentCard

__all__ = [
    "DATA_FREE", "NOTHING", "Candidate", "champion", "data_free", "evidence_folder", "evidence_of", "evidences",
    "up_to", "windows_until",
]  # fmt: skip

NOTHING = "nothing"
"""In place of a snapshot's digest: there were no new labels."""


DATA_FREE = "data_free"
"""The gauge that names the newest registered student of synthetic inputs alone."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A distilled student on its way through a pipeline: where its artifacts lie, and what was measured so far.

    ``history``: mean loss of each epoch; ``terms``: each term's part of it.
    """

    uri: str
    digest: str
    float_uri: str
    card: StudentCard
    parity_gap: float | None
    metrics: dict[str, float]
    history: tuple[float, ...]
    terms: tuple[dict[str, float], ...] = ()
    decision: str = "hold"
    measurements: dict[str, float | None] = {}
    verdict: dict[str, Any] = {}
    confusion: dict[str, Any] = {}

    @property
    def data_free(self) -> bool:
        """Whether all that it was taught by now was made up, so that nothing real could judge it either."""
        return self.card.synthetic != {} and self.card.labels == sum(self.card.synthetic.values())

    @property
    def score(self) -> tuple[bool, float]:
        """What the better of two variants has more of: a verdict to promote, then agreement, cosine, or less error."""
        error = self.measurements.get("rmse")
        near = self.measurements.get("cosine", self.measurements.get("agreement"))
        quality = near if error is None else -error
        return self.decision == "promote", float("-inf") if quality is None else quality


def up_to(windows: list[WindowRow], digest: str) -> list[WindowRow]:
    """Of windows, oldest first, those up to the one that has this digest, or had it; none where there is none."""
    return windows[: next((n for n, w in enumerate(windows, start=1) if digest in w.digests), 0)]


def windows_until(store: ControlStore, spec: Spec, digest: str) -> list[WindowRow]:
    """The workload's windows up to the one with this digest, oldest first; all of them for :data:`NOTHING`.

    Raises:
        NotFoundError: there is no window with this digest.

    """
    windows = store.windows(spec.name)
    if digest == NOTHING:
        return windows
    if found := up_to(windows, digest):
        return found
    raise NotFoundError("snapshot", digest, f"the control database has {len(windows)} of {spec.name}")


def evidence_folder(window: WindowRow) -> str:
    """Where the evidence of all students that are judged on a window lies, one file each, named by their digests.

    It stays there when rows of the window are forgotten: the folder is named by the window's first digest.
    """
    root = window.uri.rsplit("/", 2)[0]
    return f"{root}/evidence/{window.digests[-1]}"


def evidence_of(window: WindowRow, digest: str) -> str:
    """Where the evidence of one student that is judged on a window lies."""
    return f"{evidence_folder(window)}/{digest}.jsonl"


def evidences(windows: Iterable[WindowRow], digest: str) -> Iterator[tuple[WindowRow, str, bytes]]:
    """The windows that a student was judged on, each with where its evidence lies, and that, where it is still there.

    Raises:
        UnavailableError: the artifact store does not answer.

    """
    for window in windows:
        uri = evidence_of(window, digest)
        try:
            data = get_bytes(uri)
        except ArtifactError:
            continue
        yield window, uri, data


def champion(store: ControlStore, spec: Spec) -> ModelRef | None:
    """The version that serves, from the durable intent."""
    return store.intent(spec.name)[1].champion


def data_free(store: ControlStore, spec: Spec, variant: str = "") -> ModelRef | None:
    """The newest registered student of synthetic inputs alone, of the named variant (empty: of any).

    It is what a first student of real inputs starts from, since no champion serves yet.
    """
    found = store.gauges(spec.name).get(DATA_FREE)
    if found is None or variant not in ("", found.value["variant"]):
        return None
    return msgspec.convert(found.value["model"], ModelRef)
