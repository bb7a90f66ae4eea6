"""The pipelines' step that makes inputs up."""

from __future__ import annotations

import io
import logging
import math
from collections import Counter
from contextlib import closing
from functools import partial

import msgspec

from components.contracts.errors import ConfigError, RecordError
from components.contracts.masking import masker, probe, searched
from components.contracts.records import Task, synthetic_input
from components.contracts.settings import Settings
from components.contracts.spec import Spec, build, load_spec
from components.contracts.spec.data_free import FIELD, DataFree, check_data_free
from components.contracts.storage import digest_of, put_bytes
from components.control.store import ControlStore
from components.process import short_lived
from components.query.budget import Budget
from components.teachers.common import Common
from components.teachers.contract import Teacher, metered, reference, shared

__all__ = ["synthesise"]

log = logging.getLogger(__name__)

TASKS: tuple[Task, ...] = ("classification", "regression")
"""Tasks whose inputs can be made up."""


@short_lived
def synthesise(spec_path: str, method: str = "", rows: int = 0, steps: int = 0, seed: int = -1) -> str:
    """Make inputs up as ``student.data_free`` says; returns the URI of a history of them, for the labelling step.

    What is empty, 0 or negative is the spec's. The same order makes the same file, whose inputs are labelled once.

    1. See that personal data can be looked for, and that the label budget has room for as many labels.
    2. Make the inputs up; what the teacher is asked meanwhile is paid for as well.
    3. Write them as a history, named by its content; masked, where the spec asks for that: models repeat what they
       learnt from. One that could not be searched is left out, and counted in the log.

    Raises:
        ConfigError: the workload cannot use the method, or the budget leaves fewer labels.
        RecordError: personal data could not be looked for in any of them.
        TeacherError, UnavailableError: the teacher failed, or does not answer; or (FinderError) what looks for personal
            data.

    """
    from components.synthetic.methods import make_up

    spec, settings = load_spec(spec_path), Settings()
    wanted = _wanted(spec, method, rows, steps, seed)
    # Step 1
    probe(spec)
    with closing(ControlStore.open(settings.control_url)) as store:
        teacher: Teacher = build(spec.teacher, spec.source)
        limits = spec.label.budget
        budget = Budget(limits, spec.name, store, cost=limits.cost or 0.0, clock=store.clock)
        shared(teacher, Common(store, spec.name, store.clock))

        def permit(calls: int) -> bool:
            """Pay for calls, where they leave room for the labels."""
            if not budget.limited:
                return True
            room = budget.allowance(math.inf) - calls >= wanted.rows
            return room and budget.spend(calls, least=calls) == calls

        if budget.limited:
            metered(teacher, permit)
            if budget.allowance(math.inf) < wanted.rows:
                raise ConfigError(
                    f"{FIELD}.rows", wanted.rows, f"the label budget leaves {budget.allowance(math.inf):.0f} labels "
                    "now: take fewer, raise label.budget, or wait for the next period",
                )  # fmt: skip
        declared = reference(teacher)
        if spec.teacher_digest not in (None, declared):
            raise ConfigError("teacher_digest", spec.teacher_digest, f"the teacher that was loaded is {declared}")
        # Step 2
        made = make_up(spec, teacher, wanted, permit)
    # Step 3
    log.info("%s: %d different inputs were made up: %s", spec.name, len(made.payloads), made.synthetic)
    data = _history(spec.name, _masked(spec, made.payloads), made.synthetic)
    uri = f"{settings.artifacts}/{spec.name}/synthetic/{digest_of(data)}.parquet"
    put_bytes(uri, data)
    return uri


def _wanted(spec: Spec, method: str, rows: int, steps: int, seed: int) -> DataFree:
    """The spec's wishes, with a run's own."""
    own = {"method": method or None, "rows": rows or None, "steps": steps or None, "seed": seed if seed >= 0 else None}
    given = {name: value for name, value in own.items() if value is not None}
    base = msgspec.to_builtins(spec.student.data_free)
    try:
        wanted = msgspec.convert({**base, **given}, DataFree)
    except msgspec.ValidationError as error:
        raise ConfigError(FIELD, given, str(error)) from error
    if spec.task not in TASKS:
        raise ConfigError("task", spec.task, f"inputs are made up for {' and '.join(TASKS)} alone")
    check_data_free(wanted, spec.task)
    return wanted


def _masked(spec: Spec, payloads: list[bytes]) -> list[bytes]:
    mask = masker(spec)
    if mask is None:
        return payloads
    masked, left_out = dict[bytes, None](), Counter[str]()
    for payload in payloads:
        try:
            masked[searched(spec, partial(mask, payload)).payload] = None
        except RecordError as error:
            left_out[str(error)] += 1
    if left_out:
        log.warning("%s: %d of %d inputs that were made up are left out: %s", spec.name, left_out.total(),
                    len(payloads), "; ".join(left_out))  # fmt: skip
    if not masked:
        raise RecordError("mask_failed", "none of the inputs that were made up could be searched for personal data")
    return list(masked)


def _history(workload: str, payloads: list[bytes], synthetic: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "id": [synthetic_input(workload, payload, synthetic, time=1.0).id for payload in payloads],
            "payload": pa.array(payloads, pa.binary()),
            "synthetic": pa.array([synthetic] * len(payloads), pa.string()),
        }
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", version="2.6")
    return sink.getvalue()
