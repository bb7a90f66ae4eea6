import base64
import codecs
import json
from datetime import UTC, datetime

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.contracts.errors import ConfigError
from components.contracts.records import Input, Truth
from components.contracts.spec import Factory, Masking, Payload, Spec
from components.label.history_file import Historic, read_history

AT = 1_700_000_000.0


@pytest.fixture
def spec():
    return Spec(
        name="letters", teacher=Factory(factory="t:T"), features=Factory(factory="f:F"), payload=Payload(decoder="raw")
    )


@pytest.fixture
def texts(spec):
    return msgspec.structs.replace(spec, payload=Payload(decoder="text"))


@pytest.fixture
def written(tmp_path):
    """Write bytes, lines of JSON, or a table, and read it as a history."""

    def write(data, spec, name="h.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, pa.Table):
            pq.write_table(data, path)
        else:
            path.write_bytes(data if isinstance(data, bytes) else b"\n".join(json.dumps(r).encode() for r in data))
        return read_history(str(path), spec)

    return write


def entry(i, payload, truth="a"):
    return Historic(
        input=Input(workload="letters", id=f"i{i}", key="k", time=1000.0 + i, payload=payload),
        truth=truth
        and Truth(
            workload="letters", input_id=f"i{i}", time=1000.0 + i, known_at=1000.0 + i, source="history", label=truth
        ),
    )


def payloads(entries):
    return [e.input.payload for e in entries]


def test_json_lines_and_parquet_hold_the_same_history(spec, written):
    entries = [entry(0, b"\x00a"), entry(1, b"b", None)]
    rows = [
        {"workload": "letters", "id": e.input.id, "key": "k", "time": e.input.time, "payload": e.input.payload,
         "label": e.truth.label if e.truth else None}
        for e in entries
    ]  # fmt: skip
    flat = [{**r, "payload": base64.b64encode(r["payload"]).decode()} for r in rows]
    nested = b"\n".join(msgspec.json.encode(e) for e in entries)
    table = pa.Table.from_pylist(rows)
    assert written(nested, spec) == written(flat, spec) == written(table, spec, "h.parquet") == entries


def test_a_row_needs_no_more_than_its_payload(texts, written):
    before = datetime.now(UTC).timestamp()
    first, second, again = written([{"text": "one"}, {"text": "two", "label": "b"}, {"text": "one"}], texts)
    assert first.input.workload == "letters" and first.truth is None
    assert first.input.key == first.input.id != second.input.id
    assert again.input.id == f"{first.input.id}-2"
    assert before <= first.input.time <= datetime.now(UTC).timestamp()
    truth = second.truth
    assert (truth.input_id, truth.label, truth.source) == (second.input.id, "b", "history")
    assert truth.time == truth.known_at == second.input.time
    # So that the same history again, and more of it, names the same inputs.
    longer = written([{"text": "one"}, {"text": "two"}, {"text": "one"}, {"text": "three"}], texts)
    assert [e.input.id for e in longer][:3] == [e.input.id for e in (first, second, again)]


def test_a_payload_is_text_json_or_bytes(spec, written):
    rows = [{"text": "grün"}, {"json": {"x": 1, "ü": [True]}}, {"payload_base64": "AAE="}, {"payload": "AAE="}]
    assert payloads(written(rows, spec)) == ["grün".encode(), '{"x": 1, "ü": [true]}'.encode(), b"\0\1", b"\0\1"]
    table = pa.table({"json": [{"x": 1.5}, {"x": 2.0}], "value": [1.0, None], "other": ["a", "b"]})
    one, two = written(table, spec, "h.parquet")
    assert payloads([one, two]) == [b'{"x": 1.5}', b'{"x": 2.0}']
    assert one.truth.value == 1.0 and two.truth is None


def test_a_truth_may_say_when_it_became_known_and_by_whom(texts, written):
    row = {"text": "a", "time": AT, "label": "b", "known_at": AT + 9, "source": "desk"}
    (flat,) = written([row], texts)
    (nested,) = written(
        [{"input": {"text": "a", "time": AT}, "truth": {"label": "b", "known_at": AT + 9, "source": "desk"}}], texts
    )
    assert flat == nested
    assert (flat.truth.time, flat.truth.known_at, flat.truth.source) == (AT, AT + 9, "desk")


def test_timestamps_of_parquet_are_unix_seconds(texts, written):
    when = datetime.fromtimestamp(AT, UTC)
    for zone in ("UTC", None):
        column = pa.array([when.replace(tzinfo=None if zone is None else UTC)], pa.timestamp("us", tz=zone))
        (read,) = written(pa.table({"text": ["a"], "time": column}), texts, "h.parquet")
        assert read.input.time == AT


def test_a_byte_order_mark_and_blank_lines_are_nothing(texts, written):
    lines = b'\xef\xbb\xbf{"text": "a"}\r\n\r\n   \n{"text": "b"}\n\n'
    assert lines.startswith(codecs.BOM_UTF8)
    assert payloads(written(lines, texts)) == [b"a", b"b"]


def test_lines_are_counted_as_an_editor_counts_them(texts, written):
    with pytest.raises(ConfigError, match=r"line 4 of .*h\.jsonl"):
        written(b'{"text": "a"}\n\n\n{"text": 3}\n', texts)


def test_a_folder_s_parts_are_read_in_the_order_of_their_names(texts, tmp_path, written):
    written(pa.table({"text": ["c", "d"], "label": ["x", None]}), texts, "h/part-2.parquet")
    written(pa.table({"text": ["a", "b"]}), texts, "h/part-1.parquet")
    written([{"text": "e"}], texts, "h/sub/part-3.jsonl")
    (tmp_path / "h" / "_SUCCESS").write_bytes(b"")
    (tmp_path / "h" / "_metadata.json").write_bytes(b"{}")
    (tmp_path / "h" / ".part-0.parquet.crc").write_bytes(b"x")
    read = read_history((tmp_path / "h").as_uri(), texts)
    assert payloads(read) == [b"a", b"b", b"c", b"d", b"e"]
    assert [e.truth.label if e.truth else None for e in read] == [None, None, "x", None, None]


def test_a_folder_without_parts_is_named(texts, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"a folder with files that end in \.parquet"):
        read_history(str(tmp_path / "empty"), texts)


class TestPayloadAsText:
    """``payload`` as text was always base64: what could as well be the plain text is refused."""

    def test_what_is_no_base64_names_the_field_for_plain_text(self, spec, texts, written):
        for workload in (spec, texts):
            with pytest.raises(ConfigError, match="plain text goes into the field text"):
                written([{"payload": "my invoice is wrong"}], workload)

    @pytest.mark.parametrize("word", ["password", "late", "invoice1"])
    def test_a_word_that_happens_to_be_base64_is_not_decoded_in_silence(self, texts, written, word):
        base64.b64decode(word, validate=True)
        with pytest.raises(ConfigError, match="is it plain text"):
            written([{"payload": word}], texts)
        table = pa.table({"payload": [word]})
        with pytest.raises(ConfigError, match=r"row 1 .*is it plain text"):
            written(table, texts, "h.parquet")

    def test_nor_is_json(self, spec, written):
        numbers = msgspec.structs.replace(spec, payload=Payload(decoder="json"))
        with pytest.raises(ConfigError, match="is it plain text"):
            written([{"payload": "1234"}], numbers)

    def test_what_it_spells_is_taken_where_that_can_be_decoded(self, texts, spec, written):
        row = {"payload": base64.b64encode("grün".encode()).decode()}
        assert payloads(written([row], texts)) == payloads(written([row], spec)) == ["grün".encode()]

    def test_declared_as_base64_it_may_be_anything_and_becomes_a_dead_letter_where_it_must(self, texts, written):
        assert payloads(written([{"payload_base64": "/w=="}], texts)) == [b"\xff"]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("h.jsonl", b"", "at least one entry"),
        ("h.jsonl", b"\n \n", "at least one entry"),
        ("h.jsonl", b'{"input": 3}', "line 1 of .*input and truth are objects"),
        ("h.jsonl", b"[1]", "line 1 of "),
        ("h.jsonl", b'{"text": "a"', "line 1 of "),
        ("h.jsonl", '{"text": "a"}'.encode("utf-16"), "is UTF-16: save it as UTF-8"),
        ("h.jsonl", b'{"text": "a", "lable": "b"}', "there is no field lable"),
        ("h.jsonl", b'{"id": "a"}', "give exactly one of text, json, payload_base64, payload, not none"),
        ("h.jsonl", b'{"text": "a", "json": 1}', "not text, json"),
        ("h.jsonl", b'{"text": "a", "label": "b", "value": 1.0}', "one of a label, a value"),
        ("h.jsonl", b'{"text": "a", "time": "2024-01-01"}', "line 1 of .*time"),
        ("h.jsonl", b'{"payload_base64": "a b"}', "payload_base64 is not base64"),
        ("h.parquet", b"no table", "must be a Parquet file"),
        ("h.jsonl", b'{"text": "a", "workload": "mail"}', "has inputs of mail, not only of letters"),
    ],
)
def test_what_is_no_history_is_named(texts, written, name, data, said):
    with pytest.raises(ConfigError, match=said):
        written(data, texts, name)


def test_json_text_in_a_column_of_parquet_is_text(spec, written):
    with pytest.raises(ConfigError, match="name a column of JSON text 'text'"):
        written(pa.table({"json": ['{"x": 1}']}), spec, "h.parquet")


def test_personal_data_is_masked_as_the_gateway_masks_it(written, texts):
    spec = msgspec.structs.replace(texts, masking=Masking(entities=("EMAIL",)))
    first, again = written([{"text": "ask ada@example.com"}, {"text": "ask grace@example.com"}], spec)
    assert payloads([first, again]) == [b"ask [EMAIL]"] * 2
    assert again.input.id == f"{first.input.id}-2", "ids are made of what is kept"
    with pytest.raises(ConfigError, match=r"line 2 of .*undecodable"):
        written([{"text": "ask"}, {"payload_base64": base64.b64encode(b"\xff").decode()}], spec)


@pytest.fixture
def tags(texts):
    return msgspec.structs.replace(texts, task="tagging")


def test_spans_are_a_truth_in_two_forms_and_none_is_one_too(written, tags):
    lines = [
        {"text": "Ada of Acmé", "spans": [[7, 11, "ORG"], {"start": 0, "end": 3, "label": "PER"}]},
        {"text": "nobody", "spans": []},
        {"text": "not known"},
        {"input": {"text": "Ada"}, "truth": {"spans": [[0, 3, "PER"]], "source": "desk"}},
    ]
    found = written(lines, tags)
    assert [e.truth and e.truth.said for e in found] == [
        '[[0, 3, "PER"], [7, 11, "ORG"]]', "[]", None, '[[0, 3, "PER"]]',
    ]  # fmt: skip
    assert found[3].truth.source == "desk"


def test_spans_of_a_text_that_is_masked_stay_where_they_are(written, tags):
    spec = msgspec.structs.replace(tags, masking=Masking(entities=("EMAIL",)))
    (one,) = written([{"text": "ada@example.com wrote to Ada", "spans": [[25, 28, "PER"]]}], spec)
    assert one.input.payload == b"[EMAIL________] wrote to Ada"
    assert one.truth.said == '[[25, 28, "PER"]]'


def test_spans_come_from_parquet(written, tags):
    column = pa.array([[{"start": 0, "end": 3, "label": "PER"}], [], None])
    found = written(pa.table({"text": ["Ada", "x", "y"], "spans": column}), tags, "h.parquet")
    assert [e.truth and e.truth.said for e in found] == ['[[0, 3, "PER"]]', "[]", None]


@pytest.mark.parametrize(
    ("spans", "why"),
    [
        ([[0, 4, "PER"]], "ends behind the text, which has 3 characters"),
        ([[0, 2, "PER"], [1, 3, "LOC"]], "overlap"),
        ("PER", "are no spans"),
        ([[0, 3]], r"write \[\{start: 0"),
    ],
)
def test_spans_that_are_none_are_refused_with_their_line(written, tags, spans, why):
    with pytest.raises(ConfigError, match=rf"line 1 of .*{why}"):
        written([{"text": "Adé", "spans": spans}], tags)


@pytest.mark.parametrize("table", [False, True])
def test_a_set_of_classes_is_a_truth_too_and_may_be_empty(texts, written, table):
    rows = [{"text": "one", "labels": ["b", "a"], "id": "i1"}, {"text": "two", "labels": [], "id": "i2"}]
    entries = written(pa.Table.from_pylist(rows), texts, "h.parquet") if table else written(rows, texts)
    assert [e.truth.said for e in entries] == ['["a", "b"]', "[]"]
    assert [e.truth.source for e in entries] == ["history"] * 2
    (nested,) = written([{"input": {"text": "one"}, "truth": {"labels": ["a"]}}], texts)
    assert nested.truth.said == '["a"]'
    with pytest.raises(ConfigError, match="one of a label, a value, labels"):
        written([{"text": "one", "labels": ["a"], "label": "a"}], texts)
    with pytest.raises(ConfigError, match="leave out label, value, labels"):
        written([{"text": "one", "labels": ["a"], "synthetic": "noise;seed=0"}], texts)
