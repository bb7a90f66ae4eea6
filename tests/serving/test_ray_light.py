"""Ray Serve without pandas, and pandas for whoever wants it afterwards; Ray without a grammar of addresses."""

import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from components.process import without

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_what_is_hidden_is_not_there_and_comes_back():
    sys.modules.pop("colorsys", None)
    with without("colorsys"), pytest.raises(ModuleNotFoundError, match="colorsys"):
        import colorsys
    import colorsys

    assert colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0)


def test_serve_is_imported_without_pandas_which_a_decoder_can_have():
    code = """
import sys
from serving.ray_light import SETUP, import_serve
module, _, name = SETUP.rpartition(".")
assert getattr(sys.modules[module], name) is import_serve
assert "ray" not in sys.modules
import_serve()
assert "ray.serve" in sys.modules and "pandas" not in sys.modules
import pandas
print(len(pandas.DataFrame({"a": [1, 2]})))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "2\n"


def brought(asked):
    """The names of all packages that these requirements bring."""
    found, left = {}, list(asked)
    while left:
        one = left.pop()
        name, extras = canonicalize_name(one.name), {"", *one.extras}
        if extras <= found.setdefault(name, set()):
            continue
        found[name] |= extras
        try:
            more = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:  # of another system
            continue
        left += [r for r in more if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in extras)]
    return set(found)


def test_nothing_that_we_ask_for_brings_a_grammar_that_ray_s_processes_would_compile():
    """Every process of Ray imports jsonschema, which imports this where it is there: 1.2 s and 17 MB for nothing."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    asked = [Requirement(line) for line in project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        asked += [Requirement(line) for line in extra]
    names = brought(asked)
    assert "jsonschema" in names and "rfc3987-syntax" not in names
    assert "rfc3987-syntax" in brought([Requirement("jsonschema[format-nongpl]")]), "the extra that would bring it"
