"""The error tree. Every error carries its data as attributes and names the remedy in its message.

::

    CohobateError
    ├── ConfigError          a spec, setting or option is wrong: names the field, the value and what is allowed
    ├── RecordError          one record is unusable (poison): ``reason`` is a stable code for dead letters
    ├── TeacherError         the teacher failed or answered something that is not a soft label
    │   ├── TeacherHeldError     the teacher's behaviour was rejected, and it is not back yet
    │   └── EpochChangedError    the labels at hand were made before a decision about the teacher: ask again
    ├── ProvenanceError      a label was not made by the declared teacher or a truth source
    ├── ArtifactError        a student artifact is corrupt, has another digest, or does not fit its card
    │   ├── UntrustedError       it is not signed as the policy asks: ``reason`` is a stable code
    │   └── ParityError          an export answers otherwise than the artefact that was judged
    ├── NotFoundError        a named thing does not exist (model version, rollout, snapshot, workload)
    ├── ForeignVersionError  a version in the model registry was not registered by Cohobate
    ├── LedgerError          the ledger was changed, cut or reordered: names the first bad entry
    ├── TransitionError      a rollout verb is not legal in the present state
    ├── OrderError           the rollout controller refused an order, or did not take it in time
    ├── PipelineError        a pipeline run failed, or may not start beside another
    ├── AccessError          an outside service answers, but does not let us in: credentials, certificate, permission
    ├── RefusedError         an outside service answers, and refuses what was asked as it stands
    │   └── ExistsError          what was to be made there exists already
    ├── UnavailableError     an outside service does not answer
    │   ├── UnansweredError      a teacher's server was reached, and gave no answer to this very request
    │   └── FinderError          what looks for personal data failed: on this text, or on all
    ├── RemainsError         something of what was to be forgotten is still there: name where, and give the order again
    ├── FencedError          another process took over what this one was doing: it must let go
    └── LostPositionsError   the broker no longer has the records that a group stands at
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class CohobateError(Exception):
    """Base of all errors that Cohobate raises on purpose. They may be pickled, so that Ray can hand them on."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Made again from what it says and carries: Python would call the class with its message alone."""
        return _again, (type(self), self.args), self.__dict__


def _again(kind: type[CohobateError], args: tuple[Any, ...]) -> CohobateError:
    return kind.__new__(kind, *args)


class ConfigError(CohobateError):
    """A configured value is not allowed."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field} is {value!r}: {allowed}")
        self.field, self.value, self.allowed = field, value, allowed


class RecordError(CohobateError):
    """One record cannot be used; it belongs in the dead letters under ``reason`` (a stable snake_case code)."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class TeacherError(CohobateError):
    """The teacher failed or answered something that is not a valid soft label."""

    def __init__(self, teacher: str, detail: str) -> None:
        super().__init__(f"teacher {teacher}: {detail}")
        self.teacher, self.detail = teacher, detail


class TeacherHeldError(TeacherError):
    """The teacher's behaviour was rejected; nothing is labelled until it answers its probes as before."""

    def __init__(self, teacher: str, workload: str) -> None:
        super().__init__(
            teacher,
            f"its behaviour was rejected and it still answers otherwise; {workload} waits for the right teacher "
            f"(or take the new behaviour: cohobate teacher accept --spec {workload} --reason ...)",
        )
        self.workload = workload


class EpochChangedError(TeacherError):
    """The labels at hand were made before a decision about the teacher; nothing of them was sent: label again."""

    def __init__(self, made: str, now: str) -> None:
        super().__init__(made, f"a person decided about it meanwhile; label the batch again as {now}")
        self.made, self.now = made, now


class ProvenanceError(CohobateError):
    """A label's teacher is not the declared one."""

    def __init__(self, input_id: str, declared: str, found: str) -> None:
        super().__init__(
            f"label of input {input_id!r} was made by {found!r}, not by the declared teacher {declared!r}: "
            "it is refused; if the teacher was replaced on purpose, declare the new digest in the spec"
        )
        self.input_id, self.declared, self.found = input_id, declared, found


class ArtifactError(CohobateError):
    """A student artifact cannot be trusted or loaded."""

    def __init__(self, uri: str, detail: str) -> None:
        super().__init__(f"artifact {uri}: {detail}")
        self.uri, self.detail = uri, detail


class UntrustedError(ArtifactError):
    """An artifact's signature is missing or does not count.

    ``reason`` is a stable code: ``unsigned``, ``foreign_key``, ``expired_key``, ``revoked_key``, ``forged`` (the
    signature does not fit), ``other_kind``, ``other_subject`` (it is of another file), ``other_workload``,
    ``other_version``, ``other_verdict``, ``other_evidence`` or ``other_federation``.
    """

    def __init__(self, uri: str, reason: str, detail: str) -> None:
        super().__init__(uri, detail)
        self.reason = reason


class ParityError(ArtifactError):
    """An export answers otherwise than the artefact that was judged, or it is not known; ``gap`` is in [0, 1]."""

    def __init__(self, uri: str, detail: str, gap: float | None) -> None:
        super().__init__(uri, detail)
        self.gap = gap


class NotFoundError(CohobateError):
    """A named thing does not exist."""

    def __init__(self, kind: str, name: str, remedy: str) -> None:
        super().__init__(f"no {kind} {name!r}: {remedy}")
        self.kind, self.name, self.remedy = kind, name, remedy


class ForeignVersionError(CohobateError):
    """A model version that was made by hand or by another program: it names no artifact that could serve."""

    def __init__(self, model: str, version: str, why: str) -> None:
        super().__init__(
            f"{model} version {version} is not ours ({why}): name a version that a pipeline registered "
            "('cohobate status' lists them), or take the alias from this one in MLflow"
        )
        self.model, self.version, self.why = model, version, why


class LedgerError(CohobateError):
    """The ledger is not what was written; ``seq`` is the first entry that does not fit (from 1)."""

    def __init__(self, seq: int, detail: str) -> None:
        super().__init__(
            f"ledger entry {seq} {detail}: entries from {seq} on prove nothing; restore the control database from a "
            "backup whose ledger verifies, and find out who wrote to the table"
        )
        self.seq, self.detail = seq, detail


class TransitionError(CohobateError):
    """A rollout verb is not legal in the present state."""

    def __init__(self, verb: str, state: str, legal: tuple[str, ...]) -> None:
        super().__init__(f"cannot {verb} while {state}: legal now are {', '.join(legal) or 'none'}")
        self.verb, self.state, self.legal = verb, state, legal


class OrderError(CohobateError):
    """An order was refused, or no controller took it in time; ``outcome`` says which and what to do."""

    def __init__(self, verb: str, workload: str, outcome: str) -> None:
        super().__init__(f"order to {verb} {workload}: {outcome}")
        self.verb, self.workload, self.outcome = verb, workload, outcome


class PipelineError(CohobateError):
    """A pipeline run failed or may not start; ``detail`` says why and where to look."""

    def __init__(self, pipeline: str, workload: str, detail: str) -> None:
        super().__init__(f"pipeline {pipeline} of {workload}: {detail}")
        self.pipeline, self.workload, self.detail = pipeline, workload, detail


class UnavailableError(CohobateError):
    """An outside service does not answer."""

    def __init__(self, service: str, address: str, remedy: str) -> None:
        super().__init__(f"{service} at {address} does not answer: {remedy}")
        self.service, self.address, self.remedy = service, address, remedy


class UnansweredError(UnavailableError):
    """A teacher's server was reached and gave no answer to a request: it failed, broke off or hung.

    It may be away, or die of one input: what it answers to others tells. ``payloads``: the payloads of the requests
    without an answer, as they were given; empty where that is not known. Whoever raises this has what it sends again
    paid for (:func:`components.teachers.contract.metered`).
    """

    def __init__(self, service: str, address: str, remedy: str, payloads: tuple[object, ...] = ()) -> None:
        super().__init__(service, address, remedy)
        self.payloads = payloads


class FinderError(UnavailableError):
    """What looks for personal data failed, on this text or on all: what it does with another one tells.

    The text is not kept. ``remedy``: what happened.
    """

    def __init__(self, finder: str, remedy: str) -> None:
        super().__init__("masking.finder", finder, remedy)


class AccessError(CohobateError):
    """An outside service answers, but refuses us; trying again without a change is of no use.

    ``cause`` is a stable code: ``password``, ``token``, ``mechanism``, ``authority`` (the CA), ``hostname``,
    ``certificate``, ``protocol`` (TLS or SASL is missing, or not spoken there) or ``permission`` (an ACL).
    """

    def __init__(self, service: str, address: str, cause: str, detail: str, remedy: str) -> None:
        super().__init__(f"{service} at {address} refuses us ({cause}): {detail}: {remedy}")
        self.service, self.address, self.cause, self.detail, self.remedy = service, address, cause, detail, remedy


class RefusedError(CohobateError):
    """An outside service answers and lets us in, but refuses what was asked: ``detail`` is what it says."""

    def __init__(self, service: str, address: str, detail: str, remedy: str) -> None:
        super().__init__(f"{service} at {address} refused: {detail}: {remedy}")
        self.service, self.address, self.detail, self.remedy = service, address, detail, remedy


class ExistsError(RefusedError):
    """What was to be made exists already, made by somebody else or at the same moment."""


class FencedError(CohobateError):
    """Another process took over ``what``; nothing that was under way here has become visible, and nothing will."""

    def __init__(self, what: str, detail: str) -> None:
        super().__init__(f"{what} was taken over: {detail}; let go of it, and open it anew only if it is yours again")
        self.what, self.detail = what, detail


class LostPositionsError(CohobateError):
    """The records that a group would read next are gone, and its policy says to stop rather than to read on."""

    def __init__(self, topic: str, partition: int, wanted: int, earliest: int) -> None:
        super().__init__(
            f"{topic}-{partition} has no offset {wanted} any more (the earliest is {earliest}): find out whether the "
            "broker lost its records or retention passed them; to read on from the earliest set the policy to earliest"
        )
        self.topic, self.partition, self.wanted, self.earliest = topic, partition, wanted, earliest


class RemainsError(CohobateError):
    """Something of an entity that was to be forgotten is still there, or came while it was erased."""

    def __init__(self, workload: str, order: str, where: Mapping[str, int]) -> None:
        places = ", ".join(f"{count} in {place}" for place, count in where.items())
        super().__init__(
            f"order {order} of {workload} is not done: there are still {places}: give it again, it goes on"
        )
        self.workload, self.order, self.where = workload, order, dict(where)
