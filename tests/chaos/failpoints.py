"""The failpoints that the code under test has: read from its sources, so that a new one takes part by itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def failpoints(component: str, root: Path = ROOT) -> tuple[str, ...]:
    """Names of all calls ``failpoint("<component>.…")`` below ``components``, in order of their names."""
    found: set[str] = set()
    for path in sorted((root / "components").rglob("*.py")):
        found.update(n for n in _names(path) if n.startswith(f"{component}."))
    return tuple(
        sorted(found, key=lambda name: [(not p.isdigit(), int(p) if p.isdigit() else p) for p in name.split(".")])
    )


def _names(path: Path) -> Iterator[str]:
    text = path.read_text()
    if "failpoint(" not in text:
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "failpoint" and node.args:
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield argument.value
