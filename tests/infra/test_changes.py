import json
import threading
import time

import msgspec
import pytest

from components.contracts.errors import ConfigError, NotFoundError, UnavailableError
from components.contracts.settings import Settings
from components.contracts.spec import Spec, load_spec, resolve
from components.control.store import ControlStore
from components.ledger.ledger import entries, verify
from infra import changes
from infra.changes import FIXED, READERS, apply, compare
from infra.specs import in_force, place_of, put_in_force
from pipelines.runs import begin

TEXT = """
name: w
teacher: {factory: "user.py:Teacher"}
features: {factory: "parts/features.py:Features"}
payload: {decoder: "user.py:decode"}
limits: {min_rows: 50}
"""


@pytest.fixture
def settings(tmp_path):
    settings = Settings(home=tmp_path / "home", actor="ana")
    settings.home.mkdir()
    store = ControlStore(settings.control_url)
    store.migrate()
    store.close()
    return settings


@pytest.fixture
def written(tmp_path):
    """Writes the user's spec file, and gives its path."""
    folder = tmp_path / "mine"
    (folder / "parts").mkdir(parents=True)
    (folder / "user.py").write_text("class Teacher: pass\ndef decode(data): return data\n")
    (folder / "parts" / "features.py").write_text("class Features: pass\n")

    def write(extra="", text=TEXT):
        (folder / "w.yaml").write_text(text + extra)
        return folder / "w.yaml"

    return write


class Supervisor:
    """Does what the supervisor does with a request: notes it, and says that it was done."""

    def __init__(self, settings):
        self.settings, self.asked, self._stop = settings, [], threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._stop.wait(0.01):
            if asked := changes.requested(self.settings):
                self.asked.append((*asked, in_force(self.settings, asked[0]).digest))
                changes.done(self.settings)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def test_every_section_of_a_spec_can_be_taken_up_or_has_a_reason_why_not():
    sections = set(Spec.__struct_fields__) - {"source", "name"}
    assert sections == READERS.keys() | FIXED.keys() and not READERS.keys() & FIXED.keys()


def test_the_spec_in_force_is_a_copy_that_finds_its_files_and_reads_alike(settings, written):
    path = written()
    kept = put_in_force(settings, path)
    assert kept.source == str(place_of(settings, "w")) and kept.digest == load_spec(path).digest
    assert resolve(kept.features.factory, kept.source).__name__ == "Features"
    assert resolve(kept.teacher.factory, kept.source) is resolve(kept.teacher.factory, str(path))
    path.write_text("name: [half an ed")
    assert in_force(settings, "w") == kept
    with pytest.raises(ConfigError):
        put_in_force(settings, path)
    assert in_force(settings, "w") == kept == put_in_force(settings, kept.source)
    with pytest.raises(NotFoundError, match="no platform of"):
        in_force(settings, "other")


@pytest.mark.parametrize(
    ("extra", "roles"),
    [
        ("trigger: {min_labels: 77}\n", ["trigger"]),
        ("rollout: {pairs: 0.5}\nmonitor: {window: 123}\n", ["controller", "monitor"]),
        ("label: {batch: 3}\n", ["labeler"]),
        ("description: other\nseed: 5\n", []),
    ],
)
def test_what_is_taken_up_restarts_the_workers_that_read_it_and_no_others(settings, written, extra, roles):
    old = put_in_force(settings, written())
    with Supervisor(settings) as supervisor:
        done = apply(settings, written(extra), supervisor=1)
    new = in_force(settings, "w")
    assert new.digest != old.digest and list(done.roles) == roles
    assert supervisor.asked == ([("w", tuple(roles), new.digest)] if roles else [])
    store = ControlStore(settings.control_url)
    (entry,) = entries(store, "w")
    assert (entry.actor, entry.action) == ("ana", "change spec") and verify(store) == 1
    assert entry.detail == {
        "sections": sorted(done.taken), "restarted": roles, "from": old.digest, "to": new.digest,
    }  # fmt: skip
    store.close()


def test_limits_are_in_force_at_once_and_restart_nobody(settings, written):
    put_in_force(settings, written())
    done = apply(settings, written(text=TEXT.replace("min_rows: 50", "min_rows: 60")), supervisor=1)
    assert done.taken == {"limits": ()} and not (settings.home / changes.REQUEST).exists()
    assert in_force(settings, "w").limits.min_rows == 60
    again = apply(settings, written(text=TEXT.replace("min_rows: 50", "min_rows: 60")), supervisor=1)
    assert not again.taken
    store = ControlStore(settings.control_url)
    assert len(entries(store, "w")) == 1
    store.close()


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ("task: regression\n", "task"),
        ("partitions: 4\n", "partitions"),
        ("teacher_space: other@1\n", "teacher_space"),
        ("serve: {replicas: 4}\n", "serve"),
        ("label: {workers: 3}\n", "label"),
        ("entity: sender\n", "entity"),
    ],
)
def test_what_cannot_change_is_refused_with_reason_and_remedy_and_nothing_else_is_taken_up(
    settings, written, change, names
):
    old = put_in_force(settings, written())
    with pytest.raises(ConfigError, match=rf"{names}.*cannot change while the platform runs.*: .*: ") as refused:
        apply(settings, written(change + "seed: 9\n"), supervisor=1)
    assert "another name" in str(refused.value) or "'cohobate down'" in str(refused.value)
    assert in_force(settings, "w") == old
    store = ControlStore(settings.control_url)
    assert not entries(store, "w")
    store.close()


def test_several_refused_sections_are_all_named(written):
    old, new = load_spec(written()), load_spec(written("task: regression\npartitions: 2\n"))
    assert set(compare(old, new).refused) == {"task", "partitions"}


def test_a_trigger_is_not_restarted_under_an_update(settings, written):
    put_in_force(settings, written())
    store = ControlStore(settings.control_url)
    begin(store, "w", "continual", "because", "ana")
    with pytest.raises(UnavailableError, match="its update is under way"):
        apply(settings, written("trigger: {min_labels: 77}\n"), supervisor=1)
    assert in_force(settings, "w").trigger == load_spec(written()).trigger
    with Supervisor(settings):
        assert apply(settings, written("label: {batch: 3}\n"), supervisor=1).roles == ("labeler",)
    store.close()


def test_a_supervisor_that_does_not_do_it_is_named(settings, written, monkeypatch):
    monkeypatch.setattr(changes, "RESTART_SECONDS", 0.2)
    put_in_force(settings, written())
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="labeler of w still work with the spec before"):
        apply(settings, written("label: {batch: 3}\n"), supervisor=1)
    assert time.monotonic() - started < 60
    assert json.loads((settings.home / changes.REQUEST).read_text()) == {"workload": "w", "roles": ["labeler"]}
    assert msgspec.json.decode(msgspec.json.encode(compare(load_spec(written()), load_spec(written()))))
