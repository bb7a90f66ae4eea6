"""Real files as uploads: those that the pinned packages of the environment itself bring, so the same everywhere.

The truth of a file is its extension, in Magika's names, for extensions that say what the content is. C and C++ are
one class, as are JSON and JSON lines (the spec merges them in the teacher): no extension tells them apart. Files that
an installer writes, and packages that only some installations have, are left out.
"""

from __future__ import annotations

import hashlib
import random
import site
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

from components.contracts.errors import ConfigError
from infra.workloads.source import Item, Phase, Source

PACKAGES = (
    "torch", "numpy", "scipy", "sklearn", "pandas", "pyarrow", "ray", "mlflow", "evidently", "feast", "kfp", "onnx",
    "sqlalchemy", "plotly", "matplotlib", "statsmodels", "sympy", "networkx", "ibis", "litestar", "nltk", "dask",
    "docs", "joblib", "skops", "onnxruntime", "fastapi", "werkzeug",
)  # fmt: skip
"""Folders that are searched: packages that every installation has."""

PHASES: Mapping[str, Mapping[str, str]] = {
    "python": {".py": "python", ".pyi": "python", ".pyx": "python", ".sql": "sql", ".csv": "csv", ".yaml": "yaml"},
    "cpp": {
        ".h": "c/c++", ".hpp": "c/c++", ".cuh": "c/c++", ".cc": "c/c++", ".c": "c/c++",
        ".cmake": "cmake", ".proto": "proto",
    },
    "web": {".js": "javascript", ".css": "css", ".html": "html", ".map": "json", ".json": "json"},
    "docs and media": {
        ".md": "markdown", ".rst": "rst", ".doctest": "rst", ".png": "png", ".svg": "svg", ".pdf": "pdf", ".ttf": "ttf",
        ".woff": "woff", ".woff2": "woff2", ".npy": "npy", ".npz": "npz", ".gz": "gzip", ".onnx": "onnx",
    },
}  # fmt: skip
"""The phases in their order, and the truth of each extension."""

MIN_BYTES, MAX_BYTES = 64, 65_536
"""Sizes of the files that are taken: smaller ones say too little, larger ones are not uploads of source text."""

LARGEST_SHARE = 0.95
"""No class has more than this share of a phase."""

HISTORY = 300
PER_PHASE = 650


def site_packages() -> Path:
    """The folder in which this environment's packages lie."""
    return Path(sysconfig.get_path("purelib") or site.getsitepackages()[0])


def inventory(root: Path, *, per_phase: int, seed: int, more_first: int = 0) -> list[Phase]:
    """``per_phase`` files of every phase (``more_first`` more of the first), in an order that ``seed`` decides.

    No content comes twice.

    Raises:
        ConfigError: there are too few files for a phase.
    """
    found: dict[str, dict[str, list[Path]]] = {name: {} for name in PHASES}
    for path in _files(root):
        for name, truths in PHASES.items():
            if path.suffix in truths:
                found[name].setdefault(truths[path.suffix], []).append(path)
    seen: set[str] = set()
    sizes = [per_phase + more_first, *[per_phase] * (len(PHASES) - 1)]
    return [_phase(n, root, found[n], size, seed, seen) for n, size in zip(PHASES, sizes, strict=True)]


def _files(root: Path) -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            regular = path.suffix and not path.is_symlink() and path.is_file() and "__pycache__" not in path.parts
            if regular and MIN_BYTES <= path.stat().st_size <= MAX_BYTES:
                yield path


def _phase(
    name: str, root: Path, by_class: Mapping[str, list[Path]], per_phase: int, seed: int, seen: set[str]
) -> Phase:
    chosen = random.Random(f"{name} {seed}")  # noqa: S311 - an order, not a secret
    items: list[Item] = []
    most = int(per_phase * LARGEST_SHARE)
    for truth in sorted(by_class):
        paths = list(by_class[truth])
        chosen.shuffle(paths)
        items += _distinct(paths, root, truth, most, seen)
    chosen.shuffle(items)
    if len(items) < per_phase:
        raise ConfigError("per_phase", per_phase, f"phase {name!r} has {len(items)} files under {root}")
    return Phase(name=name, items=tuple(items[:per_phase]))


def _distinct(paths: list[Path], root: Path, truth: str, most: int, seen: set[str]) -> list[Item]:
    items: list[Item] = []
    for path in paths:
        payload = path.read_bytes()
        digest = hashlib.sha256(payload).hexdigest()
        if digest in seen:
            continue
        seen.add(digest)
        place = path.relative_to(root)
        items.append(Item(id=digest[:24], key=place.parts[0], payload=payload, truth=truth))
        if len(items) == most:
            break
    return items


def source(*, seed: int, history: int = HISTORY, per_phase: int = PER_PHASE) -> Source:
    """The demo's inputs: a history out of the first phase's kind, then all phases."""
    first, *others = inventory(site_packages(), per_phase=per_phase, more_first=history, seed=seed)
    return Source(
        spec=Path(__file__).with_name("files.yaml"),
        history=first.items[:history],
        phases=(Phase(name=first.name, items=first.items[history:]), *others),
    )
