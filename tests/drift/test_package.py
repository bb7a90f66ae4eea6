import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import drift

MODULES = [m.name for m in pkgutil.walk_packages(drift.__path__, "drift.") if m.name != "drift.evidently_metrics"]
HEAVY = ("scipy", "pandas", "evidently", "sklearn", "torch", "ray")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_importing_the_package_and_all_its_modules_loads_nothing_heavy() -> None:
    code = f"import sys; import {', '.join(['drift', *MODULES])}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_exported_name_exists_and_is_documented() -> None:
    for name in drift.__all__:
        assert getattr(drift, name).__doc__
