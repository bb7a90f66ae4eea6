"""The power is cut at every file operation of an update, and the device is switched on again.

Of what was not made durable either all is there, or nothing: names in a folder that was not synchronised go back to
what they were, and files whose contents were not are cut in half. A device must come up with one of the two decisions,
whole, and get to the new one when it is connected again.
"""

import shutil

import pytest

from serving.edge.disk import Disk

X = b'{"x": 3}'


class PowerCut(BaseException):
    """Nothing of the program runs after it."""


class Cut(Disk):
    """A disk whose power goes before the operation ``at``; ``keeps`` what was not made durable, or loses it."""

    def __init__(self, at, keeps, spare):
        self.at, self.keeps, self.spare = at, keeps, spare
        self.done = []
        self._contents, self._names = set(), []

    def _operation(self, name):
        if len(self.done) == self.at:
            self.lose()
            raise PowerCut
        self.done.append(name)

    def lose(self):
        if self.keeps:
            return
        for path in self._contents:
            if path.is_file():
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        for new, old, before in reversed(self._names):
            if old is None:
                new.unlink(missing_ok=True)
            elif new.exists():
                new.rename(old)
            if before is not None:
                shutil.copy(before, new)

    def write(self, path, data):
        self._operation("write")
        if not path.exists():
            self._names.append((path, None, None))
        super().write(path, data)
        self._contents.add(path)

    def sync(self, path):
        self._operation("sync")
        super().sync(path)
        self._contents.discard(path)

    def sync_folder(self, path):
        self._operation("sync_folder")
        Disk.sync(self, path)
        self._names = [one for one in self._names if one[0].parent != path]

    def rename(self, old, new):
        self._operation("rename")
        before = None
        if new.is_file():
            before = self.spare / f"{len(self.done)}"
            shutil.copy(new, before)
        super().rename(old, new)

        def there(path):
            return new / path.relative_to(old) if path.is_relative_to(old) else path

        # What is not durable of a file or folder is so under its new name.
        self._contents = {there(path) for path in self._contents}
        self._names = [(there(path), *rest) for path, *rest in self._names if path != old]
        self._names.append((new, old, before))

    def make_folder(self, path):
        self._operation("make_folder")
        super().make_folder(path)

    def remove(self, path):
        """A folder is removed file by file: the power may go in the middle of it."""
        self._operation("remove")
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else []
        for file in files[: len(files) // 2]:
            file.unlink()
        self._operation("remove the rest")
        super().remove(path)


@pytest.fixture
def kept(platform, link, device, tmp_path):
    """The disk of a device with version 1, the platform having gone on to version 3."""
    platform.version("1")
    platform.version("3")
    platform.decide("1")
    edge = device()
    edge.sync(link)
    edge.predict(X, consent="t", id="kept")
    device.off()
    shutil.copytree(tmp_path / "device", tmp_path / "kept")
    platform.decide("3")
    return tmp_path / "kept"


def serves(edge):
    """The version that answers, which is the one that was confirmed, and answers as it does."""
    answer = edge.predict(X, consent="t")
    assert answer["label"] == "pos" and answer["model_version"] == edge.status()["champion"]
    assert edge.status()["confirmed"] and edge.status()["problems"] == []
    return answer["model_version"]


@pytest.mark.parametrize("keeps", [True, False])
def test_a_power_cut_at_any_operation_leaves_one_version_or_the_other(
    platform, link, device, kept, tmp_path, keeps, clock, device_clock
):
    device_clock.now = clock.now
    at, found, whole = 0, [], False
    while not whole:
        shutil.rmtree(tmp_path / "device")
        shutil.copytree(kept, tmp_path / "device")
        spare = tmp_path / f"spare{at}"
        spare.mkdir()
        disk = Cut(at, keeps, spare)
        try:
            assert device(disk=disk).sync(link).problem == ""
            device.off()
            disk.lose()  # the power is cut once all is done
            whole = True
        except PowerCut:
            pass
        edge = device()
        found.append(serves(edge))
        done = edge.sync(link)
        assert done.problem == "" and done.refused == 0 and serves(edge) == "3", disk.done
        assert not (tmp_path / "device" / "incoming").exists() or not any((tmp_path / "device" / "incoming").iterdir())
        named = {platform.refs[v].digest for v in ("1", "3")}
        assert {p.name for p in (tmp_path / "device" / "bundles").iterdir()} == named
        device.off()
        at += 1
    # The new version serves from one operation on, and at each before it the old one: there is no third state.
    turn = found.index("3")
    assert set(found[:turn]) == {"1"} and set(found[turn:]) == {"3"} and disk.done.count("write") >= 7
    assert disk.done[turn - 1] == ("rename" if keeps else "sync_folder")
