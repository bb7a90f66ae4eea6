import contextlib

import msgspec
import pytest

from components.contracts.errors import FinderError
from components.contracts.records import Input, content_hash, encode
from components.contracts.spec import Consent, Factory, Masking, Payload
from components.contracts.storage import digest_of, get_bytes
from components.control.forgettings import Forgotten, hashed
from components.control.tables import ForgettingRow
from components.distill.unlabelled import NONE, unlabelled
from components.snapshot.erase import frozen_beside, unlabelled_without
from components.snapshot.table import split_of
from components.stream.memory import MemoryBroker

NOW, NOBODY = 1_800_000_000.0, Forgotten(())


@pytest.fixture
def broker():
    return MemoryBroker()


@pytest.fixture
def spec(letter_spec):
    student = msgspec.structs.replace(letter_spec.student, unlabelled_rows=50, holdout_share=0.2, calibration_share=0.0)
    return msgspec.structs.replace(letter_spec, student=student, consent=Consent(allowed=("yes",)))


def put(broker, spec, payloads, consent="yes"):
    broker.ensure_topics([spec.topic("inputs")], 1)
    with contextlib.closing(broker.producer()) as producer:
        for i, payload in enumerate(payloads):
            made = Input(
                workload=spec.name,
                id=f"{payload[:20].hex()}-{i}",
                key="k",
                time=NOW + i,
                payload=payload,
                consent=consent,
            )
            producer.send(spec.topic("inputs"), "k", encode(made))
        producer.flush()


def texts(n, start=0):
    return [f"a text of its own, number {i}".encode() for i in range(start, start + n)]


@pytest.fixture
def window(spec, letters, freeze_rows, tmp_path):
    return freeze_rows(spec, letters("ab", 40), tmp_path.as_uri(), 1)


def test_the_newest_inputs_that_may_be_learnt_from_are_frozen(broker, spec, window, tmp_path):
    put(broker, spec, texts(40))
    put(broker, spec, [b"", b"refused by its terms"], consent="no")
    found = unlabelled(spec, [window], broker, tmp_path.as_uri(), NOBODY)
    allowed = [t for t in texts(40) if split_of(content_hash(t), 0.2) == "train"]
    assert found.payloads == allowed[::-1] and 20 < len(allowed) < 40
    put(broker, spec, texts(40, start=100))
    assert unlabelled(spec, [window], broker, tmp_path.as_uri(), NOBODY) == found


def test_an_entity_that_was_forgotten_is_learnt_from_by_what_came_after_alone(broker, spec, window, tmp_path):
    put(broker, spec, texts(40))
    order = ForgettingRow(secret="00" * 32, subject=hashed("00" * 32, "k"), at=NOW + 30)
    found = unlabelled(spec, [window], broker, tmp_path.as_uri(), Forgotten([order])).payloads
    allowed = [t for t in texts(40)[31:] if split_of(content_hash(t), 0.2) == "train"]
    assert found == allowed[::-1] and allowed


def test_an_entry_of_a_history_has_no_time_by_which_it_came_after_an_order(broker, spec, window, tmp_path):
    lines = [msgspec.json.encode({"text": t.decode(), "key": "k", "consent": "yes"}) for t in texts(20)]
    lines += [msgspec.json.encode({"text": t.decode(), "key": "another", "consent": "yes"}) for t in texts(20, 50)]
    (tmp_path / "old.jsonl").write_bytes(b"\n".join(lines))
    student = msgspec.structs.replace(spec.student, unlabelled=("old.jsonl",))
    spec = msgspec.structs.replace(spec, student=student, source=str(tmp_path / "spec.yaml"))
    order = ForgettingRow(secret="00" * 32, subject=hashed("00" * 32, "k"), at=1_000_000_000.0)
    found = unlabelled(spec, [window], broker, tmp_path.as_uri(), Forgotten([order])).payloads
    assert set(found) == {t for t in texts(20, 50) if split_of(content_hash(t), 0.2) == "train"}


def test_two_that_freeze_at_once_leave_two_files_and_later_ones_agree(broker, spec, window, tmp_path, monkeypatch):
    put(broker, spec, texts(40))
    first = unlabelled(spec, [window], broker, tmp_path.as_uri(), NOBODY)
    put(broker, spec, texts(10, start=100))
    with monkeypatch.context() as blind:
        blind.setattr("components.distill.unlabelled.files", lambda _: [])
        second = unlabelled(spec, [window], broker, tmp_path.as_uri(), NOBODY)
    there = {digest_of(get_bytes(uri)) for uri in frozen_beside(spec, tmp_path.as_uri(), window)}
    assert there == {first.digest, second.digest} and first != second
    assert len({unlabelled(spec, [window], broker, tmp_path.as_uri(), NOBODY).digest for _ in range(3)}) == 1


def test_what_a_window_holds_out_and_what_is_like_it_are_left_out(broker, spec, letters, freeze_rows, tmp_path):
    long = [
        b"a held out text about letters and about how they follow each other in it " * 3 + bytes([97 + i])
        for i in range(9)
    ]
    rows = [(p, soft, truth) for p, (_, soft, truth) in zip(long, letters("a", 9), strict=True)]
    window = freeze_rows(spec, rows, tmp_path.as_uri(), 1, chosen=lambda _: {"audit": True})
    put(broker, spec, [*long, long[0] + b"!", *texts(10)])
    found = unlabelled(spec, [window], broker, tmp_path.as_uri(), NOBODY).payloads
    assert set(found) <= set(texts(10)) and found


def test_each_content_once_and_no_more_than_the_spec_says(broker, spec, window, tmp_path):
    put(broker, spec, [b"the same"] * 30 + texts(200))
    found = unlabelled(spec, [window], broker, tmp_path.as_uri(), NOBODY).payloads
    allowed = [t for t in texts(200) if split_of(content_hash(t), 0.2) == "train"]
    assert found == allowed[:-51:-1]


@pytest.mark.parametrize("rows", range(1, 12))
def test_what_is_held_out_takes_no_place_among_the_rows_that_the_spec_asks_for(broker, spec, window, tmp_path, rows):
    lines = [msgspec.json.encode({"text": text.decode(), "consent": "yes"}) for text in texts(60)]
    (tmp_path / "old.jsonl").write_bytes(b"\n".join(lines))
    student = msgspec.structs.replace(spec.student, unlabelled=("old.jsonl",), unlabelled_rows=rows)
    spec = msgspec.structs.replace(spec, student=student, source=str(tmp_path / "spec.yaml"))
    allowed = [t for t in texts(60) if split_of(content_hash(t), 0.2) == "train"]
    assert unlabelled(spec, [window], broker, tmp_path.as_uri(), NOBODY).payloads == allowed[:rows]


@pytest.mark.parametrize("read", [1, 7, 1_000])
def test_older_traffic_comes_before_any_history(broker, spec, window, tmp_path, monkeypatch, read):
    monkeypatch.setattr("components.distill.unlabelled.LEAST_READ", read)
    (tmp_path / "old.jsonl").write_bytes(b'{"text": "an old text", "consent": "yes"}')
    student = msgspec.structs.replace(spec.student, unlabelled=("old.jsonl",), unlabelled_rows=5)
    spec = msgspec.structs.replace(spec, student=student, source=str(tmp_path / "spec.yaml"))
    put(broker, spec, texts(40))
    put(broker, spec, [f"refused {i}".encode() for i in range(9)], consent="no")
    put(broker, spec, [texts(40)[-1]] * 9)
    allowed = [t for t in texts(40) if split_of(content_hash(t), 0.2) == "train"]
    assert unlabelled(spec, [window], broker, tmp_path.as_uri(), NOBODY).payloads == allowed[:-6:-1]


@pytest.mark.parametrize("rows", [6, 12])
def test_traffic_that_the_broker_dropped_is_looked_for_once(broker, spec, window, tmp_path, monkeypatch, rows):
    monkeypatch.setattr("components.distill.unlabelled.LEAST_READ", 1)
    spec = msgspec.structs.replace(spec, student=msgspec.structs.replace(spec.student, unlabelled_rows=rows))
    put(broker, spec, texts(40))
    lost = []

    def consumer(topics, start, **told):
        """Retention has passed the first 30 records."""
        gone = start != "latest" and [at for at in start.values() if at < 30]
        made = MemoryBroker.consumer(broker, topics, start={p: 30 for p in start} if gone else start, **told)
        if gone:
            lost.extend(gone)
            made.resets = 1
        return made

    monkeypatch.setattr(broker, "consumer", consumer)
    kept = [t for t in texts(40)[30:] if split_of(content_hash(t), 0.2) == "train"]
    assert unlabelled(spec, [window], broker, tmp_path.as_uri(), NOBODY).payloads == kept[::-1][:rows]
    assert lost == [28]


def test_a_history_beside_the_spec_is_taken_where_there_is_too_little_traffic(broker, spec, window, tmp_path):
    lines = [
        msgspec.json.encode({"id": f"h{i}", "text": f"an old text, number {i}", "consent": "yes"}) for i in range(20)
    ]
    (tmp_path / "old.jsonl").write_bytes(b"\n".join(lines))
    student = msgspec.structs.replace(spec.student, unlabelled=("old.jsonl",))
    spec = msgspec.structs.replace(spec, student=student, source=str(tmp_path / "spec.yaml"))
    put(broker, spec, texts(3))
    found = unlabelled(spec, [window], broker, tmp_path.as_uri(), NOBODY).payloads
    assert any(p.startswith(b"an old text") for p in found) and found[0] in texts(3)


def test_another_spec_of_the_same_window_gets_what_it_asks_for(broker, spec, window, tmp_path):
    put(broker, spec, texts(40))
    first = unlabelled(spec, [window], broker, tmp_path.as_uri(), NOBODY)
    (tmp_path / "old.jsonl").write_bytes(b'{"text": "an old text", "consent": "yes"}')
    student = msgspec.structs.replace(spec.student, unlabelled=("old.jsonl",))
    more = msgspec.structs.replace(spec, student=student, source=str(tmp_path / "spec.yaml"))
    found = unlabelled(more, [window], broker, tmp_path.as_uri(), NOBODY)
    assert found.payloads == [*first.payloads, b"an old text"] and found.digest != first.digest
    assert unlabelled(spec, [window], broker, tmp_path.as_uri(), NOBODY) == first
    assert len(frozen_beside(spec, tmp_path.as_uri(), window)) == 2
    assert unlabelled_without(spec, tmp_path.as_uri(), [window], {content_hash(first.payloads[0])}) == [1]
    rest = [unlabelled(s, [window], broker, tmp_path.as_uri(), NOBODY).payloads for s in (spec, more)]
    assert rest == [first.payloads[1:], [*first.payloads[1:], b"an old text"]]


def test_no_traffic_is_none(broker, spec, window, tmp_path):
    assert unlabelled(spec, [window], broker, tmp_path.as_uri(), NOBODY) is NONE


def test_traffic_that_a_producer_wrote_unmasked_is_learnt_from_masked(broker, spec, window, tmp_path):
    masking = msgspec.structs.replace(spec, payload=Payload(decoder="text"), masking=Masking(entities=("EMAIL",)))
    put(broker, spec, [f"number {i} is ada{i}@example.com's".encode() for i in range(30)])
    found = unlabelled(masking, [window], broker, tmp_path.as_uri(), NOBODY).payloads
    assert found and all(b"[EMAIL]" in p and b"example" not in p for p in found)


FINDER = """
import pathlib


def find(text):
    if pathlib.Path(__file__).with_name("away").exists() or "poison" in text:
        raise OSError(text)
    return []


def made():
    return find
"""


def test_an_input_that_the_finder_alone_fails_on_is_left_out(broker, spec, window, tmp_path):
    (tmp_path / "finder.py").write_text(FINDER)
    masking = msgspec.structs.replace(
        spec, payload=Payload(decoder="text"), source=str(tmp_path / "spec.yaml"),
        masking=Masking(entities=("NAME",), finder=Factory(factory="finder.py:made")),
    )  # fmt: skip
    put(broker, spec, [*texts(20), *(f"poison {i}".encode() for i in range(8))])
    (tmp_path / "away").touch()
    with pytest.raises(FinderError):
        unlabelled(masking, [window], broker, tmp_path.as_uri(), NOBODY)
    (tmp_path / "away").unlink()
    found = unlabelled(masking, [window], broker, tmp_path.as_uri(), NOBODY).payloads
    assert found and set(found) <= set(texts(20))
