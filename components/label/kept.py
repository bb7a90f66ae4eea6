"""What was kept of inputs before they were masked: masked, or deleted, when a labeler starts.

Questions to people are masked; the teacher's probes, which are named by their content, are deleted, and others drawn.
"""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import Any

from components.contracts.errors import ArtifactError, RecordError
from components.contracts.masking import Mask, masker, searched
from components.contracts.spec import Spec
from components.contracts.storage import files, get_bytes, remove
from components.control.store import ControlStore
from components.control.teachers import probes_of, without_probes
from components.review import reviews

log = logging.getLogger(__name__)


def mask_kept(spec: Spec, store: ControlStore, artifacts: str) -> None:
    """Mask what is kept of a workload's inputs, where its spec asks for that.

    Probes are searched by their payloads, too: those that no state names any more, or not yet, lie there as well.

    Raises:
        FinderError: the search failed: start again.

    """
    mask = masker(spec)
    if mask is None:
        return
    asked = reviews.masked(store, spec)
    folder = f"{artifacts}/{spec.name}/probes"
    kept = probes_of(store, spec.name) | {uri.rsplit("/", 1)[1] for uri in files(f"{folder}/*")}
    gone = {content for content in kept if not _is_masked(spec, mask, f"{folder}/{content}", content)}
    without_probes(store, spec.name, gone)
    for content in gone:
        remove(f"{folder}/{content}")
    if asked or gone:
        log.info("%s: masked %d questions that were kept, and deleted %d probes", spec.name, asked, len(gone))


def _is_masked(spec: Spec, mask: Mask, uri: str, content: str) -> bool:
    """Whether there is nothing to mask in a probe. One whose payload is missing is the guard's to complain about."""
    try:
        payload = get_bytes(uri, content)
        found = searched(spec, partial(mask, payload))
        return found.payload == payload or (not found.found and _says_the_same(spec, payload, found.payload))
    except ArtifactError:
        return True
    except RecordError:
        return False


def _says_the_same(spec: Spec, payload: bytes, masked: bytes) -> bool:
    """Whether JSON was but written anew: not where a name stood twice, behind which a text was not searched."""

    def pairs(data: bytes) -> Any:
        return json.loads(data, object_pairs_hook=tuple)

    return spec.payload.decoder == "json" and bool(pairs(payload) == pairs(masked))
