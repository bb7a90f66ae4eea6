"""What a teacher knows inside of the rows of an update, asked once and kept beside the artifacts."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import msgspec
import numpy as np

from components.contracts.errors import ArtifactError, ConfigError, TeacherError
from components.contracts.payload import decoder
from components.contracts.spec import Factory, Spec, build
from components.contracts.spec.objective import FIELD
from components.contracts.spec.references import resolve
from components.contracts.storage import digest_of, opened, put_parts
from components.distill import columns
from components.teachers.contract import States, called, declared_of, reference, states

log = logging.getLogger(__name__)

MOST_BYTES = 1 << 30
"""What the states of one update may take, in half precision: as single ones they lie on the disk while it learns."""

KINDS = {"float16": "F16", "bool": "BOOL"}
"""The types of states and masks by safetensors' names."""

DTYPES = {told: np.dtype(name) for name, told in KINDS.items()}

MASK = "\0mask"
"""The mask's name in a file of states; no state has it."""


def teacher_states(
    spec: Spec,
    payloads: Sequence[bytes],
    names: Sequence[str],
    teacher: str,
    artifacts: str,
    encoder: Factory | None = None,
    *,
    field: str = FIELD,
) -> States:
    """States of inputs by name, of ``teacher`` (``name@digest``) or of ``encoder``, in half precision.

    ``field``: where the spec has the terms that read them.

    They are kept by the contents, the names and the teacher, so that the second variant, and a run that is made again,
    asks for nothing; those of an encoder, which has no digest, by the version of the workload, in which its code is.

    Raises:
        ConfigError: the teacher shows no such states, or they are too large, or it is another than made the labels.
        TeacherError: the teacher failed, or gave a state of an input that is not finite in half precision.

    """
    whose = f"{msgspec.json.encode(encoder).decode()}{spec.bundle or ''}" if encoder else declared_of(teacher)
    key = hashlib.sha256("\0".join([whose, *sorted(names), ""]).encode())
    for payload in payloads:
        key.update(b"\0" + digest_of(payload).encode())
    uri = f"{artifacts}/{spec.name}/states/{key.hexdigest()}.safetensors"
    try:
        return _read(uri)
    except ArtifactError:
        made = build(encoder or spec.teacher, spec.source)
    if encoder is None and reference(made) != declared_of(teacher):
        remedy = f"its states are none of {declared_of(teacher)}, which made the labels: restore that one"
        raise ConfigError("teacher", reference(made), remedy)
    decode = decoder(spec.payload, spec.source)
    log.info("%s: asking %s for %s of %d inputs", spec.name, called(made), ", ".join(names), len(payloads))

    def asked(some: Sequence[bytes]) -> columns.Arrays:
        given = states(made, [decode(p) for p in some], names, field)
        size = 2 * sum(a.size for a in given.arrays.values()) * len(payloads) // len(some)
        if size > MOST_BYTES:
            raise ConfigError(
                field,
                list(names),
                f"take {size >> 20} MiB for {len(payloads)} rows, of {MOST_BYTES >> 20} at most: take fewer rows "
                "(student.unlabelled_rows), or a state without positions",
            )
        with np.errstate(over="ignore"):
            found = {name: array.astype(np.float16) for name, array in given.arrays.items()}
        for name, array in found.items():
            if array.ndim == 2 and not np.isfinite(array).all():  # what is kept is not asked again
                raise TeacherError(called(made), f"gave a state {name!r} that is not finite in half precision")
        return found if given.mask is None else found | {MASK: given.mask}

    put_parts(uri, _parts(columns.encoded(payloads, asked, len)))
    return _read(uri)


def shows(spec: Spec) -> bool:
    """Whether a spec's teacher is of a class that shows states of any kind; where it cannot be found here it is not."""
    try:
        return hasattr(resolve(spec.teacher.factory, spec.source), "states")
    except Exception as error:  # whatever code of the user's raises
        log.info("%s: the teacher cannot be asked for its states here: %s", spec.name, error)
        return False


def _parts(arrays: columns.Arrays) -> Iterator[bytes]:
    """A file of safetensors, a part at a time: the library makes one of what is in memory."""
    ends = accumulate((a.nbytes for a in arrays.values()), initial=0)
    header = {
        name: {"dtype": KINDS[a.dtype.name], "shape": a.shape, "data_offsets": place}
        for (name, a), place in zip(arrays.items(), pairwise(ends), strict=True)
    }
    told = msgspec.json.encode(header)
    told += b" " * (-len(told) % 8)  # data begins at a multiple of eight
    yield len(told).to_bytes(8, "little") + told
    for array in arrays.values():
        for span in columns.spans(len(array)):
            yield array[span].tobytes()


def _read(uri: str) -> States:
    with opened(uri) as file:
        size = int.from_bytes(file.read(8), "little")
        header = msgspec.json.decode(file.read(size), type=dict[str, Any])
        found = {
            name: columns.mapped(file.fileno(), DTYPES[of["dtype"]], of["shape"], 8 + size + of["data_offsets"][0])
            for name, of in header.items()
            if name != "__metadata__"
        }
    mask = found.pop(MASK, None)
    whole = {name: columns.changed(array, lambda part: part.astype(np.float32)) for name, array in found.items()}
    return States(arrays=whole, mask=mask)
