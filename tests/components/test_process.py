import gc

from components.process import long_lived


def test_what_is_loaded_is_left_out_of_collections_and_what_comes_is_not():
    before, loaded = gc.get_freeze_count(), [[] for _ in range(2_000)]
    try:
        long_lived()
        assert gc.get_freeze_count() > before + len(loaded) / 2
        loop = []
        loop.append(loop)
        del loop
        assert gc.collect() > 0
    finally:
        gc.unfreeze()
        gc.freeze()  # as conftest.py has left it: what was collected stays to the end
