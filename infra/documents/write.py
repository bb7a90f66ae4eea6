"""Writing the documents of a version into a folder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from components.contracts.errors import ConfigError
from infra.documents.cards import data_sheet, licence_report, model_card
from infra.documents.document import Document
from infra.documents.facts import Facts
from infra.documents.materials import bom
from infra.documents.regulation import annex_iv, nist
from infra.documents.render import FORMATS

KINDS: dict[str, Callable[[Facts], Document]] = {
    "model-card": model_card,
    "data-sheet": data_sheet,
    "licences": licence_report,
    "annex-iv": annex_iv,
    "nist-ai-rmf": nist,
}

BOM = "bom"
"""The bill of materials, which is a format of its own: ``bom.cdx.json``."""


def made(facts: Facts, kinds: Sequence[str] = ()) -> tuple[dict[str, bytes], dict[str, tuple[str, ...]]]:
    """The files by name, and of each document the ids of its blanks; ``kinds``: which, all where none is named.

    Raises:
        ConfigError: there is no such kind.

    """
    known = (*KINDS, BOM)
    for kind in kinds:
        if kind not in known:
            raise ConfigError("--only", kind, f"must be one of {', '.join(known)}")
    files: dict[str, bytes] = {}
    blanks: dict[str, tuple[str, ...]] = {}
    for kind in kinds or known:
        if kind == BOM:
            files["bom.cdx.json"] = bom(facts)
            continue
        document = KINDS[kind](facts)
        blanks[kind] = tuple(s.id for s in document.blanks)
        files |= {f"{kind}.{name}": render(document) for name, render in FORMATS.items()}
    return files, blanks


def write(
    facts: Facts, folder: Path, kinds: Sequence[str] = (), *, beside: Collection[str] | None = None
) -> tuple[list[Path], dict[str, tuple[str, ...]]]:
    """Write them; returns the paths, and the blanks that are left.

    ``beside``: the names of what may lie in the folder besides; anything where it is None.

    Raises:
        ConfigError: there is no such kind, or something else lies in the folder.

    """
    files, blanks = made(facts, kinds)
    folder.mkdir(parents=True, exist_ok=True)
    if beside is not None and (others := {p.name for p in folder.iterdir()} - files.keys() - set(beside)):
        remedy = f"holds {', '.join(sorted(others))}, which would not be signed: name a folder of its own"
        raise ConfigError("--output", str(folder), remedy)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files], blanks
