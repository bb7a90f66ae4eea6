import gc
import importlib
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.process import long_lived, without


def test_what_is_loaded_is_left_out_of_collections_and_what_comes_is_not():
    """As for the suite itself (``conftest.py``), which goes on so."""
    before, loaded = gc.get_freeze_count(), [[] for _ in range(2_000)]
    long_lived()
    assert gc.get_freeze_count() > before + len(loaded) / 2
    loop = []
    loop.append(loop)
    del loop
    assert gc.collect() > 0


def test_what_is_hidden_from_one_thread_another_may_import_meanwhile(tmp_path, monkeypatch):
    (tmp_path / "hidden_from_one.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with without("hidden_from_one"), ThreadPoolExecutor(1) as other:
        with pytest.raises(ModuleNotFoundError, match="is hidden"):
            importlib.import_module("hidden_from_one")
        assert other.submit(importlib.import_module, "hidden_from_one").result().__name__ == "hidden_from_one"
    del sys.modules["hidden_from_one"]
