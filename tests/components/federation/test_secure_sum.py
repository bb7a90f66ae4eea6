"""Sums under masks: exact, and a part of one tells nothing."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from components.federation.secure_sum import (
    RESOLUTION,
    context,
    decoded,
    encoded,
    masked,
    own_seed,
    packed,
    pair_seed,
    stream,
    total,
    unpacked,
)

NAMES = ("east", "north", "south", "west")
SECRETS = {name: X25519PrivateKey.from_private_bytes(bytes([i + 1]) * 32) for i, name in enumerate(NAMES)}
ROUND = context("banks", "1", peers=[(name, name * 2) for name in NAMES])


def seeds_of(name, said=ROUND):
    keys = {n: s.public_key() for n, s in SECRETS.items() if n != name}
    return own_seed(SECRETS[name], said), {n: pair_seed(SECRETS[name], key, said) for n, key in keys.items()}


def answers(parts, said=ROUND):
    return {name: masked(name, part, *seeds_of(name, said)) for name, part in parts.items()}


def summed(parts, among):
    """What who mixes makes of the answers of these sites, the others having dropped out after they joined."""
    told = {name: seeds_of(name) for name in among}
    return total(
        {name: parts[name] for name in among},
        {name: own for name, (own, _) in told.items()},
        {name: {p: s for p, s in pairs.items() if p not in among} for name, (_, pairs) in told.items()},
    )


@settings(deadline=None, max_examples=30)
@given(
    arrays(np.float64, (4, 3, 2), elements=st.floats(0, 1)),
    st.lists(st.floats(0.01, 1), min_size=4, max_size=4),
    st.sets(st.sampled_from(NAMES), min_size=2),
)
def test_the_sum_of_any_sites_is_exact_to_the_resolution(shares, weights, among):
    parts = {name: encoded(shares[i], weights[i]) for i, name in enumerate(NAMES)}
    found = summed(answers(parts), among)
    assert (found == sum(parts[name] for name in among)).all()
    exact = sum(shares[i] * weights[i] for i, name in enumerate(NAMES) if name in among)
    assert np.abs(decoded(found) - exact).max() <= len(among) * RESOLUTION / 2 * (1 + 1e-9) + 1e-15


def test_both_sides_of_a_pair_have_the_same_seed_for_one_round_alone():
    assert seeds_of("north")[1]["west"] == seeds_of("west")[1]["north"]
    other = context("banks", "2", peers=[(name, name * 2) for name in NAMES])
    fewer = context("banks", "1", peers=[(name, name * 2) for name in NAMES[:3]])
    seeds = [(own, *pairs.values()) for said in (ROUND, other, fewer) for own, pairs in [seeds_of("north", said)]]
    assert len({seed for made in seeds for seed in made}) == sum(map(len, seeds))


def test_a_peer_whose_key_would_give_the_seed_away_is_refused():
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    with pytest.raises(ValueError):
        pair_seed(SECRETS["north"], X25519PublicKey.from_public_bytes(bytes(32)), ROUND)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_single_answer_is_uniform_whatever_it_says(share):
    """Chi-square of each of the eight bytes over 256 values, of 40,000 numbers; the seeds are fixed, so it is exact."""
    part = encoded(np.full((20_000, 2), share), 1.0)
    told = np.frombuffer(packed(answers(dict.fromkeys(NAMES, part))["north"]), np.uint8).reshape(-1, 8)
    expected = len(told) / 256
    for place in range(8):
        counts = np.bincount(told[:, place], minlength=256)
        assert ((counts - expected) ** 2 / expected).sum() < 347.7  # 1 of 10,000 uniform ones is beyond (255 degrees)


@pytest.mark.parametrize("missing", ["own", "pair"])
def test_one_mask_that_stays_on_hides_the_sum(missing):
    """The answer of a site that dropped out stays hidden from who knows all seeds but its own; so does any sum."""
    part = encoded(np.full((20_000, 1), 0.5), 1.0)
    own, pairs = seeds_of("north")
    said = masked("north", part, own, pairs)
    for peer, seed in list(pairs.items())[:: 1 if missing == "own" else 2]:
        mask = stream(seed, part.shape)
        said = said - mask if peer > "north" else said + mask
    said = said - stream(own, part.shape) if missing == "pair" else said
    assert abs(said.astype(np.float64).mean() / 2.0**64 - 0.5) < 0.01 and len(np.unique(said)) == len(said)


def test_what_is_packed_is_unpacked_and_nothing_of_another_size():
    part = encoded(np.array([[0.25, 0.75]]), 1.0)
    assert (unpacked(packed(part), (1, 2)) == part).all()
    with pytest.raises(ValueError):
        unpacked(packed(part), (2, 2))
