"""The parity of a student's exports, each measured on its file."""

from __future__ import annotations

from components.contracts.errors import ArtifactError
from components.contracts.spec import Form, Spec
from components.contracts.storage import get_bytes
from components.student.card import export_uri
from components.student.parity import served_parity
from components.student.runtime import Student


def parities(spec: Spec, candidate: Student, full: Student, payloads: list[bytes], uri: str) -> dict[str, float | None]:
    """Parity with the float model of the artifact; where the spec declares exports, of each of them by name.

    ``uri`` is where the candidate lies; ``full`` is its float model. An export that was not made, or was made of other
    weights, has no parity: what is missing holds.
    """
    mine, declared = candidate.card.form, spec.student.export.declared
    named = dict.fromkeys((*declared, mine)) if declared else {}
    also: tuple[Form, ...] = spec.student.export.also
    said = {form: _beside(spec, candidate, form, uri) for form in also}
    said[mine] = candidate
    found = {form: served_parity(full, student, payloads) for form, student in said.items() if student is not None}
    served = found[mine]
    return {
        "parity_gap": served.gap if served else None,
        "probability_gap": served.variation if served else None,
        "largest_probability_gap": served.most_variation if served else None,
        **({"novelty_gap": served.novelty} if served and served.novelty is not None else {}),
        **{f"parity_gap[{form}]": p.gap if (p := found.get(form)) else None for form in named},
        **{f"probability_gap[{form}]": p.variation if (p := found.get(form)) else None for form in named},
        **{f"novelty_gap[{form}]": p.novelty for form in named if (p := found.get(form)) and p.novelty is not None},
    }


def _beside(spec: Spec, candidate: Student, form: Form, uri: str) -> Student | None:
    """The export of a candidate's weights that lies beside it."""
    try:
        data = get_bytes(export_uri(uri.rsplit("/", 1)[0], form))
    except ArtifactError:
        return None
    student = Student.load(data, source=spec.source)
    return student if (student.card.form, student.card.weights) == (form, candidate.card.weights) else None
