import json
import struct

import pytest
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.record.util import calc_crc32c

from components.contracts.errors import ConfigError
from components.stream.contract import TopicPartition
from infra.broker_log import BATCH_BYTES, CHECKED_AT, COMMITTED, CRC_AT, LOST_ROOM, BrokerLog, batches

HERE = TopicPartition("t", 0)


def batch(base, *values, producer=7, transactional=False, compression=0):
    """A batch as a producer sends it; the values are texts."""
    builder = MemoryRecordsBuilder(2, compression, 2**30, 0, transactional, producer, 0, 0)
    for index, value in enumerate(values):
        builder.append(1_000 + base + index, b"k", value.encode(), [("h", b"1")])
    return placed(builder, base)


def placed(builder, base):
    builder.close()
    raw = bytearray(builder.buffer())
    struct.pack_into(">q", raw, 0, base)
    return bytes(raw)


def mark(base, *, committed, producer=7):
    builder = MemoryRecordsBuilder(2, 0, 2**30, 0, True, producer, 0, 0)
    builder.append(0, COMMITTED if committed else b"\x00\x00\x00\x00", bytes(6), [])
    raw = bytearray(placed(builder, base))
    struct.pack_into(">h", raw, CHECKED_AT, 0x30)
    struct.pack_into(">I", raw, CRC_AT, calc_crc32c(memoryview(raw)[CHECKED_AT:]))
    return bytes(raw)


def read(copy, place=HERE):
    """What a reader of committed records gets, and where the log ends."""
    found, end = [], 0
    for one in copy.batches(place):
        assert one.base == end, "an offset is missing"
        assert one.producer == -1 and not one.transactional
        if not one.control:
            found += [(r.offset, r.timestamp, r.key, r.value.decode(), r.headers) for r in DefaultRecordBatch(one.raw)]
        end = one.end
    return found, end


def records(*pairs):
    return [(offset, 1_000 + offset, b"k", value, [("h", b"1")]) for offset, value in pairs]


@pytest.fixture
def copy(tmp_path):
    copy = BrokerLog(tmp_path / "broker")
    copy.know({"t": 1})
    return copy


def closed(copy, *, complete=True):
    copy.close(complete=complete)
    again = BrokerLog(copy.folder)
    again.compact()
    return again


def test_every_record_keeps_its_offset_its_time_and_its_headers(copy):
    copy.append(HERE, batch(0, "a", "b") + batch(2, "c", compression=1) + batch(3, "d", producer=9))
    again = closed(copy)
    assert read(again) == (records((0, "a"), (1, "b"), (2, "c"), (3, "d")), 4)
    assert len(list(again.batches(HERE))) == 1 and again.producer == 9


def test_only_committed_transactions_are_kept_and_no_offset_is_left_out(copy):
    copy.append(
        HERE,
        batch(0, "aborted", "too", transactional=True)
        + batch(2, "plain", producer=8)
        + mark(3, committed=False)
        + batch(4, "committed", transactional=True)
        + batch(5, "open", producer=9, transactional=True)
        + mark(6, committed=True)
        + batch(7, "never ended", transactional=True),
    )
    assert read(closed(copy)) == (records((2, "plain"), (4, "committed")), 8)


def test_what_comes_after_a_restart_goes_behind_it_and_another_restart_changes_nothing(copy):
    copy.append(HERE, batch(0, "a") + batch(1, "b", transactional=True) + mark(2, committed=True))
    again = closed(copy)
    assert again.end(HERE) == 3
    again.append(HERE, batch(3, "c"))
    third = closed(again)
    assert read(third) == (records((0, "a"), (1, "b"), (3, "c")), 4)
    before = third.path(HERE).read_bytes()
    assert closed(third).path(HERE).read_bytes() == before


def test_many_small_batches_become_few_large_ones(copy):
    text = "x" * 1000
    for offset in range(1500):
        copy.append(HERE, batch(offset, text))
    again = closed(copy)
    sizes = [len(b.raw) for b in again.batches(HERE)]
    assert len(read(again)[0]) == 1500 and len(sizes) == 3 and max(sizes) < 1.01 * BATCH_BYTES


def test_what_a_fetch_gives_twice_is_kept_once(copy):
    copy.append(HERE, batch(0, "a", "b"))
    assert copy.append(HERE, batch(0, "a", "b") + batch(2, "c")) == 1
    assert read(closed(copy))[0] == records((0, "a"), (1, "b"), (2, "c"))


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_end_is_cut_off_and_room_is_left_for_what_was_lost(copy, cut):
    copy.append(HERE, batch(0, "a") + batch(1, "torn"))
    copy.close()
    whole = copy.path(HERE).read_bytes()
    copy.path(HERE).write_bytes(whole[:-cut])
    again = BrokerLog(copy.folder)
    again.compact()
    assert read(again) == (records((0, "a")), 1 + LOST_ROOM)


def test_a_batch_that_the_disk_changed_ends_what_is_read(copy):
    copy.append(HERE, batch(0, "a") + batch(1, "b"))
    copy.close(complete=True)
    data = bytearray(copy.path(HERE).read_bytes())
    data[-3] ^= 1
    assert [b.base for b in batches(bytes(data))] == [0]


def test_a_stop_that_was_not_clean_leaves_offsets_out_once(copy):
    copy.append(HERE, batch(0, "a"))
    again = closed(copy, complete=False)
    assert read(again) == (records((0, "a")), 1 + LOST_ROOM)
    assert read(closed(again)) == (records((0, "a")), 1 + LOST_ROOM)


def test_topics_and_positions_come_back_and_a_lost_topic_is_kept(copy):
    copy.know({})
    copy.know({"t": 1, "u-v": 2})
    copy.sync({"g": {HERE: 3, TopicPartition("u-v", 1): 4}})
    again = closed(copy)
    assert again.topics == {"t": 1, "u-v": 2}
    assert again.groups == {"g": {HERE: 3, TopicPartition("u-v", 1): 4}}
    assert list(again.partitions()) == [HERE, TopicPartition("u-v", 0), TopicPartition("u-v", 1)]


def test_a_file_that_is_no_copy_is_named(copy):
    (copy.folder / "groups.json").write_text("{")
    with pytest.raises(ConfigError, match=r"groups\.json.*move the folder away"):
        BrokerLog(copy.folder)
    (copy.folder / "groups.json").write_text(json.dumps({}))
    copy.remove()
    assert not copy.folder.exists()


def test_what_is_erased_is_in_no_record_any_more_and_all_others_keep_their_offsets(copy):
    copy.append(HERE, batch(0, "a", "secret", "b") + batch(3, "c", compression=1))
    again = closed(copy)
    again.append(HERE, batch(4, "d", "secret", transactional=True) + mark(6, committed=True) + batch(7, "e"))
    again.close(complete=True)
    last = BrokerLog(again.folder)
    last.compact({HERE: [1, 5], TopicPartition("t", 9): [0]})
    assert read(last) == (records((0, "a"), (2, "b"), (3, "c"), (4, "d"), (7, "e")), 8)
    assert b"secret" not in last.path(HERE).read_bytes()
    assert read(closed(last)) == (records((0, "a"), (2, "b"), (3, "c"), (4, "d"), (7, "e")), 8)


def test_what_lies_before_an_erased_record_and_was_rebuilt_goes_through_as_it_is(copy):
    copy.append(HERE, batch(0, "a", "b"))
    again = closed(copy)
    before = again.path(HERE).read_bytes()
    again.append(HERE, batch(2, "c", "d"))
    again.close(complete=True)
    last = BrokerLog(again.folder)
    last.compact({HERE: [3]})
    assert read(last) == (records((0, "a"), (1, "b"), (2, "c")), 4)
    assert last.path(HERE).read_bytes().startswith(before)
