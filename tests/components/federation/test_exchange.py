"""A site's file: what is signed is what is read, and anything else is refused."""

import base64
import io
import json
import tarfile

import msgspec
import pytest

from components.contracts import attestation, bundle
from components.contracts.attestation import verifier
from components.contracts.errors import ArtifactError, ConfigError, UntrustedError
from components.contracts.storage import digest_of
from components.federation import exchange
from components.federation.exchange import ANSWERS, PREDICATE, STATEMENT, read, row_id, set_digest, signed_by
from tests.components.federation.conftest import FEDERATION

SAID = {
    "federation": FEDERATION, "site": "north", "round": 1, "space": "s", "classes": ["ham", "spam"], "public": "",
    "student": "",
}  # fmt: skip


def key(desk, name="north"):
    return verifier(desk.made[name][1])


def changed(data, **files):
    return bundle.pack({**bundle.members(data, ""), **{n.replace("_", "."): v for n, v in files.items()}})


def test_what_was_written_is_read(desk):
    data = desk.file("north", privacy={"epsilon": 3.0, "delta": 1e-5, "unit": "input"})
    found = read(data, "f", key(desk), FEDERATION)
    assert found.said.site == "north" and found.said.privacy["epsilon"] == 3.0
    signed = base64.b64decode(json.loads(bundle.members(data, "")[STATEMENT])["payload"])
    assert found.statement == digest_of(signed)
    assert found.by_id[row_id("two")] == pytest.approx({"ham": 0.1, "spam": 0.9})
    assert signed_by(data, "f") == (key(desk).keyid,)


def test_equal_answers_are_equal_files(desk):
    assert desk.file("north") == desk.file("north") != desk.file("north", 0.8)


def test_nothing_of_an_input_but_its_hash_is_handed_on(desk):
    data = desk.file("north")
    assert b"three" not in data and row_id("three").encode() in data


def test_answers_that_were_changed_are_refused(desk):
    data = desk.file("north")
    lines = bundle.members(data, "")[ANSWERS].replace(b'"spam":0.9', b'"spam":0.8')
    with pytest.raises(UntrustedError, match=r"answers\.jsonl was changed") as refused:
        read(changed(data, answers_jsonl=lines), "f", key(desk), FEDERATION)
    assert refused.value.reason == "other_subject"


def test_another_site_s_signature_is_none(desk):
    with pytest.raises(UntrustedError) as refused:
        read(desk.file("north", by="south"), "f", key(desk), FEDERATION)
    assert refused.value.reason == "forged"


def test_what_is_signed_for_another_federation_is_refused_by_its_name(desk):
    with pytest.raises(UntrustedError, match="is signed for the federation 'hospitals', not 'banks'") as refused:
        read(desk.file("north", federation="hospitals"), "f", key(desk), FEDERATION)
    assert refused.value.reason == "other_federation"


def test_the_statement_cannot_be_replaced_by_another_of_the_same_key(desk):
    answers = bundle.members(desk.file("north"), "")[ANSWERS]
    said = attestation.statement("urn:cohobate:snapshot:v1", {ANSWERS: digest_of(answers)}, {})
    data = bundle.pack({ANSWERS: answers, STATEMENT: attestation.sign(said, desk.signer("north"))})
    with pytest.raises(UntrustedError) as refused:
        read(data, "f", key(desk), FEDERATION)
    assert refused.value.reason == "other_kind"


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"one": {"ham": 0.5, "eggs": 0.5}}, r"classes that it does not list: \['eggs'\]"),
        ({"one": {"ham": 0.5, "spam": 0.2}}, "no distribution"),
        ({"one": {"ham": 1.5, "spam": -0.5}}, "no distribution"),
        ({"one": {"ham": 2.0, "spam": -1.0}}, "no distribution"),
        ({"one": {}}, "no distribution"),
    ],
)
def test_what_a_site_signs_has_to_be_distributions_over_its_classes(desk, answers, why):
    with pytest.raises(ArtifactError, match=why):
        read(desk.file("north", answers=answers), "f", key(desk), FEDERATION)


def test_an_input_is_answered_once(desk):
    answers = bundle.members(desk.file("north"), "")[ANSWERS]
    doubled = answers + answers.splitlines(keepends=True)[0]
    made = attestation.statement(PREDICATE, {ANSWERS: digest_of(doubled)}, SAID)
    data = bundle.pack({ANSWERS: doubled, STATEMENT: attestation.sign(made, desk.signer("north"))})
    with pytest.raises(ArtifactError, match="answers an input twice"):
        read(data, "f", key(desk), FEDERATION)


def lined(desk, line):
    """A file whose answers are this line, signed."""
    made = attestation.statement(PREDICATE, {ANSWERS: digest_of(line)}, SAID)
    return bundle.pack({ANSWERS: line, STATEMENT: attestation.sign(made, desk.signer("north"))})


def test_a_line_has_no_other_fields(desk):
    with pytest.raises(ArtifactError, match=r"holds no answers of a site: .*unknown field `more`"):
        read(lined(desk, b'{"id":"a","distribution":{"ham":1.0},"more":[]}'), "f", key(desk), FEDERATION)


def test_a_line_that_is_nested_too_deeply_is_refused(desk, monkeypatch):
    decode = msgspec.json.decode

    def deep(line, *, type):
        if type is exchange._Line:
            raise RecursionError("maximum recursion depth exceeded")
        return decode(line, type=type)

    monkeypatch.setattr(msgspec.json, "decode", deep)
    with pytest.raises(ArtifactError, match="holds no answers of a site: maximum recursion"):
        read(desk.file("north"), "f", key(desk), FEDERATION)


def test_headers_that_hold_no_numbers_are_refused():
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as made:
        member = tarfile.TarInfo(ANSWERS)
        member.pax_headers = {"GNU.sparse.map": "a,b"}
        made.addfile(member, io.BytesIO())
    with pytest.raises(ArtifactError, match="is no bundle"):
        bundle.members(archive.getvalue(), "f")


def test_what_is_no_statement_of_answers_is_refused(desk):
    answers = bundle.members(desk.file("north"), "")[ANSWERS]
    made = attestation.statement(PREDICATE, {ANSWERS: digest_of(answers)}, {"site": "north"})
    data = bundle.pack({ANSWERS: answers, STATEMENT: attestation.sign(made, desk.signer("north"))})
    with pytest.raises(ArtifactError, match="holds no answers of a site"):
        read(data, "f", key(desk), FEDERATION)


def test_other_files_are_none(desk):
    for data in (b"", b"text", bundle.pack({"a": b""}), changed(desk.file("north"), more_txt=b"")):
        with pytest.raises(ArtifactError):
            read(data, "f", key(desk), FEDERATION)
    link = io.BytesIO()
    with tarfile.open(fileobj=link, mode="w") as archive:
        member = tarfile.TarInfo(ANSWERS)
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(ArtifactError, match="symbolic link"):
        read(link.getvalue(), "f", key(desk), FEDERATION)


def test_an_input_goes_by_its_content_and_not_by_how_it_is_written():
    a, b = (msgspec.json.decode(text) for text in (b'{"a": 1, "b": "x"}', b'{"b":"x","a":1}'))
    assert row_id(a) == row_id(b) != row_id({"a": 2, "b": "x"})
    assert row_id("text") == row_id(b"text")
    assert len({row_id(one) for one in (1, "1", None, "null", [1], "[1]", True, "true")}) == 8
    assert set_digest(["b", "a", "b"]) == set_digest(["a", "b"]) != set_digest(["a"])


def test_a_payload_without_bytes_of_its_own_is_refused():
    with pytest.raises(ConfigError, match="gives a object: public inputs need the decoder raw, text or json"):
        row_id(object())
