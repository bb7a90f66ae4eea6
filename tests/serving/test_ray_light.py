"""Ray Serve without pandas, and pandas for whoever wants it afterwards."""

import subprocess
import sys

import pytest

from components.process import without


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
