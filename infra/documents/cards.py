"""The model card (after Mitchell et al. 2019), the data sheet (after Gebru et al. 2021) and the licence report."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from components.contracts.records import CLASSED, OUTSIDE
from components.contracts.spec import GAPS
from components.contracts.spec.declared import terms
from components.contracts.tagging import kind_of
from components.evaluate.measure import curve
from components.evaluate.share import known
from infra.documents.document import Document, Section, Statement, declared, fact, person, section
from infra.documents.facts import Facts, told

NOTE = "Made of what the platform recorded and of what the spec declares. It says nothing of whether that is enough."

UNJUDGED = "it was not judged, or the evidence is gone"


def document(facts: Facts, kind: str, title: str, note: str, *sections: Section) -> Document:
    """A document of a version."""
    return Document(
        kind=kind, title=title, workload=facts.workload, version=facts.info.version, digest=facts.info.ref.digest,
        made_at=facts.made_at, note=note, sections=sections,
    )  # fmt: skip


def findings(facts: Facts) -> tuple[dict[str, Any], ...]:
    """What the gate found, a row a criterion."""
    return tuple(
        {
            "measure": f.measure, "value": f.value, "bound": f.bound, "confidence": f.confidence, "limit": f.limit,
            "outcome": f.outcome, "labels": f.n,
        }
        for f in (facts.judged.findings if facts.judged else ())
    )  # fmt: skip


def measured(facts: Facts, *beginnings: str) -> tuple[dict[str, Any], ...]:
    """Measures whose names begin so, with their bounds; those that could not be measured say so."""
    names = [n for n in facts.measured if n.startswith(beginnings) and not n.endswith(("_lower", "_upper"))]
    return tuple(
        {
            "measure": name, "value": "not measured" if facts.measured[name] is None else facts.measured[name],
            "lower": facts.measured.get(f"{name}_lower"), "upper": facts.measured.get(f"{name}_upper"),
        }
        for name in sorted(names)
    )  # fmt: skip


def use(facts: Facts) -> tuple[Statement, ...]:
    """What people declare of the use."""
    about, ref = facts.spec.about, facts.spec_ref
    return (
        declared("use.intended", "Intended use", about.intended_use, "about.intended_use", ref),
        declared("use.users", "Intended users", about.users, "about.users", ref),
        declared("use.out_of_scope", "Out of scope", about.out_of_scope, "about.out_of_scope", ref),
        declared("use.affected", "Who is concerned by the answers", about.affected, "about.affected", ref),
        declared("use.risks", "Risks, and what is done about them", about.risks, "about.risks", ref),
        declared("use.contact", "Contact", about.contact, "about.contact", ref),
    )


UNCALIBRATED = {
    "regression": "of a regression see coverage",
    "embedding": "of an embedding there is no truth: see agreement, cosine and recall among the measures",
}
"""Why a task has no curve of confidence and what came true."""


def quality(facts: Facts) -> tuple[Statement, ...]:
    """How the version was judged."""
    ref, classes = (facts.evidence_ref,) if facts.evidence_ref else (), facts.card.task in CLASSED
    sure = facts.card.task != "regression"
    decision = str(facts.verdict.get("decision", "it was not judged"))
    forced = ", and a person registered it nevertheless" if facts.verdict.get("forced") else ""
    slices = tuple({"class": name, "accuracy": value} for name, value in sorted(facts.slices.items()))
    curves = tuple(
        {"confidence": b.confidence, "accuracy": b.accuracy, "share": b.share} for b in curve(known(facts.new))
    ) if sure and known(facts.new) else ()  # fmt: skip
    robust = tuple(r for r in measured(facts, "noise", "attack"))
    return (
        fact("quality.verdict", "The gate's verdict", decision + forced, facts.registry_ref, *ref),
        fact("quality.findings", "What the gate found", findings(facts), *ref, absent=UNJUDGED),
        fact("quality.rows", "Held-out rows that it was judged on", len(facts.new) or None, *ref, absent=UNJUDGED),
        fact(
            "quality.measures", "All that was measured",
            tuple(r for r in measured(facts, "") if "[" not in r["measure"]), *ref, absent=UNJUDGED,
        ),
        fact(
            "quality.slices", "Accuracy by true class", slices, *ref,
            absent="no class has enough held-out rows with truth"
            if classes
            else f"{facts.card.task} has no classes of inputs",
        ),
        fact(
            "quality.calibration", "Calibration: confidence, and what came true", curves, *ref,
            absent=UNCALIBRATED.get(facts.card.task, "no held-out row has a truth"),
        ),
        *([fact(
            "quality.spans", "Spans that are found, by exact boundaries and kind (F1), of all and by kind",
            measured(facts, "span_", "teacher_span_"), *ref, absent=UNJUDGED,
        )] if facts.card.task == "tagging" else []),
        fact(
            "quality.robustness", "Agreement that is lost under disturbed inputs", robust, *ref,
            absent="not measured: limits.max_noise_loss and limits.max_attack_loss ask for it",
        ),
        fact(
            "quality.groups", "Declared groups: shares of each, and the largest gap between two", groups(facts), *ref,
            absent="limits.groups declares none",
        ),
        fact(
            "quality.forgetting", "Older regimes", measured(facts, "forgetting"), *ref,
            absent="there was no champion, or no older window, to compare with",
        ),
    )  # fmt: skip


def groups(facts: Facts) -> tuple[dict[str, Any], ...]:
    """What was measured of the groups that the spec declares."""
    return measured(facts, "group_", "ungrouped_rows", *(f"{gap}[" for gap in GAPS))


def across(facts: Facts, id: str, title: str) -> Statement:
    """What was measured between groups where it was; whether that is enough a person says with the rest."""
    if found := groups(facts):
        return fact(id, title, found, *((facts.evidence_ref,) if facts.evidence_ref else ()))
    return person(id, title, "declare limits.groups in the spec, or say for which groups it was looked at, and how")


def told_of_members(facts: Facts, id: str) -> Statement:
    """What was measured of how far answers tell which rows were learnt from."""
    return fact(
        id, "Membership inference by a threshold of the loss (Yeom et al. 2018): what it gains over guessing",
        measured(facts, "membership_"), *((facts.evidence_ref,) if facts.evidence_ref else ()),
        absent="not measured: beside student.privacy it is not, nor where it is not known what was learnt from",
    )  # fmt: skip


def told_of_extraction(facts: Facts, id: str) -> Statement:
    """What was measured of how well the answers teach another model to answer alike."""
    return fact(
        id, "Model extraction (Tramèr et al. 2016): how often a model that learnt from its answers says what it says",
        measured(facts, "extraction_"), *((facts.evidence_ref,) if facts.evidence_ref else ()),
        absent="not measured: limits.max_extraction_fidelity or limits.extraction asks for it, and takes rows enough",
    )  # fmt: skip


def masked(facts: Facts, id: str) -> Statement:
    """Placeholders of personal data in the snapshots, which says what was found and nothing of what was not."""
    counts = Counter[str]()
    for window in facts.windows:
        counts.update(window.manifest.get("masked", {}))
    kinds = facts.spec.masking.entities if facts.spec.masking is not None else ()
    return fact(
        id, "Personal data that was found in texts and masked before they were kept; what the search missed is in them",
        tuple({"kind": kind, "found": counts[kind]} for kind in kinds), *facts.windows_ref,
        absent="nothing was looked for: the spec has no masking",
    )  # fmt: skip


def limits(facts: Facts) -> tuple[Statement, ...]:
    """What it is known not to do."""
    notes = facts.evidence.judgement.notes if facts.evidence else ()
    serve, unasked = facts.spec.serve, tuple(r["measure"] for r in measured(facts, "") if r["value"] == "not measured")
    defers = (
        f"answers of a confidence below {facts.info.ref.defer_below:.4g}, as its evaluation certified"
        if facts.info.ref.defer_below is not None
        else f"answers of a confidence below {serve.defer_below:g}" if serve.defer_below else "none by confidence"
    )  # fmt: skip
    novelty = f"; inputs with a p-value of novelty of at most {serve.novelty:g}" if serve.novelty is not None else ""
    count, kinds = len(facts.card.classes), len({kind_of(tag) for tag in facts.card.classes} - {OUTSIDE})
    space = {
        "classification": f"{count} classes: any other is answered as one of them",
        "multilabel": f"sets of {count} classes: any other is in none of them",
        "tagging": f"spans of {kinds} kinds: any other is taken for one of them, or for none",
        "embedding": f"a vector of {facts.card.dimension} numbers in {facts.card.space}",
    }.get(facts.card.task, f"a value in {facts.card.space}")
    return (
        fact("limits.space", "What it can answer", space, facts.card_ref),
        fact("limits.defers", "What it defers", defers + novelty, facts.registry_ref, facts.spec_ref),
        fact("limits.not_demanded", "What was not demanded of it, and why", notes, facts.evidence_ref or facts.spec_ref,
             absent="all criteria of the spec were judged"),
        fact("limits.not_measured", "What could not be measured", unasked, facts.evidence_ref or facts.registry_ref,
             absent="nothing that was asked for"),
        fact("limits.teacher", "Whose mistakes it repeats", f"those of its teacher, {facts.card.teacher}",
             facts.card_ref),
    )  # fmt: skip


def model_card(facts: Facts) -> Document:
    """The model card."""
    card, info = facts.card, facts.info
    privacy = (
        f"({card.privacy.epsilon:.4g}, {card.privacy.delta:.3g})-differential privacy of each {card.privacy.unit}"
        if card.privacy
        else None
    )
    return document(
        facts, "model-card", f"Model card of {facts.workload}, version {info.version}", NOTE,
        section(
            "identity", "What it is",
            fact("identity.version", "Version", info.version, facts.registry_ref),
            fact("identity.digest", "SHA-256 of the artifact", info.ref.digest, facts.registry_ref),
            fact("identity.task", "Task", f"{card.task} in {card.space}", facts.card_ref),
            fact("identity.classes", "Classes", card.classes, facts.card_ref, absent=f"{card.task} has none"),
            fact("identity.network", "Network",
                 f"{card.network.factory} {told(card.network.options)}, {card.form}, {facts.size} bytes",
                 facts.card_ref),
            fact("identity.teacher", "Teacher that it was distilled from", card.teacher, facts.card_ref),
            fact("identity.parent", "Version that it was updated from", card.parent, facts.card_ref,
                 absent="none: it began fresh"),
            fact("identity.start", "Student of a federation that its lineage began with", facts.start, facts.card_ref,
                 absent="none: it began here"),
            fact("identity.spec", "Spec", f"{facts.spec.digest}, "
                 + ("as it was registered with" if facts.as_registered else "as the file is now"), facts.spec_ref),
            fact("identity.code", "Version of the platform's code", card.code, facts.card_ref),
            fact("identity.signature", "Signature", facts.signed, f"student:{info.ref.digest}"),
        ),
        section("use", "What it is for", *use(facts)),
        section(
            "training", "What it learnt from",
            fact("training.snapshots", "Snapshots", tuple(card.snapshots), facts.card_ref),
            fact("training.labels", "Labels of its windows, and how many of them it may have learnt from",
                 f"{card.learnt} of {card.labels}", facts.card_ref),
            fact("training.synthetic", "Labels of made-up inputs",
                 tuple({"how": k, "labels": v} for k, v in card.synthetic.items()), facts.card_ref, absent="none"),
            fact("training.privacy", "Privacy account", privacy, facts.card_ref,
                 absent="none: nothing bounds what the weights tell of a row"),
            masked(facts, "training.masked"),
            told_of_members(facts, "training.membership"),
        ),
        section(
            "quality", "How it was judged", *quality(facts), told_of_extraction(facts, "quality.extraction")
        ),
        section("limits", "Limits", *limits(facts)),
        section("terms", "Terms", *licences(facts)),
    )  # fmt: skip


def licences(facts: Facts) -> tuple[Statement, ...]:
    """The terms that are declared, and what they ask for."""
    rows = []
    for field, found in terms(facts.spec):
        said = ", ".join(x for x in (found.name, found.url) if x)
        rows.append(declared(f"terms.{field}", f"Terms of {field}", said, f"{field}.name", facts.spec_ref))
        rows.append(
            declared(f"terms.{field}.training", f"Whether {field} allows training", found.training,
                     f"{field}.training", facts.spec_ref)
        )  # fmt: skip
    return (
        *rows,
        fact("terms.attribution", "Attributions that it carries on its card", facts.card.attribution, facts.card_ref,
             absent="none: no terms that the spec declared when it was trained asked for one"),
    )  # fmt: skip


def licence_report(facts: Facts) -> Document:
    """The licence report."""
    refused = [r for r in facts.ledger if r.action == "refused training"]
    packages = tuple({"package": name, "version": v} for name, v in sorted(facts.packages.items()))
    return document(
        facts, "licences", f"Terms of {facts.workload}, version {facts.info.version}",
        NOTE + " The platform reads no terms: what they allow is what a person declared.",
        section("terms", "Terms", *licences(facts)),
        section(
            "policy", "What was refused",
            fact("policy.refused", "Trainings that the terms forbade", tuple(str(r.detail["why"]) for r in refused),
                 *facts.refs(refused), absent="none in the ledger"),
        ),
        section("packages", "Software",
                fact("packages.list", "Packages that are installed where this was written", packages, "environment")),
    )  # fmt: skip


def data_sheet(facts: Facts) -> Document:
    """The data sheet of the snapshots that a version was made of."""
    spec, refs, data = facts.spec, facts.windows_ref, facts.spec.data
    gone = "; ".join(facts.missing) or "the snapshots are not recorded any more"
    rows = tuple(
        {
            "number": w.number, "sha256": w.digest, "rows": w.rows, "frozen_at": w.created_at,
            **{k: w.manifest[k] for k in ("time_range", "with_truth", "holdout_rows", "audit_rows", "synthetic_rows",
                                          "rejected", "duplicates") if k in w.manifest},
        }
        for w in facts.windows
    )  # fmt: skip
    reasons = tuple(
        {"window": w.number, "reason": why, "rows": n}
        for w in facts.windows
        for name in ("rejected_reasons", "leaks")
        for why, n in w.manifest.get(name, {}).items()
    )  # fmt: skip
    held = "released later" if spec.student.releases else "for good"
    kept = msgspec.structs.asdict(spec.retention)
    consent = f"terms {'must' if spec.consent.required else 'need not'} be named; accepted: " + (
        ", ".join(spec.consent.allowed) or "all"
    )
    return document(
        facts, "data-sheet", f"Data sheet of {facts.workload}, version {facts.info.version}", NOTE,
        section(
            "composition", "What the snapshots hold",
            fact("composition.windows", "Snapshots, oldest first", rows, *refs, absent=gone),
            fact("composition.labels", "Labels of the teacher, by class, or its spans by kind",
                 tuple({"label": k, "rows": v} for k, v in facts.labels.items()), *refs,
                 absent=f"{facts.card.task} has none" if facts.card.task in ("regression", "embedding") else gone),
            fact("composition.payload", "An input",
                 f"{spec.payload.decoder}, at most {spec.payload.max_bytes} bytes", facts.spec_ref),
            declared("composition.personal", "Whether they hold personal data", data.personal, "data.personal",
                     facts.spec_ref),
            masked(facts, "composition.masked"),
            declared("composition.legal_basis", "By what right", data.legal_basis, "data.legal_basis", facts.spec_ref),
        ),
        section(
            "collection", "How they came about",
            declared("collection.origin", "Origin", data.origin, "data.origin", facts.spec_ref),
            declared("collection.how", "Collection", data.collection, "data.collection", facts.spec_ref),
            fact("collection.consent", "Consent", consent, facts.spec_ref),
            fact("collection.policy", "Why an input was labelled", tuple(
                {"policy": k, "rows": v} for k, v in facts.policies.items()), *refs, absent=gone),
            fact("collection.labeller", "Who labelled", facts.card.teacher, facts.card_ref),
        ),
        section(
            "preparation", "What was done to them",
            fact("preparation.left_out", "Labels that no window took, and rows like held-out ones", reasons, *refs,
                 absent="none were"),
            fact("preparation.holdout", "Held out for the verdict",
                 f"{spec.student.holdout_share:g} of a window at most, {held}", facts.spec_ref),
            fact("preparation.features", "What a student sees of an input",
                 f"{spec.features.factory} {told(spec.features.options)}", facts.spec_ref),
        ),
        section(
            "keeping", "How they are kept",
            declared("keeping.retention", "How long", data.retention, "data.retention", facts.spec_ref),
            fact("keeping.by_age", "What the platform deletes by its age",
                 tuple({"what": name, "days": days} for name, days in kept.items() if days is not None),
                 facts.spec_ref, absent="nothing: the spec has no retention"),
            declared("keeping.terms", "Terms", data.licence.name, "data.licence.name", facts.spec_ref),
            declared("keeping.contact", "Contact", spec.about.contact, "about.contact", facts.spec_ref),
        ),
    )  # fmt: skip
