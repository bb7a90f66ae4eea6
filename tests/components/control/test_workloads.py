import pytest

from components.contracts.errors import NotFoundError
from components.contracts.settings import Settings
from components.contracts.spec import build, load_spec
from components.control import workloads
from components.control.database import StaleRevisionError
from components.control.leader import Lease
from components.control.leases import Leases
from components.control.store import ControlStore

SPEC = "name: {name}\nseed: {seed}\nteacher: {{factory: 'code.py:Teacher'}}\nfeatures: {{factory: 'builtins:dict'}}\n"


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path / "home", artifact_root=f"file://{tmp_path}/shared")


@pytest.fixture
def apply(store, settings, tmp_path):
    """Applies a version of a workload, by its seed."""
    (tmp_path / "code.py").write_text("class Teacher:\n    pass\n")

    def made(seed, name="w", **given):
        (tmp_path / "w.yaml").write_text(SPEC.format(name=name, seed=seed))
        spec, bundle = workloads.opened(str(tmp_path / "w.yaml"), settings)
        return workloads.apply(store, bundle, spec, **{"actor": "ana", "reason": f"seed {seed}", **given})

    return made


def test_a_version_is_recorded_once_and_each_change_of_what_is_in_force(store, settings, apply):
    first, second = apply(1), apply(2)
    assert (first.number, second.number, first.actor, first.reason) == (1, 2, "ana", "seed 1")
    assert first.spec == load_spec(first.reference, settings).digest != second.spec and first.digest != second.digest
    assert apply(2) == second == workloads.in_force(store, "w") and workloads.versions(store, "w") == [first, second]
    assert apply(1, reason="back") == first == workloads.in_force(store, "w")
    assert apply(2, verb="roll back", actor="bo") == second
    assert workloads.remove(store, "w", before=2, actor="bo", reason="over").version is None
    with pytest.raises(NotFoundError, match="none of this name is registered"):
        workloads.in_force(store, "w")
    with pytest.raises(NotFoundError):
        workloads.remove(store, "w", before=None, actor="bo", reason="twice")
    assert apply(1).number == 1
    found = workloads.changes(store, "w")
    assert [(c.number, c.verb, c.before, c.version) for c in found] == [
        (1, "apply", None, 1), (2, "apply", 1, 2), (3, "apply", 2, 1), (4, "roll back", 1, 2), (5, "remove", 2, None),
        (6, "apply", None, 1),
    ]  # fmt: skip
    assert [c.at for c in found] == sorted(c.at for c in found)


def test_a_decision_that_rests_on_another_version_than_the_one_in_force_is_refused(store, apply):
    apply(1, before=None)
    apply(2, before=1)
    for decide in (
        lambda: apply(3, before=1),
        lambda: apply(3, before=None),
        lambda: workloads.remove(store, "w", before=1, actor="bo", reason="late"),
    ):
        with pytest.raises(StaleRevisionError, match="workload w is at revision 2"):
            decide()
    assert len(workloads.changes(store, "w")) == len(workloads.versions(store, "w")) == 2


def test_a_version_may_be_recorded_and_not_put_in_force(store, apply):
    first = apply(1, in_force=False)  # none is: this one
    second = apply(2, in_force=False)
    assert workloads.in_force(store, "w") == first and workloads.versions(store, "w")[1:] == [second]
    assert len(workloads.changes(store, "w")) == 1


def test_a_version_is_named_by_number_or_digest(store, settings, apply):
    first, second = apply(1), apply(2)
    for which in (1, "1", first.digest, first.digest[:12]):
        assert workloads.version(store, "w", which) == first
    for which in ("3", "", first.digest[:7]):
        with pytest.raises(NotFoundError, match="no version of workload w"):
            workloads.version(store, "w", which)
    assert workloads.pinned("workload:w", settings, store) == second.reference
    assert workloads.pinned("workload:w@1", settings, store) == first.reference
    for as_it_is in (first.reference, "some/w.yaml"):
        assert workloads.pinned(as_it_is, settings, store) == as_it_is
    with pytest.raises(NotFoundError):
        workloads.pinned("workload:v", settings, store)


def test_the_one_before_is_the_newest_older_one_that_was_in_force(store, apply):
    first = apply(1)
    with pytest.raises(NotFoundError, match="1 is the first that was in force"):
        workloads.before(store, "w")
    second = apply(2)
    apply(3, in_force=False)
    apply(4)
    assert workloads.before(store, "w") == second
    apply(2)
    assert workloads.before(store, "w") == first


def test_whoever_works_for_a_workload_is_named(store):
    assert workloads.at_work(store, "w") == ""
    store.acknowledge("v", "one", 1, {})
    assert Lease(store, "controller/w", "me", 5.0).acquire()
    assert workloads.at_work(store, "w") == "a controller leads it"
    Leases(store, "w", "labeler-2").tend({0}, set())
    assert workloads.at_work(store, "w") == "labeler-2 labels for it"
    store.acknowledge("w", "one", 1, {})
    assert workloads.at_work(store, "w") == "1 replicas of the gateway answer for it"


def test_what_one_host_applied_another_loads_from_the_shared_stores(postgres_store, s3, tmp_path):
    """No folder is shared: each has a home of its own, the spec's own folder is gone."""
    one, other = (
        Settings(home=tmp_path / name, artifact_root=s3, database_url=postgres_store.url) for name in ("one", "other")
    )
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "w.yaml").write_text(SPEC.format(name="w", seed=1))
    (mine / "code.py").write_text("import word\n\n\nclass Teacher:\n    says = word.SAYS\n")
    (mine / "word.py").write_text("SAYS = 'hello'\n")
    spec, bundle = workloads.opened(str(mine / "w.yaml"), one)
    workloads.apply(postgres_store, bundle, spec, actor="ana", reason="first")
    (mine / "code.py").unlink()
    (tmp_path / "one").rename(tmp_path / "gone")
    there = ControlStore.open(other.control_url)
    loaded = load_spec(workloads.pinned("workload:w", other, there), other)
    assert build(loaded.teacher, loaded.source).says == "hello" and loaded == spec
    assert (tmp_path / "other" / "workloads" / bundle.digest / "word.py").is_file()
    there.close()


def test_many_workloads_are_looked_up_by_as_many_queries_as_one(store, apply):
    from sqlalchemy import event

    asked = []

    def count(*args):
        asked.append(args[2])

    first = apply(1)
    event.listen(store.engine, "before_cursor_execute", count)
    workloads.registered(store)
    workloads.in_force(store, "w")
    few = len(asked)
    event.remove(store.engine, "before_cursor_execute", count)
    from components.contracts.spec.bundles import Bundle

    spec = load_spec(first.reference)
    for number in range(200):
        bundle = Bundle(f"w{number}", first.digest, first.size, None)
        workloads.apply(store, bundle, spec, actor="ana", reason="many")
    asked.clear()
    event.listen(store.engine, "before_cursor_execute", count)
    assert len(workloads.registered(store)) == 201 and workloads.in_force(store, "w") == first
    assert len(asked) == few
    event.remove(store.engine, "before_cursor_execute", count)
