from hypothesis import given
from hypothesis import strategies as st

from components.stream.contract import TopicPartition, named, unnamed

places = st.builds(TopicPartition, st.text("ab.:-", min_size=1), st.integers(0, 999))


def test_a_partition_is_named_as_manifests_spell_it():
    assert named({TopicPartition("w.labels", 1): 7}) == {"w.labels:1": 7}


@given(st.dictionaries(places, st.integers(0)))
def test_positions_that_were_named_come_back(positions):
    assert unnamed(named(positions)) == positions
