"""The bill of materials of a version, as CycloneDX 1.6: the model, the teacher, its data, and what runs it.

The library (cyclonedx-python-lib 11) knows components of type ``machine-learning-model`` and ``data``, but not their
``modelCard`` and ``data``: these two are added to what it writes, and the whole is checked against the schema again.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from components.contracts.errors import ConfigError
from components.contracts.spec.declared import terms
from infra.documents.facts import Facts

KEPT = ("agreement", "accuracy", "rmse", "mae", "coverage", "ece", "loss", "cosine", "recall")
"""Measures that the model's card in the bill of materials names."""


def bom(facts: Facts) -> bytes:
    """The bill of materials as JSON.

    Raises:
        ConfigError: a term's name or address in the spec is none that the schema takes.

    """
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    document = json.loads(_written(facts))
    _complete(document, facts)
    text = json.dumps(document, indent=2, sort_keys=True)
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if wrong is not None:
        raise ConfigError("bill of materials", facts.spec.source, f"is not CycloneDX 1.6: {wrong}")
    return text.encode() + b"\n"


def _written(facts: Facts) -> str:
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion
    from packageurl import PackageURL

    info, card, declared = facts.info, facts.card, dict(terms(facts.spec))
    make = LicenseFactory().make_from_string

    def licence(field: str) -> list[Any]:
        return [make(declared[field].name)] if declared[field].name else []

    def sha256(digest: str) -> list[Any]:
        return [HashType(alg=HashAlgorithm.SHA_256, content=digest)]

    model = Component(
        name=f"cohobate-{facts.workload}", version=info.version, type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"student:{info.ref.digest}", hashes=sha256(info.ref.digest),
        description=f"{card.form} student of {card.teacher}",
        properties=[
            Property(name="cohobate:teacher", value=card.teacher),
            Property(name="cohobate:spec", value=facts.spec.digest),
            Property(name="cohobate:verdict", value=str(facts.verdict.get("decision"))),
            *(Property(name="cohobate:attribution", value=text) for text in card.attribution),
        ],
    )  # fmt: skip
    name, _, digest = card.teacher.partition("@")
    teacher = Component(
        name=name, version=digest, type=ComponentType.MACHINE_LEARNING_MODEL, bom_ref=f"teacher:{card.teacher}",
        licenses=licence("teacher.licence.weights"),
    )  # fmt: skip
    snapshots = [
        Component(
            name=f"{facts.workload} snapshot", version=str(number), type=ComponentType.DATA,
            bom_ref=f"snapshot:{digest}", hashes=sha256(digest), licenses=licence("data.licence"),
        )
        for number, digest in enumerate(card.snapshots)
    ]  # fmt: skip
    packages = [
        Component(
            name=package, version=version, type=ComponentType.LIBRARY, bom_ref=f"pypi:{package}@{version}",
            purl=PackageURL("pypi", None, package.lower().replace("_", "-"), version),
        )
        for package, version in sorted(facts.packages.items())
    ]  # fmt: skip
    serial = uuid5(NAMESPACE_URL, f"urn:cohobate:{info.ref.digest}:{facts.made_at}")
    made = Bom(components=[teacher, *snapshots, *packages], serial_number=serial)
    made.metadata.component = model
    made.metadata.timestamp = datetime.fromtimestamp(facts.made_at, UTC)
    made.register_dependency(model, [teacher, *snapshots, *packages])
    return make_outputter(made, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()


def _complete(document: dict[str, Any], facts: Facts) -> None:
    card, about = facts.card, facts.spec.about
    measured = [
        {
            "type": name, "value": f"{value:.6g}",
            **_interval(facts.measured.get(f"{name}_lower"), facts.measured.get(f"{name}_upper")),
        }
        for name, value in sorted(facts.measured.items()) if name in KEPT and value is not None
    ]  # fmt: skip
    measured += [
        {"type": "accuracy", "slice": name, "value": f"{value:.6g}"} for name, value in sorted(facts.slices.items())
    ]
    considerations: dict[str, list[Any]] = {
        "users": [about.users], "useCases": [about.intended_use], "technicalLimitations": [about.out_of_scope],
        "ethicalConsiderations": [{"name": risk} for risk in about.risks],
    }  # fmt: skip
    document["metadata"]["component"]["modelCard"] = {
        "modelParameters": {
            "approach": {"type": "supervised"}, "task": card.task, "architectureFamily": card.network.factory,
            "modelArchitecture": card.form,
            "datasets": [{"ref": f"snapshot:{digest}"} for digest in card.snapshots],
        },
        "quantitativeAnalysis": {"performanceMetrics": measured},
        "considerations": {k: found for k, v in considerations.items() if (found := [x for x in v if x])},
    }  # fmt: skip
    rows = {d: w for w in facts.windows for d in w.digests}
    for component in document["components"]:
        digest = component["bom-ref"].removeprefix("snapshot:")
        if component["type"] == "data":
            window = rows.get(digest)
            told = f"{window.rows} labelled inputs" if window is not None else "labelled inputs"
            component["data"] = [{"type": "dataset", "name": f"snapshot {digest[:12]}", "description": told}]


def _interval(lower: float | None, upper: float | None) -> dict[str, Any]:
    if lower is None or upper is None:
        return {}
    return {"confidenceInterval": {"lowerBound": f"{lower:.6g}", "upperBound": f"{upper:.6g}"}}
