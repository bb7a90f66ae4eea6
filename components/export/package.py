"""The Python package in a bundle: this folder's ``runtime``, and the featuriser's own modules as they stand here.

What makes features in a bundle is the very code that makes them in training, so it cannot come to answer otherwise; its
imports are pointed to the package that it is put into.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources

from components.contracts.errors import ConfigError
from components.export.manifest import Featuriser, Given
from components.student.card import StudentCard

PACKAGE = "cohobate_student"

ALWAYS = ("__init__", "__main__", "decoders", "errors", "features", "student")
"""Modules of ``runtime`` that every bundle has."""

MOVED = {
    "components.contracts.errors": ".errors",
    "components.contracts.spec": ".features",
    "components.student.features": ".features",
}
"""Where in the bundle's package a module's names are; those of ``components.student`` keep their own."""

BESIDE = {
    "audio": (), "bytes": (), "columns": ("table",), "image": (), "table": (), "tokens": ("text_descriptors",),
    "tagging": ("text_descriptors", "spans"), "text": ("text_descriptors", "murmur3"), "words": ("text_descriptors",),
}  # fmt: skip
"""Modules of ``components.student`` that can go into a bundle, and what each needs there beside ``arrays``."""

NEEDS = {"audio": ("scipy", "soundfile"), "image": ("pillow",), "text": ("mmh3",), "tokens": ("tokenizers",)}
"""Distributions that they need beside NumPy."""

OWN_SOURCE = ("murmur3", "spans")
"""Of those, what stands in ``runtime``."""

MEDIA = {"text": "text/plain; charset=utf-8", "json": "application/json", "image": "image/*", "audio": "audio/*"}

IMPORT = re.compile(r"^from (components\.[\w.]+) import ", re.MULTILINE)

ROOM = "components.student."


def given(card: StudentCard) -> Given:
    """What a bundle's input is, by the student's card.

    Raises:
        ConfigError: it is fed what is known of entities, or its featuriser or decoder is the user's own.

    """
    if card.features.entity is not None:
        allowed = "what is known of an entity is in the platform's online store: export a student without it"
        raise ConfigError("features.entity", "(given)", allowed)
    module, name = _module("features.factory", card.features.factory)
    decoder, kind = card.payload.decoder, card.payload.decoder
    if decoder not in ("raw", "text", "json"):
        kind, function = _module("payload.decoder", decoder)
        decoder = f"{kind}:{function}"
    media = MEDIA.get(kind) or MEDIA.get(module if kind == "raw" else kind, "application/octet-stream")
    options = {k: v for k, v in card.features.options.items() if k != "spec_folder"}
    made = Featuriser(module=module, name=name, options=options)
    return Given(decoder=decoder, max_bytes=card.payload.max_bytes, media_type=media, featuriser=made)


def _module(field: str, reference: str) -> tuple[str, str]:
    module, _, name = reference.partition(":")
    short = module.removeprefix(ROOM)
    if short == module or short not in BESIDE:
        allowed = "only those of components.student go into a bundle, which runs no code of yours: "
        raise ConfigError(field, reference, f"{allowed}{', '.join(sorted(BESIDE))}")
    return short, name


def modules(of: Given, more: Sequence[str]) -> dict[str, str]:
    """The package's files by name: what every bundle has, what reads this input, and ``more`` of ``runtime``."""
    wanted = {of.featuriser.module}
    if ":" in of.decoder:
        wanted.add(of.decoder.partition(":")[0])
    wanted |= {name for module in sorted(wanted) for name in BESIDE[module]}
    own = {name for name in wanted if name in OWN_SOURCE} | {*ALWAYS, *more}
    files = {f"{name}.py": _source("components.export.runtime", name) for name in sorted(own)}
    for name in sorted({*wanted, "arrays"} - own):
        files[f"{name}.py"] = _pointed(_source("components.student", name))
    return files


def requirements(of: Given) -> list[str]:
    """Distributions beside NumPy and the runtime."""
    wanted = {of.featuriser.module, of.decoder.partition(":")[0]}
    return sorted({need for module in wanted for need in NEEDS.get(module, ())})


def _source(package: str, name: str) -> str:
    return (resources.files(package) / f"{name}.py").read_text(encoding="utf-8")


def _pointed(source: str) -> str:
    """A module with its imports pointed into the bundle's package."""

    def there(found: re.Match[str]) -> str:
        module = found[1]
        short = MOVED.get(module) or f".{module.removeprefix(ROOM)}"
        return f"from {short} import "

    source = IMPORT.sub(there, source)
    slower = "try:\n    import mmh3\nexcept ImportError:\n    from . import murmur3 as mmh3\n"
    return re.sub(r"^import mmh3\n", slower, source, flags=re.MULTILINE)
