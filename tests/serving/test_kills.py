"""kill -9 of a controller at every place between two of its durable steps, while two replicas answer.

Each time the next controller finishes what was begun, and all the while: exactly one champion; no replica gives a
candidate more than the intent does; no lease reaches further than its term; no request fails.
"""

import contextlib
import os
import signal
import threading
import time

import pytest

from components.contracts import failpoint
from components.contracts.spec import load_spec
from components.ledger.ledger import entries, verify
from serving.replica.loaded_versions import LoadedVersions
from tests.forks import forked, preload
from tests.serving.led import FileRegistry, control
from tests.waiting import wait_for

W = "signs"
LEASE = 2.0
PATIENCE = 90.0
"""Seconds for what takes one or two on a machine that has nothing else to do."""

SLACK = 0.3
"""Seconds by which this process may look later than it means to."""

preload("tests.serving.led")

VERBS = {
    "start": {"version": "2", "skip_shadow": True}, "promote": {}, "pause": {}, "undo": {}, "promote-full": {},
    "abort": {}, "rollback": {},
}  # fmt: skip

BEFORE = {
    "start": [], "promote": ["start"], "pause": ["start"], "undo": ["start", "promote-full"], "promote-full": ["start"],
    "abort": ["start"], "rollback": ["start", "promote"],
}  # fmt: skip

AFTER = {
    "start": ("1", "2"), "promote": ("1", "2"), "pause": ("1", "2"), "undo": ("1", None), "promote-full": ("2", None),
    "abort": ("1", None), "rollback": ("1", None),
}  # fmt: skip
"""Champion and candidate when the verb was carried out."""

EVERY = ["decision.1", "decision.2", "action.1", "action.2", "action.3", "action.4", "action.5", "action.6",
         "order.1", "order.2"]  # fmt: skip
ALIASED = ["alias.1", "alias.2"]
PLACES = [
    *[("rollback", place) for place in EVERY],
    *[("promote-full", place) for place in (*EVERY, *ALIASED)],
    *[("start", place) for place in ("decision.1", "action.1", "order.1")],
    *[("promote", place) for place in ("decision.2", "action.2", "action.3")],
    *[("undo", place) for place in ("decision.2", "alias.1", "action.4")],
    ("abort", "action.1"),
    ("pause", "decision.2"),
]


class Client(threading.Thread):
    """Asks the replicas in turn, as fast as they answer, and looks at what they do."""

    def __init__(self, replicas, store):
        super().__init__(daemon=True)
        self.replicas, self.store = replicas, store
        self.failed, self.wrong, self.last_candidate, self.asked, self.rounds = [], [], 0.0, 0, 0
        self._ended = threading.Event()

    def run(self):
        while not self._ended.is_set():
            for replica in self.replicas:
                self.asked += 1
                self._ask(replica, f"k{self.asked}")
            self.rounds += 1
            time.sleep(0.001)

    def _ask(self, replica, key):
        now = time.time()  # before the routing is read: what was replaced meanwhile has answered before that
        routing = replica.routing
        choice = routing.choose(key, now)
        if choice is None:
            self.failed.append(key)
            return
        try:
            choice.served.student.predict_decoded([{"x": 1.0}])
        except Exception as error:
            self.failed.append(repr(error))
        if choice.arm == "candidate":
            self.last_candidate = now
            if not routing.intent.weight > 0 or now >= routing.intent.lease_until:
                self.wrong.append((routing, now))

    def goes_on(self):
        """Wait until every replica was asked again, from now on."""
        rounds = self.rounds
        wait_for(lambda: self.rounds > rounds + 1 or not self.is_alive())

    def end(self):
        self._ended.set()
        self.join()


class Platform:
    """Two replicas, a client, and whatever controller is alive."""

    def __init__(self, spec, store, model, folder):
        self.spec, self.store, self.folder = spec, store, folder
        self.registry_file = folder / "registry.json"
        for version in ("1", "2"):
            FileRegistry(self.registry_file).add(model(version))
        self.replicas = [LoadedVersions(spec, store, name) for name in ("r1", "r2")]
        self.client = Client(self.replicas, store)
        self._n = 0

    def lead(self, place=""):
        self._n += 1
        holder, environment = f"c{self._n}", {**os.environ, failpoint.VARIABLE: place}
        given = (self.spec.source, self.store.url, self.folder, holder)
        return forked(control, *given, environment=environment, log=self.folder / f"{holder}.log")

    def order(self, verb, wait=PATIENCE):
        key = self.store.order(W, verb, "eve", "a reason", VERBS[verb])
        return self.store.await_order(key, wait) if wait else key

    @property
    def registry(self):
        return FileRegistry(self.registry_file)

    @property
    def intent(self):
        return self.store.intent(W)[1]

    def until(self, condition, seconds=PATIENCE):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (self.intent, [r.state for r in self.store.rollouts(W)])
            time.sleep(0.01)

    def begin(self):
        for replica in self.replicas:
            replica.follow()
            replica.start()
        FileRegistry(self.registry_file).set_alias(W, "candidate", "1")

    def crowned(self):
        self.until(lambda: all(r.routing.champion is not None for r in self.replicas))
        self.until(lambda: "candidate" not in self.registry.aliases)

    def holds(self):
        """What is true at any moment, whoever was killed."""
        revision, intent = self.store.intent(W)
        assert intent.champion is not None
        assert intent.lease_until <= time.time() + LEASE + SLACK
        assert intent.candidate is not None or intent.weight == 0.0
        for replica in self.replicas:
            routing = replica.routing
            if routing.revision == revision:
                assert routing.intent.weight_at(time.time()) <= intent.weight
        assert self.client.failed == [] and self.client.wrong == []


@pytest.fixture
def platform(spec, store, model, tmp_path):
    path = tmp_path / "signs.yaml"
    path.write_text(path.read_text().replace("lease_seconds: 10", f"lease_seconds: {LEASE}"))
    made = Platform(load_spec(path), store, model, tmp_path)
    yield made
    made.client.end() if made.client.is_alive() else None
    for replica in made.replicas:
        replica.stop()


@contextlib.contextmanager
def killed(process):
    """End a process however the block ends."""
    try:
        yield process
    finally:
        process.kill()
        process.join()


def settled(platform, verb, key):
    """The order was carried out, once, everywhere."""
    order = platform.store.get_order(key)
    assert order.ok, order.outcome
    champion, candidate = AFTER[verb]
    intent = platform.intent
    assert intent.champion.version == champion
    assert (intent.candidate.version if intent.candidate else None) == candidate
    platform.until(lambda: all(r.routing.champion.ref.version == champion for r in platform.replicas))
    assert platform.registry.aliases["champion"] == champion
    if candidate is None:
        platform.until(lambda: all(r.routing.candidate is None for r in platform.replicas))
        assert "candidate" not in platform.registry.aliases
    keys = [e.detail["key"] for e in entries(platform.store, W)]
    assert len(keys) == len(set(keys)) and verify(platform.store) == len(keys)


@pytest.mark.integration
@pytest.mark.parametrize(("verb", "place"), PLACES, ids=[f"{v} {p}" for v, p in PLACES])
def test_a_controller_that_is_killed_anywhere_leaves_what_the_next_one_finishes(platform, verb, place):
    platform.begin()
    with killed(platform.lead()) as first:
        platform.crowned()
        platform.client.start()
        for before in BEFORE[verb]:
            assert platform.order(before).ok
    key = platform.order(verb, wait=0)
    with killed(platform.lead(place)) as dying:
        dying.join(PATIENCE)
        assert dying.exitcode == -signal.SIGKILL and first.exitcode == -signal.SIGKILL
    platform.holds()
    with killed(platform.lead()):
        platform.store.await_order(key, PATIENCE)
        platform.until(lambda: not any(r.state["outbox"] for r in platform.store.rollouts(W)))
        settled(platform, verb, key)
        platform.holds()
        done = time.time()
        platform.client.goes_on()
    if AFTER[verb][1] is None:
        assert platform.client.last_candidate < done
    platform.holds()


@pytest.mark.integration
@pytest.mark.parametrize("place", ["lead.1", "crown.1", "first.1", "first.2"])
def test_the_first_champion_is_crowned_once_whenever_the_controller_dies(platform, place):
    platform.begin()
    with killed(platform.lead(place)) as dying:
        dying.join(PATIENCE)
        assert dying.exitcode == -signal.SIGKILL
    with killed(platform.lead()):
        platform.crowned()
        assert platform.registry.aliases == {"champion": "1"}
        assert [e.action for e in entries(platform.store, W)].count("first champion") == 1


@pytest.mark.integration
@pytest.mark.parametrize("place", ["rollback.1", "crown.1", "rollback.3", "alias.1", "rollback.4", "rollback.5"])
def test_a_rollback_after_a_promotion_is_finished_by_the_next_controller(platform, place):
    platform.begin()
    with killed(platform.lead()):
        platform.crowned()
        platform.client.start()
        assert platform.order("start").ok and platform.order("promote-full").ok
    key = platform.order("rollback", wait=0)
    with killed(platform.lead(place)) as dying:
        dying.join(PATIENCE)
        assert dying.exitcode == -signal.SIGKILL
    platform.holds()
    with killed(platform.lead()):
        platform.store.await_order(key, PATIENCE)
        settled(platform, "rollback", key)
    assert platform.registry.aliases == {"champion": "1", "previous": "2"}
    platform.holds()


@pytest.mark.integration
def test_without_a_controller_the_candidate_stops_with_its_lease(platform):
    platform.begin()
    with killed(platform.lead()):
        platform.crowned()
        platform.client.start()
        assert platform.order("start").ok and platform.order("promote").ok
        routed = time.time()
        platform.until(lambda: platform.client.last_candidate > routed + LEASE)  # renewed meanwhile: it serves still
    ended, until = time.time(), platform.intent.lease_until
    assert until <= ended + LEASE + SLACK
    time.sleep(LEASE + SLACK)
    assert platform.client.last_candidate < until
    platform.holds()
    with killed(platform.lead()):  # and the next controller goes on with it
        platform.until(lambda: platform.client.last_candidate > until)
