"""Whatever an order or the registry holds, an order gets an outcome and its controller goes on."""

import logging

import pytest

from components.contracts.errors import ArtifactError, NotFoundError, UnavailableError
from components.contracts.settings import Settings
from components.control.intent import ModelRef
from components.ledger.ledger import entries
from components.registry import Registry, runs
from components.registry.registry import model_name
from serving.control.replicas import ReplacedError
from tests.serving.control.test_controller import Platform, W, begun, platform
from tests.stores import registering

__all__ = ["platform"]  # a fixture

WRONG = [
    ("dance", {}, "cannot dance"),
    ("start", {"version": 7}, "args is {'version': 7}"),
    ("start", {"version": ["1"]}, "args is"),
    ("start", {"forced": "false"}, "args is"),
    ("start", {"version": "99999999999999999999"}, "no model version"),
    ("start", {"version": "\0"}, "no model version"),
    ("rollback", {"to": {}}, "args is"),
    ("rollback", {"to": "nowhere"}, "no model version 'nowhere'"),
    ("promote", {"revision": "soon"}, "args is"),
    ("abort", ["not", "a", "mapping"], "args is"),
    ("abort", "text", "args is"),
]


@pytest.mark.parametrize(("verb", "args", "why"), WRONG)
@pytest.mark.parametrize("under_way", [False, True], ids=["idle", "under_way"])
def test_an_order_that_cannot_be_meant_is_refused(platform, verb, args, why, under_way):
    if under_way:
        begun(platform)
    else:
        platform.crown()
    key = platform.store.order(W, verb, "eve", "a reason", args)
    platform.tick()
    done = platform.store.get_order(key)
    if verb == "start" and under_way and why.startswith("no model"):
        why = ""
    assert done.ok is False and why in done.outcome
    assert [e.detail["why"] for e in entries(platform.store, W) if e.detail.get("order") == key] == [done.outcome]
    platform.tick()
    assert platform.intent.champion.version == "1"


def broken(error):
    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.mark.parametrize("method", ["get", "info", "named"])
def test_an_exception_of_a_library_is_the_orders_outcome(platform, monkeypatch, caplog, method):
    platform.crown()
    platform.model("2")
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(platform.registry, method, broken(KeyError("uri")))
        key = platform.store.order(W, "start", "eve", "a reason", {"version": "2"})
        platform.tick()
    done = platform.store.get_order(key)
    assert (done.ok, done.outcome) == (False, "failed by KeyError: 'uri'")
    assert any(r.exc_info and r.exc_info[0] is KeyError for r in caplog.records)
    assert platform.order("start", version="2").ok


def registry_away(platform, patch):
    for method in ("get", "info", "named", "set_alias", "drop_alias"):
        patch.setattr(platform.registry, method, broken(UnavailableError("MLflow", "http://m", "is it up?")))


def test_a_registry_that_is_away_keeps_an_order_open(platform, monkeypatch, caplog):
    begun(platform)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        registry_away(platform, patch)
        keys = [platform.store.order(W, "promote-full", "eve", "a reason")]
        platform.tick()
        assert platform.intent.champion.version == "2"
        keys += [platform.store.order(W, verb, "eve", "a reason") for verb in ("rollback", "start")]
        for _ in range(3):
            platform.tick()
        assert [platform.store.get_order(key).done_at for key in keys] == [None, None, None]
    waits = [r for r in caplog.records if r.getMessage().startswith(f"{W}: the order to rollback waits")]
    assert len(waits) == 1
    platform.tick()
    done = [platform.store.get_order(key) for key in keys]
    assert [order.ok for order in done] == [True, True, False] and "no model version 'candidate'" in done[2].outcome
    assert platform.intent.champion.version == "1"
    assert platform.registry.aliases == {"champion": "1", "previous": "2"}


def test_a_rollback_of_a_candidate_does_not_wait_for_the_registry(platform, monkeypatch):
    begun(platform)
    with monkeypatch.context() as patch:
        registry_away(platform, patch)
        key = platform.store.order(W, "rollback", "eve", "a reason")
        platform.tick()
        assert platform.intent.candidate is None and platform.store.get_order(key).done_at is None
    platform.tick()
    assert platform.store.get_order(key).ok and platform.registry.aliases == {"champion": "1"}


def test_a_rollout_is_watched_while_the_registry_is_away(platform, monkeypatch):
    begun(platform)
    with monkeypatch.context() as patch:
        registry_away(platform, patch)
        platform.failed[platform.intent.candidate.digest] = "corrupt"
        platform.tick()
        assert platform.intent.candidate is None and platform.active() is not None
    took = platform.state["rollback_seconds"]
    platform.tick(seconds=100.0)
    assert platform.active() is None and platform.registry.aliases == {"champion": "1"}
    assert platform.state["rollback_seconds"] == took


def test_a_version_that_was_deleted_from_the_registry_holds_up_no_rollout(platform, monkeypatch, caplog):
    begun(platform)
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(platform.registry, "set_alias", broken(NotFoundError("model version", "2", "it was deleted")))
        assert platform.order("promote-full").ok
    assert platform.intent.champion.version == "2" and platform.active() is None
    noted = next(e for e in entries(platform.store, W) if e.detail.get("registry"))
    assert noted.action == "rollout promote" and "it was deleted" in noted.detail["registry"]


def test_a_replaced_controller_refuses_nothing(platform, monkeypatch):
    platform.crown()
    platform.model("2")

    def refuse(ref, source):
        platform.start()  # another controller takes over
        raise ArtifactError(ref.uri, "is not there")

    monkeypatch.setattr(platform.controller, "trial", refuse)
    key = platform.store.order(W, "start", "eve", "a reason", {"version": "2"})
    with pytest.raises(ReplacedError):
        platform.tick()
    assert platform.store.get_order(key).done_at is None


class TestByHand:
    """A real MLflow on SQLite with a version that somebody made by hand in it."""

    @pytest.fixture
    def mlflow(self, tmp_path):
        return registering(Settings(home=tmp_path / "home"))

    @pytest.fixture
    def platform(self, spec, store, broker, clock, model, signs, tmp_path, mlflow):
        return Platform(spec, store, broker, Registry(mlflow), clock, model, signs, f"file://{tmp_path}/artifacts")

    def make(self, mlflow, *aliases, ref: ModelRef | None = None):
        """A version, with the tags that a registration of ``ref`` writes or without any."""
        client, name = runs.connect(mlflow), model_name(W)
        runs.unless_there(lambda: client.create_registered_model(name))
        tags = {}
        if ref is not None:
            tags = dict.fromkeys(("parent", "code", "variant"), "") | {
                "uri": ref.uri, "digest": ref.digest, "snapshots": ref.snapshot, "teacher": ref.teacher,
                "metrics": "{}", "verdict": '{"decision": "promote"}',
            }  # fmt: skip
        made = client.create_model_version(name, source="file:///somewhere", tags=tags)
        for alias in aliases:
            client.set_registered_model_alias(name, alias, made.version)
        return str(made.version)

    def test_an_order_that_names_it_is_refused(self, platform, mlflow, model):
        self.make(mlflow, "champion", ref=model("1"))
        platform.tick()
        number = self.make(mlflow)
        for verb, args in (("start", {"version": number}), ("rollback", {"to": number})):
            done = platform.order(verb, **args)
            assert done.ok is False and f"version {number} is not ours" in done.outcome
        platform.restart()
        platform.tick()
        assert platform.intent.champion.version == "1"

    @pytest.mark.parametrize("alias", ["champion", "candidate", "previous"])
    def test_an_alias_on_it_keeps_no_controller_from_starting(self, platform, mlflow, model, caplog, alias):
        if alias != "champion":
            self.make(mlflow, "champion", ref=model("1"))
        number = self.make(mlflow, alias)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                platform.tick()
        serving = platform.intent.champion
        assert (serving is None) == (alias == "champion") and platform.intent.previous is None
        told = [r for r in caplog.records if f"version {number} is not ours" in r.getMessage()]
        assert len(told) == 1
        assert (platform.registry.named(W, "candidate") is None) and platform.active() is None
        mine = self.make(mlflow, "candidate", ref=model("7"))
        platform.tick()
        assert (platform.intent.champion if alias == "champion" else platform.intent.candidate).version == mine
