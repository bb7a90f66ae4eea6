"""Personal data is found in texts and masked: what is found of a small text of our own, and what is kept of none."""

import json
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.errors import ConfigError, FinderError, RecordError
from components.contracts.masking import (
    kept_length,
    known_search,
    masked_input,
    masked_record,
    masker,
    placeholders,
)
from components.contracts.records import Input, decode, encode
from components.contracts.spec import Factory, Masking, Payload, Spec, load_spec
from components.contracts.spec.masking import KINDS
from components.contracts.stream_record import Record

TEXTS = {
    "EMAIL": (
        ["write to ada@example.com", "Ada.Lovelace+tag@mail.example.co.uk is mine", "<grace_h@navy.example>",
         "von jürgen@example.de", "ada at example dot com"],
        ["the @ sign is old", "see example.com/about", "user@host"],
    ),
    "PHONE": (
        ["call (415) 555-0132", "+49 30 901820 is the desk", "415-555-2671 after six", "ring +44 20 7946 0958",
         "Tel. 030 901820"],
        ["order 12345", "version 10.4.2", "in 2026, 300 of 4000"],
    ),
    "CREDIT_CARD": (
        ["my card 4111 1111 1111 1111", "5500-0000-0000-0004 expired", "amex 378282246310005",
         "pay by 6011111111111117"],
        ["card 4111 1111 1111 1112", "invoice 1234 5678 9012 3456"],
    ),
    "SSN": (["ssn 536-90-4399", "it is 219-09-9999."], ["part 000-12-3456", "666-12-3456"]),
    "IP_ADDRESS": (["from 192.168.10.24", "host 2001:db8::8a2e:370:7334"], ["version 1.2.3", "999.1.2.3"]),
    "DE_IBAN": (
        ["IBAN DE89 3704 0044 0532 0130 00", "to DE89370400440532013000"],
        ["DE89 3704 0044 0532 0130 01", "DEAR ALL"],
    ),
    "ZIP_CODE": (["Beverly Hills, CA 90210", "10001-1234 New York"], ["room 902", "9021 days"]),
}  # fmt: skip
"""Texts with a piece of a kind, and texts that only look as if they had one."""

MEASURED = {
    "EMAIL": (4 / 5, 1.0),
    "PHONE": (4 / 5, 1.0),
    "CREDIT_CARD": (1.0, 1.0),
    "SSN": (1.0, 1.0),
    "IP_ADDRESS": (1.0, 1.0),
    "DE_IBAN": (1.0, 2 / 3),
    "ZIP_CODE": (1.0, 1.0),
}
"""Recall and precision by kind, as docs/masking.md tells them: what is written out in words is missed, and so is a
phone number of Germany without +49; the check digits of an IBAN are not looked at."""

MAIL = "write to ada@example.com, ring +44 20 7946 0958"


def spec_of(decoder="text", source="", **masking):
    return Spec(
        name="w", teacher=Factory(factory="t:T"), features=Factory(factory="f:F"), source=source,
        payload=Payload(decoder=decoder, max_bytes=400),
        masking=Masking(**({"entities": ("EMAIL", "PHONE")} | masking)),
    )  # fmt: skip


def masked(spec, payload):
    return masker(spec)(payload)


@pytest.fixture
def finding(tmp_path):
    """A spec whose finder is the body of a function of a text."""

    def make(body, entities=("NAME",), **fields):
        (tmp_path / "finder.py").write_text(f"def find(text):\n    {body}\n\n\ndef made():\n    return find\n")
        source = str(tmp_path / "spec.yaml")
        return spec_of(source=source, entities=entities, finder=Factory(factory="finder.py:made"), **fields)

    return make


@pytest.mark.parametrize("kind", TEXTS)
def test_recall_and_precision_are_those_that_the_docs_tell(kind):
    spec = spec_of(entities=(kind,))
    there, like = ([bool(masked(spec, t.encode()).found) for t in texts] for texts in TEXTS[kind])
    assert (sum(there) / len(there), sum(there) / (sum(there) + sum(like))) == pytest.approx(MEASURED[kind])


def test_the_kinds_that_may_be_named_are_those_of_the_library():
    import datafog_core

    offered = datafog_core.capabilities()["entities"]
    of_texts = {kind for kind, how in offered.items() if "text" in how["scopes"]}
    assert of_texts - set(KINDS) == {"UUID"} and set(KINDS) <= of_texts


def test_what_is_found_is_replaced_by_its_kind_and_counted():
    found = masked(spec_of(), f"é {MAIL}".encode())
    assert found.payload.decode() == "é write to [EMAIL], ring [PHONE]"
    assert found.found == {"EMAIL": 1, "PHONE": 1}
    again = masked(spec_of(), found.payload)
    assert again.payload == found.payload and not again.found
    assert placeholders(spec_of(), [found.payload, b"[EMAIL] [SSN]"]) == {"EMAIL": 2, "PHONE": 1}


def test_a_workload_without_masking_loads_no_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datafog_core", None)
    bare = msgspec.structs.replace(spec_of(), masking=None)
    entry = Input(workload="w", id="a", key="k", time=1.0, payload=MAIL.encode())
    assert masker(bare) is None and masked_input(bare, entry) is entry and placeholders(bare, [b"[EMAIL]"]) == {}
    with pytest.raises(ConfigError, match=r"cohobate\[masking\]"):
        masker(spec_of(entities=("DATE", "EMAIL")))  # a spec that no other test has made a masker of


def test_texts_of_json_are_searched_at_any_depth_or_in_the_columns_that_are_named():
    row = b'{"body": {"lines": ["a@b.de", 3]}, "from": "c@d.de", "n": 1.50}'
    everywhere = masked(spec_of("json"), row)
    assert msgspec.json.decode(everywhere.payload) == {"body": {"lines": ["[EMAIL]", 3]}, "from": "[EMAIL]", "n": 1.5}
    column = spec_of("json", columns=("body",))
    assert msgspec.json.decode(masked(column, row).payload)["from"] == "c@d.de"
    assert b"a@b.de" not in masked(column, b"[" + row + b"]").payload


def test_no_text_hides_behind_an_equal_name_or_an_escape():
    hidden = masked(spec_of("json"), b'{"a": "ada@example.com", "a": "x", "b": "ada\\u0040example.com"}')
    assert msgspec.json.decode(hidden.payload) == {"a": "x", "b": "[EMAIL]"} and b"example" not in hidden.payload
    assert masked(spec_of("json"), hidden.payload).payload == hidden.payload


@pytest.mark.parametrize(
    ("payload", "decoder", "reason"),
    [
        (b"\xff a@b.de", "text", "undecodable"),
        (b'{"a": ', "json", "undecodable"),
        (b'{"a": NaN}', "json", "not_finite"),
        (b'"' + b"x" * 500 + b'"', "json", "oversize"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_the_reason_of_its_decoder(payload, decoder, reason):
    with pytest.raises(RecordError) as refused:
        masked(spec_of(decoder), payload)
    assert refused.value.reason == reason


def test_a_finder_of_the_users_own_finds_beside_the_rules(finding):
    spec = finding("return [('NAME', text.index('Ada'), text.index('Ada') + 3)] if 'Ada' in text else []",
                   entities=("NAME", "EMAIL"))  # fmt: skip
    found = masked(spec, b"Ada: ada@example.com")
    assert found.payload == b"[NAME]: [EMAIL]" and found.found == {"NAME": 1, "EMAIL": 1}
    assert placeholders(spec, [found.payload]) == {"EMAIL": 1, "NAME": 1}


def test_pieces_that_overlap_are_one_and_other_kinds_are_left(finding):
    spec = finding("return [('NAME', 2, 7), ('OTHER', 0, 1), ('CITY', 0, 4)] if '[' not in text else []",
                   entities=("NAME", "CITY"))  # fmt: skip
    assert masked(spec, b"abcdefghij").payload == b"[NAME]hij"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise ValueError(text)", "raised ValueError"),
        ("return [('NAME', 0, 99)]", "not in the text"),
        ("return [('NAME', 3, 3)]", "not in the text"),
        ("return 7", "raised TypeError"),
        ("raise TimeoutError(text)", "raised TimeoutError"),
    ],
)
def test_a_finder_that_fails_keeps_nothing_and_quotes_nothing(finding, body, told):
    spec = finding(body)
    entry = Input(workload="w", id="a", key="k", time=1.0, payload=b"my secret")
    record = Record("w.inputs", 0, 0, b"k", encode(entry), {}, 1.0)
    for search in (lambda: masked(spec, b"my secret"), lambda: masked_record(spec, record)):
        with pytest.raises(FinderError, match=told) as failed:
            search()
        assert "secret" not in str(failed.value) and failed.value.__cause__ is None


def test_what_has_no_end_of_finds_is_refused_and_kept_nowhere(finding):
    spec = finding("return [('NAME', 0, 1)]")
    with pytest.raises(RecordError, match="more to find after") as failed:
        masked(spec, b"my secret")
    assert failed.value.reason == "mask_failed" and "secret" not in str(failed.value)
    entry = Input(workload="w", id="a", key="k", time=1.0, payload=b"my secret")
    record, why = masked_record(spec, Record("w.inputs", 0, 0, b"k", encode(entry), {}, 1.0))
    assert record.value == b"" and why is not None and why.reason == "mask_failed"


def test_a_record_that_a_producer_wrote_unmasked_is_masked_and_a_masked_one_is_left_as_it_is():
    entry = Input(workload="w", id="a", key="k", time=1.0, payload=MAIL.encode())
    record = Record("w.inputs", 0, 0, b"k", encode(entry), {}, 1.0)
    found, why = masked_record(spec_of(), record)
    assert why is None and decode(Input, found.value).payload == b"write to [EMAIL], ring [PHONE]"
    assert masked_record(spec_of(), found) == (found, None)
    for value in (b"no record of Ada", None, b""):
        strange = record._replace(value=value)
        kept, why = masked_record(spec_of(), strange)
        assert kept.value == (b"" if value else value) and (why is not None) == bool(value)


@pytest.mark.parametrize(
    ("payload", "masking", "told"),
    [
        ("raw", "{entities: [EMAIL]}", "payload.decoder is 'raw': it must be text or json"),
        ("text", "{entities: []}", r"masking\.entities.*must name what to look for"),
        ("text", "{entities: [email]}", r"masking\.entities.*is no name of a kind"),
        ("text", "{entities: [NAME]}", r"masking\.entities.*needs a masking\.finder that finds it"),
        ("text", "{entities: [EMAIL], columns: [a]}", r"masking\.columns.*goes with payload\.decoder: json"),
        ("text", "{entities: [EMAIL], with: x}", "unknown field `with`"),
        ("text", "{columns: [a]}", "missing required field `entities`"),
    ],
)
def test_a_masking_that_cannot_be_is_refused_when_the_spec_is_read(tmp_path, payload, masking, told):
    path = tmp_path / "spec.yaml"
    path.write_text(
        f"name: w\nteacher: {{factory: t:T}}\nfeatures: {{factory: f:F}}\npayload: {{decoder: {payload}}}\n"
        f"masking: {masking}\n"
    )
    with pytest.raises(ConfigError, match=told):
        load_spec(path)


def test_a_finder_that_is_none_is_refused_when_it_is_built(tmp_path):
    (tmp_path / "finder.py").write_text("def made():\n    return 7\n")
    spec = spec_of(source=str(tmp_path / "s.yaml"), entities=("NAME",), finder=Factory(factory="finder.py:made"))
    with pytest.raises(ConfigError, match=r"masking\.finder.*an object to call with a text"):
        masker(spec)


def test_the_digest_of_a_spec_that_masks_nothing_is_what_it_was():
    bare = msgspec.structs.replace(spec_of(), masking=None)
    assert bare.digest != spec_of().digest
    assert spec_of().digest != spec_of(entities=("EMAIL",)).digest


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("ping 10.0.0.1:8080, then fe80::1.", "ping [IP_ADDRESS]:8080, then [IP_ADDRESS]."),
        ("::::::::::", "::::::::::"),
        ("f :: Int -> std::vector, ns::b::c()", "f :: Int -> std::vector, ns::b::c()"),
        ("release 1.2.3.4.5 of 300.1.1.1", "release 1.2.3.4.5 of 300.1.1.1"),
        ("::" * 32_000, "::" * 32_000),
    ],
)
def test_an_address_stands_by_itself_and_has_more_than_colons(text, left):
    spec = msgspec.structs.replace(spec_of(entities=("IP_ADDRESS",)), payload=Payload(decoder="text"))
    assert masked(spec, text.encode()).payload.decode() == left


def test_pieces_that_run_into_each_other_are_all_found():
    assert masked(spec_of(), b"+49 30 901820" * 4).payload == b"[PHONE]" * 4


def test_a_text_that_is_too_long_is_not_searched(finding):
    spec = finding("raise AssertionError(text)")
    with pytest.raises(RecordError) as refused:
        masked(spec, b"x" * 401)
    assert refused.value.reason == "oversize"


@pytest.mark.parametrize("payload", [b'"a@b.com"', b'["a@b.com"]', b'[[{"text": "a@b.com"}]]'])
def test_where_fields_are_named_a_payload_without_fields_is_not_kept(payload):
    with pytest.raises(RecordError, match="must be an object, or a list of objects") as refused:
        masked(spec_of("json", columns=("text",)), payload)
    assert refused.value.reason == "mask_failed"


def tagging_of(**masking):
    return msgspec.structs.replace(spec_of(**masking), task="tagging")


def test_where_answers_are_places_what_is_left_keeps_its_own():
    spec = tagging_of()
    found = masked(spec, f"é {MAIL}, Ada".encode())
    assert found.payload.decode() == "é write to [EMAIL________], ring [PHONE_________], Ada"
    assert len(found.payload.decode()) == len(f"é {MAIL}, Ada") and found.found == {"EMAIL": 1, "PHONE": 1}
    again = masked(spec, found.payload)
    assert again.payload == found.payload and not again.found
    assert placeholders(spec, [found.payload, b"[EMAIL] [SSN___]"]) == {"EMAIL": 1 + 1, "PHONE": 1}
    listed = msgspec.structs.replace(spec, payload=Payload(decoder="json", max_bytes=400))
    assert json.loads(masked(listed, json.dumps(MAIL).encode()).payload).startswith("write to [EMAIL________], ")


@pytest.mark.parametrize(
    ("kind", "length", "kinds", "said"),
    [
        ("ZIP_CODE", 5, {"ZIP_CODE", "EMAIL"}, "[ZIP]"),
        ("ZIP_CODE", 10, {"ZIP_CODE"}, "[ZIP_CODE]"),
        ("DE_TAX_ID", 5, {"DE_TAX_ID", "DE_VAT_ID"}, "_____"),  # of the one or of the other
        ("DE_TAX_ID", 6, {"DE_TAX_ID", "DE_VAT_ID"}, "[DE_T]"),
        ("A_B", 4, {"A", "A_B"}, "____"),  # it would be the other's
        ("A", 5, {"A", "A_B"}, "[A__]"),
        ("EMAIL", 5, {"EMAIL"}, "[EMA]"),
        ("EMAIL", 4, {"EMAIL"}, "____"),  # [EM] and [E] stand in texts that have none
        ("EMAIL", 3, {"EMAIL"}, "___"),
        ("EMAIL", 2, {"EMAIL"}, "__"),
        ("EMAIL", 1, {"EMAIL"}, "_"),
    ],
)
def test_a_piece_that_is_short_has_what_tells_its_kind_alone(kind, length, kinds, said):
    assert kept_length(kind, length, kinds) == said and len(said) == length
    spec = tagging_of(entities=tuple(sorted(kinds)))
    assert placeholders(spec, [said.encode()]) == ({kind: 1} if said.startswith("[") else {})


def test_letters_in_brackets_of_a_text_are_no_placeholders():
    spec = tagging_of()
    assert placeholders(spec, [b"vector [E], [P] of point [PH], [EM]", b"[EMA] and [P_]"]) == {"EMAIL": 1}


PIECES = ["ada@example.com", "b@c.de", "90210", "+44 20 7946 0958", "Ada", "of", "東京", "🙂", "[EMAIL]", "-", "\n"]


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=8))
def test_masking_moves_nothing_and_is_done_once(pieces):
    spec, text = tagging_of(entities=("EMAIL", "PHONE", "ZIP_CODE")), " ".join(pieces)
    found = masked(spec, text.encode())
    after, at = found.payload.decode(), 0
    assert len(after) == len(text) and masked(spec, found.payload).payload == found.payload
    for piece in pieces:
        if piece in ("Ada", "of", "東京", "🙂", "[EMAIL]"):
            assert after[at : at + len(piece)] == piece
        elif "@" in piece:
            assert "@" not in after[at : at + len(piece)]
        at += len(piece) + 1


def test_what_texts_are_searched_by_is_known_by_the_spec_and_the_code_of_its_finder(monkeypatch):
    first, second = (f"workload:w@{digit * 64}" for digit in "ab")
    assert known_search(spec_of()) == known_search(spec_of(source=first)) == known_search(spec_of(source=second))
    finder = {"finder": Factory(factory="finder.py:made")}
    assert known_search(spec_of(**finder)) is None
    found = [known_search(spec_of(source=source, **finder)) for source in (first, second)]
    others = [known_search(s) for s in (spec_of(), spec_of(entities=("EMAIL",)), spec_of(decoder="json"))]
    assert None not in found and len({*found, *others}) == 5
    monkeypatch.setattr("components.contracts.masking.metadata.version", lambda _: "0.0.0")
    assert known_search(spec_of()) != others[0]
    assert known_search(msgspec.structs.replace(spec_of(), masking=None)) is None
