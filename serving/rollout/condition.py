"""The condition of a workload, in one word, and what to press next. Pure: ``cohobate status`` and the console share it.

The words, worst first (:data:`STATES`):

- ``stale``: what is known is too old to say more. No replica, no leading controller, or a worker that fell silent.
- ``no champion``: nothing serves yet.
- ``rolled back``: the last decision took a student back, and nothing was promoted or begun since.
- ``paused``: a rollout holds its weight and waits for a person.
- ``guarded``: the champion is shown to disagree with the teacher more often than was promised, and replicas defer more
  until it is shown to keep its promise again, or another champion serves; or a rollout is under way and its guards have
  half of the evidence that takes a candidate back (half on the logarithmic scale, on which evidence adds up).
- ``canary``: a candidate has a share of the requests.
- ``shadow``: a candidate answers beside the champion, and no user gets its answers.
- ``serving``: the champion alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal, get_args

import msgspec

from components.control.alarm_kinds import MONITORED

State = Literal["stale", "no champion", "rolled back", "paused", "guarded", "canary", "shadow", "serving"]
STATES: tuple[State, ...] = get_args(State)

MOST_AGE = {"labeler": 300.0, "monitor": 60.0, "trigger": 60.0}
"""How old a worker's report may be (seconds), by its name; ``labeler-2`` is a labeler's too. Each renews its report
every 10 s, unless one piece of its work takes longer: a slow teacher's call with all its retries, fitting a reference.
The other reports are renewed when something happens, and are never stale."""

FORGET, RETENTION = "forget", "retention"
"""The runs that are recorded while an entity is forgotten, whose order alone can be given again, by who knows the key,
and while what is too old is deleted."""

FAILED = ("failed", "abandoned")
"""How a run ends that is to be looked after."""

LOADING = "it is being loaded"
"""Why a champion does not answer yet."""

UPDATES = MONITORED
"""Alarms that are answered by an update of the student."""

LOST_SECONDS = 3600.0
"""How long an alarm about lost positions is open: nobody can mend what it tells of."""


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """The last rollout. ``at``: when it entered its phase (Unix seconds); ``evidence`` of its guards against ``limit``.

    ``weight``: the candidate's share by the rollout's step, whatever is in force.
    """

    id: str
    phase: str
    candidate: str
    champion: str
    at: float
    weight: float = 0.0
    reason: str = ""
    actor: str = ""
    evidence: float = 0.0
    limit: float = float("inf")


class Crowned(msgspec.Struct, frozen=True, kw_only=True):
    """The decision by which the champion serves: ``how`` as the ledger calls it, ``at`` in Unix seconds."""

    version: str
    how: str
    at: float
    actor: str = ""
    reason: str = ""


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """A champion that does not keep its promise: answers of a confidence below ``defer_below`` are deferred.

    ``at``: since when (Unix seconds); ``reason``: of the last step.
    """

    defer_below: float
    at: float | None = None
    reason: str = ""


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """An alarm. ``champion``: the version that served when a monitor raised it; ``rollout``: of its own.

    ``id``: its row's, where it was read from one.
    """

    kind: str
    at: float
    champion: str | None = None
    rollout: str | None = None
    id: int = 0


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The last pipeline run, a sweep by age only where it failed.

    ``status``: ``running``, ``succeeded``, ``failed`` or ``abandoned``.
    """

    id: str
    pipeline: str
    status: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a condition follows from. Times are Unix seconds, ages seconds.

    ``replicas`` live; ``leader_age``: since the leading controller's last sign of life, None where none leads;
    ``leader_term``: its lease's. ``reports``: ages of the workers' reports by name, at least of those that are too old.
    ``teacher``: ``trusted``, ``suspect`` or ``held``, None where no teacher is watched. ``alarms``: the last that were
    not answered, oldest first. ``trigger``: why no update starts. ``guard``: where the champion does not keep its
    promise. ``columns_absent``: those of ``masking.columns`` that no label of the newest window had, None where none
    are named. ``refused``: why the champion answers nowhere, where no live replica has one (:data:`LOADING` where none
    says why); empty where one answers.
    """

    now: float
    workload: str
    champion: str | None
    candidate: str | None
    weight: float
    replicas: int
    leader_age: float | None
    leader_term: float
    reports: Mapping[str, float]
    previous: str | None = None
    crowned: Crowned | None = None
    rollout: Rollout | None = None
    alarms: tuple[Alarm, ...] = ()
    run: Run | None = None
    teacher: str | None = None
    trigger: str = ""
    spec: str = "SPEC"
    guard: Promise | None = None
    columns_absent: tuple[str, ...] | None = None
    refused: str = ""

    @property
    def alarm(self) -> Alarm | None:
        """The last alarm."""
        return self.alarms[-1] if self.alarms else None

    @property
    def open_alarms(self) -> tuple[Alarm, ...]:
        """Those of which something is still to be done."""
        return tuple(alarm for alarm in self.alarms if is_open(alarm, self))


class Press(msgspec.Struct, frozen=True, kw_only=True):
    """The next thing to do. ``command`` is empty where nothing is to be done; ``verb``: the rollout's, where it is one.

    ``remark`` says why, or what the platform does by itself.
    """

    remark: str
    command: str = ""
    verb: str = ""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """The condition: ``word`` is the state as it is shown (``canary 5 %``), ``since`` in Unix seconds where known."""

    state: State
    word: str
    why: str
    press: Press
    since: float | None = None
    alarm: str = ""
    """What is being done about the last alarm; empty without one that is open."""

    @property
    def rank(self) -> int:
        """Where it stands among :data:`STATES`: 0 is the worst."""
        return STATES.index(self.state)


def condition(facts: Facts) -> Condition:
    """What state a workload is in, and what to press.

    >>> found = condition(Facts(now=9.0, workload="w", champion="7", candidate=None, weight=0.0, replicas=2,
    ...                         leader_age=1.0, leader_term=5.0, reports={}))
    >>> found.word, found.press.command
    ('serving', '')
    """
    state, why, since = _watched(facts, _state(facts))
    word = f"{state} {100 * facts.weight:g} %" if state == "canary" else state
    last = facts.alarm
    return Condition(
        state=state,
        word=word,
        why=why,
        since=since,
        press=_press(facts, state),
        alarm=response(last, facts) if last is not None and is_open(last, facts) else "",
    )


def stale_reports(reports: Mapping[str, float]) -> Iterator[str]:
    """The names of the reports that are older than they should be.

    >>> list(stale_reports({"labeler": 12.0, "labeler-2": 301.0, "drift": 900.0}))
    ['labeler-2']
    """
    for name, age in reports.items():
        if age > MOST_AGE.get(name.partition("-")[0], math.inf):
            yield name


def leads(facts: Facts) -> bool:
    """Whether a controller leads the workload: its last sign of life is no older than two terms of its lease."""
    return facts.leader_age is not None and facts.leader_age <= 2.0 * facts.leader_term


def is_open(alarm: Alarm, facts: Facts) -> bool:
    """Whether something is still to be done about an alarm, by a person or by the platform."""
    if alarm.kind == "teacher":
        return facts.teacher in ("suspect", "held")
    if alarm.rollout is not None:
        return facts.rollout is not None and facts.rollout.id == alarm.rollout and under_way(facts.rollout)
    if alarm.kind == "lost_positions":
        return facts.now - alarm.at < LOST_SECONDS
    if alarm.kind == "guarded" and facts.guard is None:
        return False
    return alarm.champion == facts.champion


def response(alarm: Alarm, facts: Facts) -> str:
    """What is being done about an alarm that is open."""
    if alarm.kind == "teacher":
        if facts.teacher == "held":
            return "rejected: nothing is labelled until it answers as before"
        return "its labels are in quarantine until a person decides"
    if alarm.kind == "lost_positions":
        return "the labeler read on from where the broker begins"
    if alarm.rollout is not None:
        return "the split is not what was ordered: a person decides"
    if facts.rollout is not None and under_way(facts.rollout):
        return f"v{facts.rollout.candidate} is being rolled out"
    if facts.run is not None and facts.run.status == "running":
        return f"run {facts.run.id} is under way"
    return f"an update is to come ({facts.trigger})" if facts.trigger else "an update is to come"


def under_way(rollout: Rollout) -> bool:
    """Whether a rollout has not ended."""
    return rollout.phase in ("shadow", "canary", "paused")


def _state(facts: Facts) -> tuple[State, str, float | None]:
    """The state, why, and since when."""
    silent = _silent(facts)
    if silent is not None:
        return "stale", silent[0], facts.now - silent[1] if silent[1] is not None else None
    if facts.champion is None:
        return "no champion", "no student was promoted yet", None
    if facts.refused:
        return "no champion", f"v{facts.champion} answers nowhere: {facts.refused}", None
    rollout = facts.rollout
    if rollout is not None and under_way(rollout):
        return _rolling(facts, rollout)
    if rollout is not None and rollout.phase == "rolled_back" and facts.champion == rollout.champion:
        return "rolled back", _decided(rollout.reason, rollout.actor), rollout.at
    crowned = facts.crowned
    if crowned is not None and crowned.version == facts.champion and crowned.how == "rollback":
        return "rolled back", _decided(crowned.reason, crowned.actor), crowned.at
    since = crowned.at if crowned is not None and crowned.version == facts.champion else None
    return "serving", "the champion alone answers", since


def _watched(facts: Facts, found: tuple[State, str, float | None]) -> tuple[State, str, float | None]:
    """The same, where the champion keeps its promise; else that it is guarded, unless something is worse."""
    guard = facts.guard
    if guard is None or STATES.index(found[0]) <= STATES.index("guarded"):
        return found
    share = "every answer is" if guard.defer_below > 1.0 else f"answers of a confidence below {guard.defer_below:g} are"
    return "guarded", f"v{facts.champion}: {share} deferred: {guard.reason or 'no reason is known'}", guard.at


def _silent(facts: Facts) -> tuple[str, float | None] | None:
    """What is silent, and for how long; None where all is heard."""
    if facts.replicas == 0 and facts.champion is not None:
        return "no gateway replica is heard", None
    if not leads(facts):
        return "no controller leads", facts.leader_age
    old = list(stale_reports(facts.reports))
    if old:
        return f"not heard: {', '.join(old)}", min(facts.reports[name] for name in old)
    return None


def _rolling(facts: Facts, rollout: Rollout) -> tuple[State, str, float]:
    who = f"v{rollout.candidate} against v{rollout.champion}"
    if rollout.phase == "paused":
        return "paused", _decided(rollout.reason, rollout.actor), rollout.at
    if rollout.weight > 0.0 and facts.weight == 0.0:
        return "guarded", f"{who}: its lease ended, the champion answers alone", rollout.at
    if rollout.evidence**2 >= rollout.limit:
        why = f"{who}: evidence {rollout.evidence:.3g} against it, limit {rollout.limit:.3g}"
        return "guarded", why, rollout.at
    return ("canary" if rollout.weight > 0.0 else "shadow"), f"{who}: {rollout.reason or 'all is well'}", rollout.at


def _decided(reason: str, actor: str) -> str:
    return f"{reason or 'no reason given'} (by {actor})" if actor else reason or "no reason given"


def _press(facts: Facts, state: State) -> Press:
    """The most urgent thing first."""
    of = f'--workload {facts.workload} --reason "…"'
    if state == "stale":
        return Press(remark=_silent_remark(facts), command="cohobate up")
    if facts.teacher == "suspect":
        return Press(
            remark="the teacher changed: ask its owner whether that was meant, then accept or reject",
            command=f'cohobate teacher reject --spec {facts.spec} --reason "…"',
        )
    if any(alarm.rollout is not None for alarm in facts.open_alarms):
        return Press(remark="sample-ratio mismatch", command=f"cohobate rollout abort {of}", verb="abort")
    if state == "no champion":
        return _first(facts)
    rollout = facts.rollout
    trying = rollout is not None and under_way(rollout)
    if state == "guarded" and rollout is not None and trying and _rolling(facts, rollout)[0] != "guarded":
        return Press(remark=f"nothing: v{rollout.candidate} is tried, which ends it; others answer meanwhile")
    if state == "guarded" and not trying:
        return Press(remark="nothing: an update, or its own answers, end it; others answer meanwhile")
    if state == "guarded":
        return Press(
            remark="it is taken back by itself if this goes on; now", command=f"cohobate rollout rollback {of}",
            verb="rollback",
        )  # fmt: skip
    if state == "paused":
        return Press(remark="go on (rollback takes it back)", command=f"cohobate rollout resume {of}", verb="resume")
    if facts.run is not None and facts.run.status in FAILED and facts.run.pipeline == FORGET:
        remark = f"run {facts.run.id} {facts.run.status}: give the order again, it goes on; what there is"
        return Press(remark=remark, command=f"cohobate forget --list --workload {facts.workload}")
    if facts.run is not None and facts.run.status in FAILED and facts.run.pipeline == RETENTION:
        remark = f"run {facts.run.id} {facts.run.status}: it is tried again within a day, or now by"
        return Press(remark=remark, command=f"cohobate retention --workload {facts.workload}")
    if facts.run is not None and facts.run.status in FAILED:
        return Press(
            remark=f"run {facts.run.id} {facts.run.status}: its log, then",
            command=_run(facts, facts.run.pipeline),
        )
    return Press(remark=_goes_on(state))


def _silent_remark(facts: Facts) -> str:
    if facts.leader_age is None and not facts.reports:
        return "nothing has run it yet: 'cohobate down' what runs here, and start it with this spec beside the others'"
    silent = _silent(facts)
    return f"{silent[0] if silent else 'silent'}: look at its log, and start the platform"


def _first(facts: Facts) -> Press:
    if facts.refused == LOADING:
        return Press(remark="nothing: replicas are loading it")
    if facts.champion is not None:
        remark = "mend what keeps it from loading, or take a version that loads"
        command = f'cohobate rollout rollback --to VERSION --workload {facts.workload} --reason "…"'
        return Press(remark=remark, command=command, verb="rollback")
    if facts.run is not None and facts.run.status == "running":
        return Press(remark=f"nothing: run {facts.run.id} makes the first student")
    if facts.rollout is not None or facts.candidate is not None:
        return Press(remark="nothing: the first student is being admitted")
    return Press(
        remark="make the first student from a history",
        command=_run(facts, "bootstrap"),
    )


def _run(facts: Facts, pipeline: str) -> str:
    """The command that runs a pipeline, with what it cannot do without."""
    needed = " --param history_uri=HISTORY" if pipeline == "bootstrap" else ""
    return f'cohobate pipeline run {pipeline} --spec {facts.spec}{needed} --reason "…"'


def _goes_on(state: State) -> str:
    if state in ("canary", "shadow"):
        return "nothing: it goes on, or is taken back, by itself"
    return "nothing"
