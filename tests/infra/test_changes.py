import json
import threading

import msgspec
import pytest

from components.contracts.errors import ConfigError, NotFoundError, UnavailableError
from components.contracts.settings import Settings
from components.contracts.spec import Spec, load_spec, resolve
from components.control.database import StaleRevisionError
from components.control.runs import begin
from components.control.tables import WindowRow
from components.ledger.ledger import entries, verify
from infra import changes
from infra.changes import FIXED, READERS, apply, compare
from infra.specs import in_force, prepared, record
from tests.clock import Time
from tests.stores import migrated

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
    return settings


@pytest.fixture
def store(settings):
    store = migrated(settings.control_url)
    yield store
    store.close()


def put(settings, store, source):
    """What the start of a platform with a spec file does."""
    spec = prepared(settings, source)
    record(store, settings, spec, "started")
    return spec


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
                now = in_force(self.settings, asked.workload).digest
                self.asked.append((asked.workload, asked.roles, asked.spec, now))
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


def test_the_spec_in_force_is_a_version_that_no_edit_reaches(settings, store, written):
    path = written()
    kept = put(settings, store, path)
    assert kept.source == f"workload:w@{kept.bundle}" and kept.digest == load_spec(path).digest
    assert resolve(kept.features.factory, kept.source).__name__ == "Features"
    path.write_text("name: [half an ed")
    assert in_force(settings, "w") == kept
    with pytest.raises(ConfigError):
        put(settings, store, path)
    assert in_force(settings, "w") == kept == put(settings, store, kept.source) == prepared(settings, "workload:w@1")
    with pytest.raises(NotFoundError, match="none of this name is registered"):
        in_force(settings, "other")
    with pytest.raises(NotFoundError, match="no platform of"):
        in_force(settings.model_copy(update={"home": settings.home / "none"}), "w")
    (entry,) = entries(store, "w")
    assert (entry.actor, entry.action, entry.detail["version"]) == ("ana", "apply workload", 1)


@pytest.mark.parametrize(
    ("extra", "roles"),
    [
        ("trigger: {min_labels: 77}\n", ["trigger"]),
        ("rollout: {pairs: 0.5}\nmonitor: {window: 123}\n", ["controller", "monitor"]),
        ("label: {batch: 3}\n", ["labeler"]),
        ("description: other\nseed: 5\n", []),
    ],
)
def test_what_is_taken_up_restarts_the_workers_that_read_it_and_no_others(settings, store, written, extra, roles):
    old = put(settings, store, written())
    with Supervisor(settings) as supervisor:
        done = apply(settings, written(extra), 1, "better")
    new = in_force(settings, "w")
    assert new.digest != old.digest and list(done.roles) == roles and done.version == 2
    assert supervisor.asked == ([("w", tuple(roles), new.source, new.digest)] if roles else [])
    entry = entries(store, "w")[-1]
    assert (entry.actor, entry.action) == ("ana", "apply workload") and verify(store) == 2
    assert entry.detail == {
        "sections": sorted(done.taken), "restarted": roles, "version": 2, "before": 1, "digest": new.bundle,
        "reason": "better",
    }  # fmt: skip


def test_limits_are_in_force_at_once_and_restart_nobody(settings, store, written):
    put(settings, store, written())
    done = apply(settings, written(text=TEXT.replace("min_rows: 50", "min_rows: 60")), supervisor=1)
    assert done.taken == {"limits": ()} and not (settings.home / changes.REQUEST).exists()
    assert in_force(settings, "w").limits.min_rows == 60
    again = apply(settings, written(text=TEXT.replace("min_rows: 50", "min_rows: 60")), supervisor=1)
    assert not again.taken and again.version == done.version == 2
    assert len(entries(store, "w")) == 2


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
    settings, store, written, change, names
):
    old = put(settings, store, written())
    with pytest.raises(ConfigError, match=rf"{names}.*cannot change while the platform runs.*: .*: ") as refused:
        apply(settings, written(change + "seed: 9\n"), supervisor=1)
    assert "another name" in str(refused.value) or "'cohobate down'" in str(refused.value)
    assert in_force(settings, "w") == old
    assert len(entries(store, "w")) == 1


def test_several_refused_sections_are_all_named(written):
    old, new = load_spec(written()), load_spec(written("task: regression\npartitions: 2\n"))
    assert set(compare(old, new).refused) == {"task", "partitions"}


def test_another_teacher_that_is_not_declared_is_refused_before_the_labelers_end(settings, store, written):
    code = "class {name}:\n    name, digest = '{name}', '1'\ndef decode(data): return data\n"
    path = written()
    (path.parent / "user.py").write_text(code.format(name="Teacher"))
    old = put(settings, store, path)
    window = {"digest": "1" * 64, "workload": "w", "number": 1, "uri": "u", "rows": 9, "created_at": 1.0}
    store.add_window(WindowRow(**window, manifest={"teacher": "Teacher@1#2"}))
    (path.parent / "newer.py").write_text(code.format(name="Newer"))
    text = TEXT.replace("user.py:Teacher", "newer.py:Newer")
    with Supervisor(settings) as supervisor:
        with pytest.raises(ConfigError, match=r"teacher_digest.*windows so far are of Teacher@1.*Newer@1.*on purpose"):
            apply(settings, written("seed: 9\n", text), supervisor=1)
        assert in_force(settings, "w") == old and not supervisor.asked
        assert apply(settings, written("teacher_digest: Newer@1\n", text), supervisor=1).roles == ("labeler",)
        with pytest.raises(ConfigError, match=r"windows so far are of Teacher@1.*Newer@1"):
            apply(settings, written("", text), supervisor=1)


def test_a_trigger_is_not_restarted_under_an_update(settings, store, written):
    put(settings, store, written())
    begin(store, "w", "continual", "because", "ana")
    with pytest.raises(UnavailableError, match="its update is under way"):
        apply(settings, written("trigger: {min_labels: 77}\n"), supervisor=1)
    assert in_force(settings, "w").trigger == load_spec(written()).trigger
    with Supervisor(settings):
        assert apply(settings, written("label: {batch: 3}\n"), supervisor=1).roles == ("labeler",)


def test_a_supervisor_that_does_not_do_it_is_named(settings, store, written, monkeypatch):
    time = Time()
    monkeypatch.setattr(changes, "time", time)
    put(settings, store, written())
    with pytest.raises(UnavailableError, match="labeler of w still work with the spec before"):
        apply(settings, written("label: {batch: 3}\n"), supervisor=1)
    assert changes.RESTART_SECONDS <= time.slept < changes.RESTART_SECONDS + 1.0
    asked = {"workload": "w", "roles": ["labeler"], "spec": in_force(settings, "w").source}
    assert json.loads((settings.home / changes.REQUEST).read_text()) == asked
    assert msgspec.json.decode(msgspec.json.encode(compare(load_spec(written()), load_spec(written()))))


@pytest.mark.parametrize(
    ("file", "code", "section", "roles"),
    [
        ("words.py", "SAYS = 'other'\n", "teacher", ("labeler",)),
        ("net.py", "class Net: size = 2\n", "student", ()),
        ("parts/features.py", "class Features: size = 2\n", "features", None),
        ("data/words.txt", "other", "files", None),
    ],
)
def test_code_belongs_to_the_section_that_names_it(settings, store, written, file, code, section, roles):
    extra = "student: {network: {factory: 'net.py:Net'}}\nfiles: [data]\n"
    text = TEXT.replace("user.py:Teacher", "teacher.py:Teacher")
    path = written(extra, text)
    for name, content in {
        "teacher.py": "import words\nclass Teacher: pass\n", "words.py": "SAYS = 'one'\n",
        "net.py": "class Net: pass\n", "data/words.txt": "one",
    }.items():  # fmt: skip
        (path.parent / name).parent.mkdir(exist_ok=True)
        (path.parent / name).write_text(content)
    old = put(settings, store, path)
    (path.parent / file).write_text(code)
    if roles is None:
        with pytest.raises(
            ConfigError, match=rf"{section} is 'changed': cannot change while the platform runs: .*'cohobate d"
        ):
            apply(settings, path, supervisor=1)
        assert in_force(settings, "w") == old
        assert apply(settings, path, None).taken == {section: ()}
    else:
        with Supervisor(settings):
            assert apply(settings, path, supervisor=1).taken == {section: roles}
    assert in_force(settings, "w").bundle != old.bundle and in_force(settings, "w").digest == old.digest


def test_what_only_a_restart_takes_up_is_taken_where_nothing_runs_and_what_nothing_does_is_not(
    settings, store, written
):
    assert apply(settings, written(), None).version == 1
    done = apply(settings, written("serve: {replicas: 4}\nlabel: {workers: 3}\n"), None)
    assert done.taken == {"label": (), "serve": ()} and done.version == 2
    with pytest.raises(ConfigError, match="task is 'changed': cannot change: labels, windows and students"):
        apply(settings, written("task: regression\n"), None)
    assert not (settings.home / changes.REQUEST).exists() and in_force(settings, "w").serve.replicas == 4


def test_two_that_change_a_workload_at_once_do_not_overwrite_each_other(settings, store, written, monkeypatch):
    put(settings, store, written())
    compared = changes.compare

    def meanwhile(old, new):
        monkeypatch.undo()
        apply(settings, written("seed: 1\n"), None)
        return compared(old, new)

    monkeypatch.setattr(changes, "compare", meanwhile)
    with pytest.raises(StaleRevisionError, match="workload w is at revision 2, not 1"):
        apply(settings, written("seed: 2\n"), None)
    assert in_force(settings, "w").seed == 1
