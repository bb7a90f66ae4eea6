from hypothesis import given
from hypothesis import strategies as st

from components.contracts.sampling import audited, bucket

keys = st.text()


@given(keys, keys)
def test_a_bucket_is_a_fraction_and_stays(salt, key):
    assert 0.0 <= bucket("w", salt, key) < 1.0
    assert bucket("w", salt, key) == bucket("w", salt, key)


def test_buckets_are_the_same_for_good():
    assert bucket("w", "audit", "id-1") == 0.3388339816343441


def test_salts_and_workloads_split_independently():
    names = [f"key-{i}" for i in range(4_000)]
    for a, b in ((("w", "1"), ("w", "2")), (("w", "1"), ("v", "1"))):
        both = sum(bucket(*a, k) < 0.5 and bucket(*b, k) < 0.5 for k in names)
        assert abs(both - 1_000) < 150


def test_the_audit_takes_its_share_whoever_answers():
    picked = {i for i in range(4_000) if audited("w", f"id-{i}", 0.1)}
    assert 320 < len(picked) < 480
    assert picked == {i for i in range(4_000) if audited("w", f"id-{i}", 0.1)}
    assert not any(audited("w", f"id-{i}", 0.0) for i in range(100))


def test_of_two_audits_the_smaller_lies_within_the_larger():
    small, large = ({i for i in range(2_000) if audited("w", f"id-{i}", share)} for share in (0.05, 0.1))
    assert small < large
