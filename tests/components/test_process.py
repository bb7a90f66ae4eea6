import gc

from components.process import long_lived


def test_what_is_loaded_is_left_out_of_collections_and_what_comes_is_not():
    before = gc.get_freeze_count()
    try:
        long_lived()
        assert gc.get_freeze_count() > before + 1_000
        loop = []
        loop.append(loop)
        del loop
        assert gc.collect() > 0
    finally:
        gc.unfreeze()
