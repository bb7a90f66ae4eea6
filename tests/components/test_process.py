import gc

from components.process import long_lived


def test_what_is_loaded_is_left_out_of_collections_and_what_comes_is_not():
    """As for the suite itself (``conftest.py``), which goes on so."""
    before, loaded = gc.get_freeze_count(), [[] for _ in range(2_000)]
    long_lived()
    assert gc.get_freeze_count() > before + len(loaded) / 2
    loop = []
    loop.append(loop)
    del loop
    assert gc.collect() > 0
