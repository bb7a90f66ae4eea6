"""A round: which sites have a part in it, why others have none, and a record that anybody makes again."""

import json

import msgspec
import pytest

from components.contracts import bundle
from components.contracts.attestation import verifier
from components.contracts.errors import ArtifactError, ConfigError
from components.contracts.storage import digest_of
from components.federation import exchange
from components.federation.exchange import ANSWERS, STATEMENT, row_id
from components.federation.rounds import mixed, read
from tests.components.federation.conftest import CLASSES, FEDERATION, TEXTS

IDS = [row_id(text) for text in TEXTS]


def signed_answers(desk, data):
    return exchange.read(data, "f", verifier(desk.made["north"][1]), FEDERATION).statement


def left_out(done):
    return {name: part.left_out for name, part in done.header.sites.items() if part.left_out is not None}


def test_the_mixture_is_recorded_with_its_weights(desk):
    files = {"a": desk.file("north", 0.9), "b": desk.file("south", 0.7), "c": desk.file("east", 0.8)}
    done = mixed(desk.agreement(), 1, IDS, files)
    found = read(done.data, "m")
    assert left_out(done) == {"west": "absent"} and done.rows == 3 and done.refused == {}
    row = found.rows[row_id("two")]
    assert row.distribution == pytest.approx({"ham": 0.2, "spam": 0.8})
    assert row.weights == pytest.approx({"east": 1 / 3, "north": 1 / 3, "south": 1 / 3})
    assert found.header.sites["north"].statement == signed_answers(desk, files["a"]) and found.digest == digest_of(
        done.data
    )
    assert found.header.sites["north"].rows == 3 and found.header.inputs == 3


def test_a_round_made_again_is_the_same_file(desk):
    files = {"a": desk.file("north"), "b": desk.file("south", 0.7)}
    agreed = desk.agreement(rule="geometric_median")
    again = mixed(agreed, 1, [*reversed(IDS), IDS[0]], {"z": files["a"], "y": files["b"], "x": files["b"]})
    assert again.data == mixed(agreed, 1, IDS, files).data


def code_of(done):
    return {uri: why.partition(":")[0] for uri, why in done.refused.items()}


def spoilt(data):
    files = bundle.members(data, "")
    return bundle.pack({**files, ANSWERS: files[ANSWERS].replace(b'"spam":0.9', b'"spam":0.1')})


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (lambda desk: spoilt(desk.file("west")), "other_subject"),
        (lambda desk: desk.file("north", by="west"), "other_site"),
        (lambda desk: desk.file("west", federation="hospitals"), "other_federation"),
        (lambda desk: desk.file("west", round=2), "other_round"),
        (lambda desk: desk.file("west", space="mail@2"), "other_space"),
        (lambda desk: desk.file("west", public="0" * 64), "other_public"),
        (lambda desk: desk.file("west", classes=("ham", "spam", "eggs")), "unknown_classes"),
        (lambda desk: desk.file("west", answers={"one": {"ham": 3.0}}), "unreadable"),
    ],
)
def test_a_file_that_does_not_hold_leaves_its_site_out_and_the_round_goes_on(desk, file, why):
    files = {"a": desk.file("north"), "b": desk.file("south"), "c": file(desk)}
    done = mixed(desk.agreement(), 1, IDS, files)
    assert left_out(done) == {"east": "absent", "west": why} and code_of(done) == {"c": why}
    assert done.rows == 3


def test_what_was_forged_or_is_old_takes_nothing_from_the_file_that_holds(desk):
    good = {"b": desk.file("north"), "d": desk.file("south")}
    bad = {"a": spoilt(desk.file("north")), "c": desk.file("south", round=2), "e": spoilt(desk.file("south"))}
    done = mixed(desk.agreement(), 1, IDS, {**good, **bad})
    assert done.data == mixed(desk.agreement(), 1, IDS, good).data
    assert code_of(done) == {"a": "other_subject", "c": "other_round", "e": "other_subject"}


def test_who_answers_twice_and_differently_has_no_part(desk):
    files = {"a": desk.file("north"), "b": desk.file("south"), "c": desk.file("west", 0.9), "d": desk.file("west", 0.1)}
    assert left_out(mixed(desk.agreement(), 1, IDS, files)) == {"east": "absent", "west": "twice"}


def test_a_file_that_a_stranger_packed_anew_is_not_a_second_one(desk):
    """What is not signed may be changed without a key: the padding of the archive, and how the envelope is written."""
    good = {"a": desk.file("north"), "b": desk.file("south")}
    files = bundle.members(good["a"], "")
    indented = json.dumps(json.loads(files[STATEMENT]), indent=3).encode()
    packed = {"c": good["a"] + bytes(512), "d": bundle.pack({**files, STATEMENT: indented})}
    assert len({good["a"], *packed.values()}) == 3
    assert mixed(desk.agreement(), 1, IDS, {**packed, **good}).data == mixed(desk.agreement(), 1, IDS, good).data


def test_files_of_strangers_are_refused(desk):
    agreed = desk.agreement()
    agreed = msgspec.structs.replace(agreed, sites={n: s for n, s in agreed.sites.items() if n != "west"})
    files = {"a": desk.file("north"), "b": desk.file("south"), "c": desk.file("west"), "d": b"no archive"}
    done = mixed(agreed, 1, IDS, files)
    assert done.refused["c"] == "is signed by no site of the agreement" and "is no bundle" in done.refused["d"]
    assert done.header.sites.keys() == {"east", "north", "south"}


def test_a_file_of_another_federation_is_refused_by_that_one_s_name(desk):
    files = {"a": desk.file("north"), "b": desk.file("south"), "c": desk.file("west", federation="hospitals")}
    done = mixed(desk.agreement(), 1, IDS, files)
    assert "is signed for the federation 'hospitals', not 'banks'" in done.refused["c"]
    assert read(done.data, "m").header.federation == "banks"


def test_too_few_sites_make_no_round(desk):
    files = {"a": desk.file("north"), "b": spoilt(desk.file("south"))}
    with pytest.raises(
        ConfigError, match=r"1 of 4 sites count in round 1 \(east absent, south other_subject, west absent\): wait"
    ):
        mixed(desk.agreement(), 1, IDS, files)


def test_who_answered_nothing_public_is_none_of_the_quorum(desk):
    files = {
        "a": desk.file("north"),
        "b": desk.file("south", texts=("other",)),
        "c": desk.file("west", public="0" * 64),
    }
    told = "east absent, south no_answers, west other_public.*the decoder of the spec, is not that of the site"
    with pytest.raises(ConfigError, match=told):
        mixed(desk.agreement(), 1, IDS, files)


def test_a_mixture_without_rows_is_none(desk):
    files = {"a": desk.file("north", texts=("one",)), "b": desk.file("south", texts=("two",))}
    with pytest.raises(ConfigError, match="no public input was answered by as many sites in round 1"):
        mixed(desk.agreement(), 1, IDS, files)


def test_an_input_that_too_few_answered_has_no_row_and_weights_follow_who_did(desk):
    files = {
        "a": desk.file("north", 0.9), "b": desk.file("south", 0.5, texts=("one", "two")),
        "c": desk.file("east", 0.7, texts=("one",)),
    }  # fmt: skip
    found = read(mixed(desk.agreement(), 1, IDS, files).data, "m")
    assert found.rows.keys() == {row_id("one"), row_id("two")}
    assert found.rows[row_id("two")].weights == {"north": 0.5, "south": 0.5}
    assert found.rows[row_id("two")].distribution == pytest.approx({"ham": 0.3, "spam": 0.7})


def test_what_a_site_says_of_other_inputs_is_not_looked_at(desk):
    files = {"a": desk.file("north", texts=(*TEXTS, "other")), "b": desk.file("south", texts=(*TEXTS, "other"))}
    done = mixed(desk.agreement(), 1, IDS, files)
    assert read(done.data, "m").rows.keys() == set(IDS)


def test_the_one_that_is_too_far_from_the_others_is_left_out(desk):
    files = {"a": desk.file("north", 0.9), "b": desk.file("south", 0.8), "c": desk.file("east", 0.9)}
    files["d"] = desk.file("west", 0.05)
    done = mixed(desk.agreement(most_distance=0.4), 1, IDS, files)
    assert left_out(done) == {"west": "distant"} and done.header.sites["west"].distance > 0.7
    row = read(done.data, "m").rows[IDS[0]]
    assert row.weights.keys() == {"east", "north", "south"} and row.distribution["spam"] > 0.85
    kept = mixed(desk.agreement(), 1, IDS, files)
    assert left_out(kept) == {} and kept.header.sites["west"].distance > 0.7, "it is told without a limit, too"


def test_a_site_takes_no_class_by_claiming_it(desk):
    """The agreement has it that nobody but east knows eggs; south and north have no say in it either."""
    classes, known = ("ham", "spam", "eggs"), {"east": (), "north": CLASSES, "south": CLASSES, "west": CLASSES}
    agreed = desk.agreement(classes=classes, rule="geometric_median", most_distance=0.3)
    sites = {n: msgspec.structs.replace(s, classes=known[n]) for n, s in agreed.sites.items()}
    files = {name: desk.file(name, 0.9) for name in ("north", "south")}
    files["west"] = desk.file("west", classes=classes, answers={t: {"eggs": 1.0} for t in TEXTS})
    done = mixed(msgspec.structs.replace(agreed, sites=sites), 1, IDS, files)
    assert left_out(done) == {"east": "absent", "west": "unknown_classes"}
    assert read(done.data, "m").rows[IDS[0]].distribution == pytest.approx({"ham": 0.1, "spam": 0.9})


def test_a_lie_about_a_class_that_few_know_leaves_the_liar_out(desk):
    classes = ("ham", "spam", "eggs")
    files = {name: desk.file(name, 0.9) for name in ("north", "south")}
    files["east"] = desk.file("east", 0.9, classes=classes)
    files["west"] = desk.file("west", classes=classes, answers={t: {"eggs": 1.0} for t in TEXTS})
    done = mixed(desk.agreement(classes=classes, rule="geometric_median", most_distance=0.3), 1, IDS, files)
    assert left_out(done) == {"west": "distant"}
    assert read(done.data, "m").rows[IDS[0]].distribution == pytest.approx({"ham": 0.1, "spam": 0.9})


def test_distance_may_leave_too_few(desk):
    files = {"a": desk.file("north", 0.9), "b": desk.file("south", 0.1)}
    with pytest.raises(ConfigError, match="distant"):
        mixed(desk.agreement(most_distance=0.1), 1, IDS, files)


def test_the_median_survives_a_byzantine_site(desk):
    files = {"a": desk.file("north", 0.9), "b": desk.file("south", 0.88), "c": desk.file("east", 0.92)}
    files["d"] = desk.file("west", 0.0)
    shares = {}
    for rule in ("mean", "geometric_median"):
        done = mixed(desk.agreement(rule=rule), 1, IDS, files)
        shares[rule] = read(done.data, "m").rows[IDS[0]].distribution["spam"]
    assert shares["mean"] < 0.7 and shares["geometric_median"] > 0.87


def test_what_is_no_mixture_is_refused(desk):
    done = mixed(desk.agreement(), 1, IDS, {"a": desk.file("north"), "b": desk.file("south")})
    for data in (b"", b"text\n", done.data + b'{"id": 3}\n'):
        with pytest.raises(ArtifactError, match="is no mixture of 'cohobate federate mix'"):
            read(data, "m")
    newer = msgspec.json.encode(msgspec.structs.replace(done.header, schema=3))
    for schema, other in ((3, newer), (1, b'{"schema":1,"round":1}')):
        with pytest.raises(ArtifactError, match=f"schema {schema}; this version reads 2: mix the round again"):
            read(other, "m")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: [*rows, rows[0]], "an answer twice"),
        (lambda rows: [*rows, msgspec.structs.replace(rows[0], id="f" * 64)], "4 answers to 3 inputs"),
        (lambda rows: [msgspec.structs.replace(rows[0], distribution={"eggs": 1.0})], r"does not: \['eggs'\]"),
        (lambda rows: [msgspec.structs.replace(rows[0], distribution={"ham": 0.5})], "do not sum to one"),
        (lambda rows: [msgspec.structs.replace(rows[0], distribution={})], "do not sum to one"),
        (lambda rows: [msgspec.structs.replace(rows[0], weights={"west": 1.0})], r"no part in it: \['west'\]"),
        (lambda rows: [msgspec.structs.replace(rows[0], weights={"north": 2.0, "south": -1.0})], "do not sum to one"),
    ],
)
def test_a_mixture_whose_rows_do_not_go_with_it_is_refused(desk, change, told):
    done = mixed(desk.agreement(), 1, IDS, {"a": desk.file("north"), "b": desk.file("south")})
    found = read(done.data, "m")
    lines = (found.header, *change(list(found.rows.values())))
    with pytest.raises(ArtifactError, match=told):
        read(b"".join(msgspec.json.encode(line) + b"\n" for line in lines), "m")


def test_a_mixture_that_is_sharpened_says_so_and_one_that_is_not_is_as_ever(desk):
    files = {"a": desk.file("north", 0.9), "b": desk.file("south", 0.7)}
    plain = mixed(desk.agreement(), 1, IDS, files)
    assert b"temperature" not in plain.data and b"masked" not in plain.data
    found = read(mixed(desk.agreement(temperature=0.5), 1, IDS, files).data, "m")
    assert found.header.temperature == 0.5
    assert found.rows[IDS[0]].distribution["spam"] == pytest.approx(0.8**2 / (0.8**2 + 0.2**2))
