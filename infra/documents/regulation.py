"""Technical documentation by the points of Annex IV of Regulation (EU) 2024/1689, and a profile of the NIST AI RMF 1.0.

Each point is there, with what the platform recorded of it, what the spec declares, and the blanks that are left. That
a point has a statement does not mean that what the law, or the framework, asks for is met: a person judges that.
"""

from __future__ import annotations

from components.contracts.spec.student import LEAST_EPOCHS, LEAST_STEPS
from infra.documents.cards import (
    UNJUDGED,
    across,
    document,
    findings,
    licences,
    limits,
    measured,
    quality,
    told_of_extraction,
    told_of_members,
    use,
)
from infra.documents.document import Document, Statement, declared, fact, person, section
from infra.documents.facts import Facts, told

ANNEX_NOTE = (
    "Follows the points of Annex IV of Regulation (EU) 2024/1689. Made of what the platform recorded and of what the "
    "spec declares; whether the regulation applies, and whether this is enough, is for a person to judge."
)

NIST_NOTE = (
    "Follows the functions and categories of the NIST AI Risk Management Framework 1.0 (NIST AI 100-1), as far as a "
    "platform can tell of them. Whether an outcome is achieved is for a person to judge."
)

ROLLOUT = ("rollout start", "rollout step", "rollout promote", "rollout rollback", "rollout abort", "first champion")


def _history(facts: Facts) -> Statement:
    rows = facts.entries_of("register", "sign", "rollback", *ROLLOUT)
    told_of = tuple(
        {"entry": r.seq, "at": r.at, "who": r.actor, "what": r.action, "why": str(r.detail.get("reason", ""))}
        for r in rows
    )
    return fact("history", "What happened to this version", told_of, *facts.refs(rows),
                absent="the ledger has no entry of it")  # fmt: skip


def _oversight(facts: Facts, id: str) -> tuple[Statement, ...]:
    rollout = facts.spec.rollout
    steps = ", ".join(f"{s.weight:.0%}" for s in rollout.steps)
    stops = f"a candidate gets {steps} of the requests, step by step, and is taken back by itself when a guard fires; "
    about = facts.spec.about
    return (
        fact(f"{id}.measures", "Measures that are built in",
             stops + "a person may pause, abort and roll back at any time, and each order stands in the ledger",
             facts.spec_ref),
        declared(f"{id}.who", "Who watches", about.oversight, "about.oversight", facts.spec_ref),
    )  # fmt: skip


def _drift(facts: Facts) -> str:
    m = facts.spec.monitor
    size = f"windows of {m.window} inputs against {m.reference}"
    return f"{size}, false alarms at {m.alpha:g}, effects from {m.min_effect:g}"


def _windows(facts: Facts) -> Statement:
    rows = tuple({"number": w.number, "sha256": w.digest, "rows": w.rows} for w in facts.windows)
    return fact("data.windows", "Data sets", rows, *facts.windows_ref, absent="the snapshots are not recorded any more")


def annex_iv(facts: Facts) -> Document:
    """The technical documentation."""
    card, spec, info, about = facts.card, facts.spec, facts.info, facts.spec.about
    ref, code = facts.spec_ref, f"cohobate {card.code}"
    more = "" if spec.student.privacy else f" (more where they make fewer than {LEAST_STEPS} steps)"
    epochs = spec.student.epochs or f"{LEAST_EPOCHS}{more}"
    training = f"{card.learnt} of {card.labels} labels of teacher {card.teacher}; epochs: {epochs}"
    packages = {n: facts.packages[n] for n in ("torch", "onnx", "onnxruntime", "ray", "mlflow") if n in facts.packages}
    security = (
        f"artifacts are named and checked by SHA-256; {facts.signed}; a student is tried in a process of its own "
        "before a replica loads it, and only ONNX is accepted"
    )
    origin = f"updated from version {card.parent}" if card.parent else "began fresh"
    origin += f", the lineage with {facts.start}" if facts.start else ""
    return document(
        facts, "annex-iv", f"Technical documentation of {facts.workload}, version {info.version}", ANNEX_NOTE,
        section(
            "1", "1. General description",
            declared("1a.purpose", "1(a) Intended purpose", about.intended_use, "about.intended_use", ref),
            declared("1a.provider", "1(a) Name of the provider", about.provider, "about.provider", ref),
            fact("1a.version", "1(a) Version, and its relation to earlier ones",
                 f"version {info.version}, {origin}", facts.registry_ref, facts.card_ref),
            fact("1b.interaction", "1(b) How it interacts with other software",
                 f"by HTTP, Kafka topics {spec.name}.*, and the teacher {spec.teacher.factory}; it defers to "
                 f"{', '.join(spec.serve.deferral.to) or 'nobody'}", ref),
            fact("1c.software", "1(c) Versions of relevant software",
                 (f"{code}", *(f"{n} {v}" for n, v in packages.items())), facts.card_ref),
            fact("1d.forms", "1(d) Forms in which it is put into service",
                 f"an ONNX file of {facts.size} bytes ({card.form}), in {spec.serve.replicas} replicas of a gateway",
                 facts.card_ref, ref),
            person("1e.hardware", "1(e) Hardware that it is intended to run on", "say which"),
            person("1f.product", "1(f) Product that it is a component of", "describe it, or that there is none"),
            person("1g.interface", "1(g) Interface that deployers are given", "describe it"),
            declared("1h.instructions", "1(h) Instructions for use", about.instructions, "about.instructions", ref),
        ),
        section(
            "2", "2. Elements, and how it was developed",
            fact("2a.methods", "2(a) Methods and steps of development",
                 f"distilled from a teacher: {training}, by the pipelines bootstrap and continual; judged on the "
                 "exported file", facts.card_ref, ref),
            fact("2a.third", "2(a) Pre-trained systems of others",
                 f"the teacher {card.teacher} ({spec.teacher.factory})", facts.card_ref, ref),
            *licences(facts),
            fact("2b.logic", "2(b) General logic, and what it answers",
                 f"{spec.features.factory}, then {card.network.factory} {told(card.network.options)}; "
                 f"{card.task} in {card.space}", facts.card_ref),
            fact("2b.optimised", "2(b) What it is optimised for",
                 told([t.name for t in spec.student.objective_of(spec.student.variants[0], spec.task)]), ref),
            person("2b.choices", "2(b) Rationale of the design, assumptions, and persons concerned", "give them"),
            fact("2c.architecture", "2(c) Architecture",
                 f"{facts.size} bytes; inputs {told(sorted(card.inputs))}", facts.card_ref),
            person("2c.resources", "2(c) Computational resources for development, training and testing", "name them"),
            _windows(facts),
            fact("2d.labelling", "2(d) How it was labelled",
                 f"by {card.teacher}; {told(facts.policies) if facts.policies else 'the snapshots are not at hand'}",
                 *facts.windows_ref),
            declared("2d.origin", "2(d) Origin of the data", spec.data.origin, "data.origin", ref),
            declared("2d.collection", "2(d) How it was obtained and selected", spec.data.collection, "data.collection",
                     ref),
            *_oversight(facts, "2e"),
            fact("2f.changes", "2(f) Changes that are determined beforehand",
                 f"an update with {spec.trigger.min_labels} new labels, or {spec.trigger.alarm_labels} after an alarm, "
                 "judged by the same limits before it serves", ref),
            *quality(facts),
            across(facts, "2g.discrimination", "2(g) Potentially discriminatory impacts: measures between groups"),
            person("2g.signed", "2(g) Test reports, dated and signed by those who answer for them", "sign them"),
            fact("2h.security", "2(h) Cybersecurity measures", security, facts.registry_ref),
        ),
        section(
            "3", "3. Monitoring, functioning and control",
            *limits(facts),
            declared("3.risks", "Foreseeable unintended outcomes, sources of risk", about.risks, "about.risks", ref),
            declared("3.groups", "Persons and groups that it is used on", about.affected, "about.affected", ref),
            *_oversight(facts, "3.oversight"),
            fact("3.inputs", "Specifications of the input data",
                 f"{spec.payload.decoder}, at most {spec.payload.max_bytes} bytes", ref),
        ),
        section(
            "4", "4. Appropriateness of the performance metrics",
            fact("4.metrics", "Metrics that decide", tuple(dict.fromkeys(str(f["measure"]) for f in findings(facts))),
                 facts.evidence_ref or ref, absent=UNJUDGED),
            person("4.why", "Why these metrics are appropriate", "give the reasons"),
        ),
        section("5", "5. Risk management system",
                person("5.risk", "Risk management system (Article 9)", "describe it")),
        section("6", "6. Changes through the lifecycle", _history(facts)),
        section("7", "7. Harmonised standards",
                person("7.standards", "Standards that are applied in full or in part", "list them")),
        section("8", "8. EU declaration of conformity",
                person("8.declaration", "Copy of the declaration", "attach it")),
        section(
            "9", "9. Post-market monitoring",
            fact("9.monitoring", "What is watched once it serves",
                 f"drift: {_drift(facts)}; {spec.serve.audit_share:.0%} of the inputs are audited against the teacher",
                 ref),
            person("9.plan", "Post-market monitoring plan (Article 72)", "attach it"),
        ),
    )  # fmt: skip


def nist(facts: Facts) -> Document:
    """The profile."""
    spec, about, info, ref = facts.spec, facts.spec.about, facts.info, facts.spec_ref
    registered = facts.entries_of("register")
    privacy = facts.card.privacy
    told_privacy = (
        f"epsilon {privacy.epsilon:.4g} at delta {privacy.delta:.3g} for each {privacy.unit}" if privacy else ""
    )
    return document(
        facts, "nist-ai-rmf", f"NIST AI RMF profile of {facts.workload}, version {info.version}", NIST_NOTE,
        section(
            "govern", "GOVERN",
            person("govern.1.1", "GOVERN 1.1 Legal and regulatory requirements", "name those that apply"),
            fact("govern.1.6", "GOVERN 1.6 Inventory", f"registered as version {info.version}", facts.registry_ref,
                 *facts.refs(registered)),
            declared("govern.2.1", "GOVERN 2.1 Roles and responsibilities", about.provider, "about.provider", ref),
            fact("govern.1.4", "GOVERN 1.4 Transparent processes",
                 "every registration, order and decision is an entry of a hash-chained ledger",
                 *facts.refs(facts.ledger[-1:]), absent="the ledger is empty"),
            fact("govern.6.1", "GOVERN 6.1 Third-party software and data", "see MAP 4.1, and the bill of materials",
                 facts.card_ref),
            person("govern.3", "GOVERN 3 Diversity and competence of those who decide", "describe it"),
            person("govern.5", "GOVERN 5 Engagement with those who are concerned", "describe it"),
        ),
        section(
            "map", "MAP",
            *use(facts),
            fact("map.2.1", "MAP 2.1 Task and methods", f"{facts.card.task}, {facts.card.network.factory}",
                 facts.card_ref),
            *limits(facts),
            *licences(facts),
            person("map.1.5", "MAP 1.5 Risk tolerance of the organisation", "say what it is"),
            person("map.5.1", "MAP 5.1 Likelihood and magnitude of each impact", "estimate them"),
        ),
        section(
            "measure", "MEASURE",
            *quality(facts),
            fact("measure.2.4", "MEASURE 2.4 Monitored in production", _drift(facts), ref),
            fact("measure.2.7", "MEASURE 2.7 Security and resilience", facts.signed, facts.registry_ref),
            fact("measure.2.10", "MEASURE 2.10 Privacy risk",
                 told_privacy,
                 facts.card_ref, absent="no account: nothing bounds what the weights tell of a row"),
            told_of_members(facts, "measure.2.10.membership"),
            told_of_extraction(facts, "measure.2.7.extraction"),
            fact("measure.2.6", "MEASURE 2.6 Latency and size",
                 measured(facts, "p50_ms", "p95_ms", "p99_ms", "bytes"), facts.evidence_ref or ref, absent=UNJUDGED),
            across(facts, "measure.2.11", "MEASURE 2.11 Fairness and bias: measures between groups"),
            person("measure.2.12", "MEASURE 2.12 Environmental impact", "estimate it"),
            person("measure.3.3", "MEASURE 3.3 Feedback of those who are concerned", "say how it is taken"),
        ),
        section(
            "manage", "MANAGE",
            fact("manage.1.1", "MANAGE 1.1 Whether to go on",
                 f"the gate's verdict is {facts.verdict.get('decision')}", facts.registry_ref),
            declared("manage.1.3", "MANAGE 1.3 Responses to the risks", about.risks, "about.risks", ref),
            *_oversight(facts, "manage.2.4"),
            _history(facts),
            fact("manage.4.1", "MANAGE 4.1 After deployment",
                 f"an update with {spec.trigger.min_labels} new labels, or {spec.trigger.alarm_labels} after an alarm",
                 ref),
            person("manage.4.3", "MANAGE 4.3 How incidents are told to those who are concerned", "describe it"),
        ),
    )  # fmt: skip
