"""A round under masks: its mixture is the mean, whoever drops out, and what does not fit gives none."""

import msgspec
import numpy as np
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from components.contracts import bundle
from components.contracts.errors import ArtifactError, ConfigError, UntrustedError
from components.federation import masked, rounds, secure_sum
from components.federation.agreement import read_agreement
from components.federation.exchange import row_id, set_digest
from components.federation.masked import ANSWER, JOIN, UNMASK, Joined, Masked, Seeds, Unmasked
from tests.components.federation.conftest import CLASSES, FEDERATION, SPACE, TEXTS

IDS = sorted(row_id(text) for text in TEXTS)
PUBLIC = set_digest(IDS)
NAMES = ("east", "north", "south", "west")
SPAM = {"east": 0.9, "north": 0.6, "south": 0.25, "west": 0.1}


class Table:
    """Four sites that do as they should, but where a test says otherwise."""

    def __init__(self, desk, **values):
        self.desk, self.agreed = desk, desk.agreement(masked=True, min_sites=3, **values)
        self.secrets = {n: X25519PrivateKey.from_private_bytes(bytes([i + 1]) * 32) for i, n in enumerate(NAMES)}
        self.joins = {f"{n}.join": self.join(n) for n in NAMES}
        self.keys, self.peers = masked.peers_of(self.agreed, 1, PUBLIC, self.joins)

    def join(self, name, secret=None):
        said = Joined(federation=FEDERATION, site=name, round=1, public=PUBLIC)
        key = (secret or self.secrets[name]).public_key().public_bytes_raw().hex().encode()
        return masked.write(JOIN, said, key, self.desk.signer(name)).data

    def answers(self, name, by_id=None, by=None, part=None, **values):
        said = Masked(
            **{"federation": FEDERATION, "site": name, "round": 1, "space": SPACE, "classes": CLASSES, "public": PUBLIC,
               "student": "0" * 64, "peers": self.peers, **values}
        )  # fmt: skip
        by_id = by_id or {i: {"ham": 1 - SPAM[name], "spam": SPAM[name]} for i in IDS}
        part = masked.part_of(self.agreed, name, by_id) if part is None else part
        content = secure_sum.masked(name, part, *self.seeds(name, said))
        return masked.write(ANSWER, said, secure_sum.packed(content), self.desk.signer(by or name))

    def seeds(self, name, said):
        context = masked.context_of(said)
        pairs = {n: secure_sum.pair_seed(self.secrets[name], k, context) for n, k in self.keys.items() if n != name}
        return secure_sum.own_seed(self.secrets[name], context), pairs

    def unmask(self, name, sites, own=None):
        said = Masked(federation=FEDERATION, site=name, round=1, space=SPACE, classes=CLASSES, public=PUBLIC,
                      student="", peers=self.peers)  # fmt: skip
        mine, pairs = self.seeds(name, said)
        seeds = Seeds(own=(own or mine).hex(), dropped={n: s.hex() for n, s in pairs.items() if n not in sites})
        told = Unmasked(federation=FEDERATION, site=name, round=1, public=PUBLIC, sites=sites)
        return masked.write(UNMASK, told, msgspec.json.encode(seeds), self.desk.signer(name)).data

    def files(self, *sites, **answers):
        """What reaches who mixes, where these sites are left to the end."""
        made = {n: answers.get(n) or self.answers(n) for n in sites}
        told = {n: done.statement for n, done in made.items()}
        found = {f"{n}.answers": done.data for n, done in made.items()}
        return found | {f"{n}.unmask": self.unmask(n, told) for n in sites}

    def mixed(self, files):
        done = masked.mixed(self.agreed, 1, IDS, files)
        return done, rounds.read(done.data, "m")


@pytest.fixture
def table(desk):
    return Table(desk)


def left_out(found):
    return {name: part.left_out for name, part in found.header.sites.items() if part.left_out is not None}


def test_the_mixture_is_that_of_a_round_without_masks(desk):
    weighted = {
        n: msgspec.structs.replace(site, weight=weight)
        for (n, site), weight in zip(sorted(desk.agreement().sites.items()), (1.0, 3.0, 0.5, 2.0), strict=True)
    }
    table = Table(desk, sites=weighted)
    done, found = table.mixed(table.files(*NAMES))
    plain = msgspec.structs.replace(table.agreed, masked=False)
    known = rounds.read(rounds.mixed(plain, 1, IDS, {n: desk.file(n, SPAM[n]) for n in NAMES}).data, "m")
    assert found.header.masked is True and known.header.masked is msgspec.UNSET and done.refused == {}
    for i in IDS:
        assert found.rows[i].distribution == pytest.approx(known.rows[i].distribution, abs=1e-8)
        assert found.rows[i].weights == pytest.approx(known.rows[i].weights, abs=1e-8)
    assert table.mixed({f"z{uri}": data for uri, data in table.files(*NAMES).items()})[0].data == done.data


def test_a_site_that_drops_out_after_it_joined_is_taken_out_of_the_sum(table):
    files = table.files("east", "north", "west")
    _, found = table.mixed(files)
    assert left_out(found) == {"south": "dropped"}
    assert found.rows[IDS[0]].distribution["spam"] == pytest.approx((0.9 + 0.6 + 0.1) / 3, abs=1e-8)
    # its answers come after all: the sum stays as it is
    late, again = table.mixed({**files, "south.answers": table.answers("south").data})
    assert again.rows == found.rows and left_out(again) == {"south": "dropped"} and late.refused == {}


def test_a_site_that_never_joined_is_absent(desk):
    table = Table(desk)
    table.joins.pop("south.join")
    table.keys, table.peers = masked.peers_of(table.agreed, 1, PUBLIC, table.joins)
    _, found = table.mixed(table.files("east", "north", "west"))
    assert left_out(found) == {"south": "absent"}


def test_without_one_that_unmasks_there_is_no_sum(table):
    files = table.files(*NAMES)
    files.pop("west.unmask")
    with pytest.raises(ConfigError, match=r"min_sites.*those of west are missing.*the round is lost: let newer"):
        table.mixed(files)
    with pytest.raises(ConfigError, match="no site has told its seeds"):
        table.mixed({"a": table.answers("east").data})


def test_of_fewer_than_were_agreed_there_is_no_sum(table):
    with pytest.raises(ConfigError, match="min_sites"):
        table.mixed(table.files("east", "north"))


@pytest.mark.parametrize(
    "answers",
    [
        {i: {"ham": 3.0, "spam": 4.0} for i in IDS},
        {i: {"spam": 0.2} for i in IDS},
    ],
)
def test_what_is_no_distribution_gives_no_mixture_and_nobody_knows_whose_it_was(table, answers):
    with pytest.raises(ConfigError, match=r"masked.*one of east, north, south, west .*nobody can tell which"):
        table.mixed(table.files(*NAMES, west=table.answers("west", answers)))


def test_a_seed_that_is_another_gives_no_mixture(table):
    files = table.files(*NAMES)
    made = {n: table.answers(n).statement for n in NAMES}
    files["west.unmask"] = table.unmask("west", made, own=bytes(32))
    with pytest.raises(ConfigError, match="nobody can tell which"):
        table.mixed(files)


def test_classes_that_are_shuffled_are_not_seen(table):
    """What masks cost: the sum follows a byzantine site that answers by distributions as a mean does."""
    turned = {i: {"ham": SPAM["west"], "spam": 1 - SPAM["west"]} for i in IDS}
    _, found = table.mixed(table.files(*NAMES, west=table.answers("west", turned)))
    assert found.rows[IDS[0]].distribution["spam"] == pytest.approx((0.9 + 0.6 + 0.25 + 0.9) / 4, abs=1e-8)


def test_a_site_that_guesses_the_sum_of_the_others_dictates_the_mixture(table):
    """What masks cost more: numbers are modulo 2^64, so that a part may be what turns the others' into any sum."""
    shares = {n: np.array([[1 - SPAM[n], SPAM[n]]] * len(IDS)) for n in NAMES[:3]}
    guessed = sum(secure_sum.encoded(shares[n], 1.0) for n in NAMES[:3])
    wanted = secure_sum.encoded(np.array([[0.0, 4.0]] * len(IDS)), 1.0)
    done, found = table.mixed(table.files(*NAMES, west=table.answers("west", part=wanted - guessed)))
    assert done.refused == {} and left_out(found) == {}
    assert [row.distribution for row in found.rows.values()] == [{"spam": 1.0}] * len(IDS)


def spoilt(data, member, content):
    return bundle.pack({**bundle.members(data, ""), member: content})


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (lambda t: t.answers("west", by="north").data, "other_site"),
        (lambda t: t.answers("west", round=2).data, "other_round"),
        (lambda t: t.answers("west", federation="hospitals").data, "other_federation"),
        (lambda t: t.answers("west", public="0" * 64).data, "other_public"),
        (lambda t: t.answers("west", space="mail@2").data, "other_space"),
        (lambda t: t.answers("west", classes=("ham",)).data, "unknown_classes"),
        (lambda t: t.answers("west", peers={"stranger": "0" * 64, **t.peers}).data, "other_peers"),
        (lambda t: spoilt(t.answers("west").data, "answers.u64", bytes(48)), "other_subject"),
        (lambda t: t.desk.file("west"), "is no file of a round under masks"),
        (lambda t: spoilt(t.unmask("west", {}), "seeds.json", b"{}"), "other_subject"),
    ],
)
def test_a_file_that_does_not_hold_is_told_and_the_sum_of_the_others_is_made(table, file, why):
    done, found = table.mixed({**table.files("east", "north", "south"), "x": file(table)})
    assert why in done.refused["x"] and left_out(found) == {"west": "dropped"}


def test_who_joins_twice_or_by_what_is_no_key_is_refused(table):
    other = X25519PrivateKey.from_private_bytes(bytes([9]) * 32)
    with pytest.raises(ConfigError, match=r"--joined.*is a second key of west"):
        masked.peers_of(table.agreed, 1, PUBLIC, {**table.joins, "x": table.join("west", other)})
    with pytest.raises(ConfigError, match=r"--joined.*west\.join.*has the key of east"):
        masked.peers_of(
            table.agreed, 1, PUBLIC, {**table.joins, "west.join": table.join("west", table.secrets["east"])}
        )
    said = Joined(federation=FEDERATION, site="west", round=1, public=PUBLIC)
    with pytest.raises(ArtifactError, match="no X25519 key"):
        masked.peers_of(table.agreed, 1, PUBLIC, {"x": masked.write(JOIN, said, b"0", table.desk.signer("west")).data})
    for small in (bytes(32), b"\1" + bytes(31)):
        file = masked.write(JOIN, said, small.hex().encode(), table.desk.signer("west")).data
        with pytest.raises(ArtifactError, match=r"west\.join.*point of small order"):
            masked.peers_of(table.agreed, 1, PUBLIC, {**table.joins, "west.join": file})
    with pytest.raises(UntrustedError, match="is not what was signed"):
        masked.peers_of(table.agreed, 1, PUBLIC, {"x": spoilt(table.joins["west.join"], "mask.pub", b"00" * 32)})
    with pytest.raises(ConfigError, match=r"min_sites.*2 sites have joined"):
        masked.peers_of(table.agreed, 1, PUBLIC, dict(list(table.joins.items())[:2]))


def test_the_masked_answers_of_a_site_hang_on_what_it_says_by_one_number_alone(table):
    """Two answers behind the same masks differ by the answers: so a student answers once (:mod:`infra.federation`)."""
    first, second = (
        np.frombuffer(bundle.members(table.answers("west", {i: {"ham": 1 - s, "spam": s} for i in IDS}).data, "")[
            "answers.u64"], "<u8")
        for s in (0.25, 0.5)
    )  # fmt: skip
    assert (second - first).tolist() == [2**64 - 2**38, 2**38] * 3


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("rule", lambda a: {**a, "rule": "geometric_median"}),
        ("rule", lambda a: {**a, "rule": "log_mean"}),
        ("most_distance", lambda a: {**a, "most_distance": 0.5}),
        ("min_sites", lambda a: {**a, "min_sites": 2}),
        (
            r"sites\.north\.classes",
            lambda a: {**a, "sites": {**a["sites"], "north": {**a["sites"]["north"], "classes": ["ham"]}}},
        ),
    ],
)
def test_an_agreement_that_needs_single_answers_is_refused(desk, tmp_path, field, change):
    sites = {n: {"key": str(public)} for n, (_, public) in desk.made.items()}
    agreed = {"name": FEDERATION, "space": SPACE, "classes": list(CLASSES), "masked": True, "min_sites": 3,
              "sites": sites}  # fmt: skip
    (tmp_path / "agreement.yaml").write_text(yaml.safe_dump(agreed))
    assert read_agreement(tmp_path / "agreement.yaml").masked
    (tmp_path / "agreement.yaml").write_text(yaml.safe_dump(change(agreed)))
    with pytest.raises(ConfigError, match=field):
        read_agreement(tmp_path / "agreement.yaml")


def test_a_sum_is_sharpened_as_a_mixture_is(desk):
    table = Table(desk, temperature=0.5)
    _, found = table.mixed(table.files(*NAMES))
    mean = sum(SPAM.values()) / 4
    assert found.rows[IDS[0]].distribution["spam"] == pytest.approx(mean**2 / (mean**2 + (1 - mean) ** 2))
    assert found.header.temperature == 0.5
