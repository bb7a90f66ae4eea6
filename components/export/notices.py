"""Whose work is in a bundle, and under which licences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import metadata

from components.export.manifest import Manifest


def version_of(distribution: str) -> str:
    """The version of a distribution that is installed here."""
    return metadata.version(distribution)


def notices(manifest: Manifest, distributions: Iterable[str], attribution: Sequence[str] = ()) -> str:
    """The file ``NOTICES.md``; ``attribution``: the sentences that the terms of teacher and data ask for."""
    lines = [
        f"# Notices of the bundle {manifest.workload}, version {manifest.version}",
        "",
        f"- The model in `{manifest.model.path}` was trained by whoever exported it, as a student of the teacher "
        f"`{manifest.lineage.teacher}`. What the teacher's licence says of models that learn from its answers is "
        "theirs to keep.",
        *(f"- {' '.join(sentence.split())}" for sentence in attribution),
        "- `cohobate_student/`: Cohobate, Apache License 2.0 (https://www.apache.org/licenses/LICENSE-2.0).",
    ]
    if manifest.input.featuriser.files:
        names = ", ".join(f"`{path}`" for path in sorted(manifest.input.featuriser.files.values()))
        lines.append(f"- {names}: of the model that the featuriser was taken from; under that one's licence.")
    lines += ["", "It holds none of these, and needs them where it runs:", ""]
    for name in sorted(set(distributions)):
        found = metadata.metadata(name)
        lines.append(f"- {name} {found['Version']}: {_licence(found)}")
    return "\n".join(lines) + "\n"


def _licence(found: metadata.PackageMetadata) -> str:
    for expression in found.get_all("License-Expression", []):
        return str(expression)
    named = [c.rpartition(" :: ")[2] for c in found.get_all("Classifier", []) if c.startswith("License ::")]
    text = str(next(iter(found.get_all("License", [])), "")).strip()
    if text and "\n" not in text and len(text) < 60:
        return text
    return ", ".join(named) or "see its own files"
