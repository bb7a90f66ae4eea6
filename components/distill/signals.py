"""What a teacher knows inside of the rows of an update, asked once and kept beside the artifacts."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec
import numpy as np

from components.contracts.errors import ArtifactError, ConfigError
from components.contracts.payload import decoder
from components.contracts.spec import Factory, Spec, build
from components.contracts.storage import digest_of, get_bytes, put_bytes
from components.teachers.contract import States, declared_of, reference, states

log = logging.getLogger(__name__)

MOST_BYTES = 1 << 30
"""What the states of one update may take, in half precision: they are held in memory while a student learns."""

MASK = "\0mask"
"""The mask's name in a file of states; no state has it."""


def teacher_states(
    spec: Spec,
    payloads: Sequence[bytes],
    names: Sequence[str],
    teacher: str,
    artifacts: str,
    encoder: Factory | None = None,
) -> States:
    """States of inputs by name, of ``teacher`` (``name@digest``) or of ``encoder``, in half precision.

    They are kept by the contents, the names and the teacher, so that the second variant, and a run that is made again,
    asks for nothing.

    Raises:
        ConfigError: the teacher shows no such states, or they are too large, or it is another than made the labels.
        TeacherError: the teacher failed.

    """
    from safetensors.numpy import load, save

    whose = msgspec.json.encode(encoder).decode() if encoder else declared_of(teacher)
    key = "\0".join([whose, *sorted(names), "", *(digest_of(p) for p in payloads)])
    uri = f"{artifacts}/{spec.name}/states/{digest_of(key.encode())}.safetensors"
    try:
        found = load(get_bytes(uri))
    except ArtifactError:
        made = build(encoder or spec.teacher, spec.source)
        if encoder is None and reference(made) != declared_of(teacher):
            remedy = f"its states are none of {declared_of(teacher)}, which made the labels: restore that one"
            raise ConfigError("teacher", reference(made), remedy) from None
        decode = decoder(spec.payload, spec.source)
        log.info("%s: asking %s for %s of %d inputs", spec.name, made.name, ", ".join(names), len(payloads))
        given = states(made, [decode(p) for p in payloads], names)
        if (size := 2 * sum(a.size for a in given.arrays.values())) > MOST_BYTES:
            raise ConfigError(
                "student.objective",
                list(names),
                f"take {size >> 20} MiB for {len(payloads)} rows, of {MOST_BYTES >> 20} at most: take fewer rows "
                "(student.unlabelled_rows), or a state without positions",
            ) from None
        found = {name: array.astype(np.float16) for name, array in given.arrays.items()}
        if given.mask is not None:
            found[MASK] = given.mask
        put_bytes(uri, save(found))
    return States(arrays={n: a.astype(np.float32) for n, a in found.items() if n != MASK}, mask=found.get(MASK))
