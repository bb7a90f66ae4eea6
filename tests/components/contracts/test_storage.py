import os
import threading
from pathlib import Path

import pytest

from components.contracts.errors import ArtifactError
from components.contracts.storage import PART, digest_of, get_bytes, local_path, opened, put_bytes, put_parts, remove


def uri(tmp_path, name="folder/model.onnx"):
    return f"file://{tmp_path}/{name}"


def test_what_is_put_is_got(tmp_path):
    put_bytes(uri(tmp_path), b"student")
    assert get_bytes(uri(tmp_path)) == b"student"
    assert get_bytes(uri(tmp_path), digest_of(b"student")) == b"student"
    put_bytes(uri(tmp_path), b"another")
    assert get_bytes(uri(tmp_path)) == b"another"


def test_other_filesystems_work_by_their_uri():
    put_bytes("memory://models/a/model.onnx", b"student")
    assert get_bytes("memory://models/a/model.onnx", digest_of(b"student")) == b"student"


def test_another_digest_is_refused(tmp_path):
    put_bytes(uri(tmp_path), b"student")
    with pytest.raises(ArtifactError, match="changed after it was registered") as caught:
        get_bytes(uri(tmp_path), digest_of(b"other"))
    assert caught.value.uri == uri(tmp_path)


def test_a_missing_artifact_says_so(tmp_path):
    with pytest.raises(ArtifactError, match="does not exist"):
        get_bytes(uri(tmp_path))


def test_the_digest_is_sha256():
    assert digest_of(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_write_that_fails_leaves_the_old_content_and_no_rest(tmp_path, monkeypatch):
    put_bytes(uri(tmp_path), b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        put_bytes(uri(tmp_path), b"new")
    assert get_bytes(uri(tmp_path)) == b"old"
    assert os.listdir(tmp_path / "folder") == ["model.onnx"]


def test_readers_never_see_a_part_while_threads_write(tmp_path):
    contents = [bytes([65 + i]) * 400_000 for i in range(3)]
    put_bytes(uri(tmp_path), contents[0])
    stop, torn = threading.Event(), []

    def read():
        while not stop.is_set():
            data = get_bytes(uri(tmp_path))
            if data not in contents:
                torn.append(len(data))

    def write(content):
        for _ in range(15):
            put_bytes(uri(tmp_path), content)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(c,)) for c in contents]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert torn == []
    assert os.listdir(tmp_path / "folder") == ["model.onnx"]


def test_a_local_path_is_only_of_a_file_uri():
    assert local_path("file:///a/b") == Path("/a/b")
    with pytest.raises(ArtifactError, match="not a local file"):
        local_path("s3://bucket/b")


def test_a_file_or_a_folder_is_removed_and_nothing_is_no_error(tmp_path):
    for name in ("a/one", "a/b/two", "c"):
        put_bytes(uri(tmp_path, name), b"x")
    remove(uri(tmp_path, "c"))
    remove(uri(tmp_path, "a"))
    remove(uri(tmp_path, "a"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("where", ["file", "memory"])
def test_content_is_written_and_read_a_part_at_a_time(tmp_path, where, large):
    place = uri(tmp_path) if where == "file" else f"memory://parts/{large}/model.onnx"
    parts = [b"a" * (PART if large else 5), b"b", b"", b"c" * 3]
    put_parts(place, iter(parts))
    whole = b"".join(parts)
    with opened(place, digest_of(whole)) as file:
        assert file.read(2) == b"aa" and file.read() == whole[2:]

    def breaking():
        yield b"new"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        put_parts(place, breaking())
    assert get_bytes(place) == whole
    with pytest.raises(ArtifactError, match="changed after it was registered"), opened(place, digest_of(b"other")):
        pytest.fail("opened")
    with pytest.raises(ArtifactError, match="does not exist"), opened(f"{place}.none"):
        pytest.fail("opened")
