"""The pipelines as a user runs them: Kubeflow's local runner, a broker over TCP, one process for each component.

They are forked, as while the platform runs; that without a server each is started anew is a test of steps.
"""

import shutil
import threading
import time
from pathlib import Path

import msgspec
import pytest

from components.contracts.errors import PipelineError
from components.contracts.spec import build
from components.contracts.storage import local_path
from components.control.intent import Intent
from components.label.history import label_history
from components.label.labeler import Labeler
from components.ledger.ledger import entries, verify
from components.registry.registry import Registry
from components.stream import open_broker
from infra.broker import EmbeddedBroker
from pipelines.forked import FILE
from pipelines.local import run_local
from pipelines.outcome import Outcome
from tests.stores import migrated, registering

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def platform(settings):
    store = migrated(settings.control_url)
    log = settings.home / "logs" / "broker.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with EmbeddedBroker(settings.broker_port, log):
        yield registering(settings), store
    store.close()


@pytest.fixture
def warm(settings, fork_server):
    """The home has a fork server, which is up for the whole test: else the steps would run by themselves unnoticed."""
    assert fork_server.up
    settings.home.mkdir(exist_ok=True)
    shutil.copy(fork_server.home / FILE, settings.home)
    yield
    assert fork_server.up


@pytest.fixture
def labeler(platform, spec):
    """The platform's labeler, in a thread."""
    broker, stop = open_broker(platform[0]), threading.Event()
    broker.ensure_topics(spec.topics)
    thread = threading.Thread(target=Labeler(spec, build(spec.teacher, spec.source), broker).run, args=(stop,))
    thread.start()
    yield
    stop.set()
    thread.join()


def test_a_student_is_bootstrapped_updated_and_registered_once_there_is_something_new(
    platform, warm, labeler, spec, tickets, tmp_path
):
    settings, store = platform
    path = spec.source
    history = tmp_path / "history.jsonl"
    history.write_bytes(b"\n".join(msgspec.json.encode(e) for e in tickets(60, start=time.time() - 9000)))

    first = run_local("bootstrap", path, {"history_uri": history.as_uri()}, reason="first", settings=settings)
    assert first.outputs["label-history"] == 240
    assert first.outputs["choose"] == "promote"
    assert first.outputs["register"] == "1"
    assert first.outcome is not None and first.outcome.version == "1"
    candidate = Registry(settings).get(spec.name, "candidate")
    assert candidate is not None
    assert candidate.snapshot == first.outputs["snapshot"]

    # What the rollout controller does in the end.
    store.put_intent(spec.name, 0, Intent(champion=candidate))
    label_history(spec, open_broker(settings), store, tickets(50, seed=1, start=time.time() - 900))
    second = run_local("continual", path, {}, reason="200 new labels", settings=settings)
    assert second.outputs["evaluate"] == "promote"
    assert second.outputs["register"] == "2"
    newest = Registry(settings).versions(spec.name)[-1]
    assert newest.parent == "1"
    assert newest.snapshots == (second.outputs["snapshot"], first.outputs["snapshot"])

    # Nothing came since: every step passes that on, and no version is made.
    third = run_local("continual", path, {}, reason="by hand", settings=settings)
    assert {third.outputs[s] for s in ("snapshot", "evaluate", "register")} == {"nothing"}
    assert third.outcome == Outcome(decision="nothing", version=None)
    assert len(Registry(settings).versions(spec.name)) == 2

    assert [r.status for r in store.runs(spec.name)] == ["succeeded"] * 3
    assert verify(store) == len(entries(store)) == 6
    html = list((tmp_path / "home" / "pipelines").rglob("html"))
    assert any(h.stat().st_size > 100_000 for h in html)

    # The page of an evaluation is the same in Kubeflow's UI and as a file, and a log is for who reads it.
    kept = {page.read_bytes() for page in local_path(settings.artifacts).rglob("quality.html")}
    shown = {page.read_bytes() for page in (tmp_path / "home" / "pipelines").rglob("report/quality")}
    assert len(kept) == 2 and kept <= shown
    for run in (first, second):
        text = Path(run.log).read_text()
        assert "Task 'evaluate' finished with status SUCCESS" in text or "Task 'evaluate-2' finished" in text
        assert "spec=workload:tickets@" in text and "executor_input" not in text
        assert "Bootstrap complete" not in text and "Registry cache expired" not in text


BROKEN = """
from pathlib import Path

from components.student.text import TextNgrams


class Ngrams(TextNgrams):
    def encode(self, payloads):
        if Path({full!r}).exists():
            raise OSError(28, "No space left on device")
        return super().encode(payloads)
"""


def test_an_update_that_failed_after_its_snapshot_is_made_by_the_next_run(
    platform, warm, labeler, spec, tickets, tmp_path
):
    settings, store = platform
    folder = Path(spec.source).parent
    (tmp_path / "tickets.py").write_text((folder / "tickets.py").read_text())
    full = tmp_path / "full"
    (tmp_path / "ngrams.py").write_text(BROKEN.format(full=str(full)))
    text = Path(spec.source).read_text().replace("components.student.text:TextNgrams", "ngrams.py:Ngrams")
    (tmp_path / "tickets.yaml").write_text(text)
    path = str(tmp_path / "tickets.yaml")
    label_history(spec, open_broker(settings), store, tickets(60, start=time.time() - 9000))

    full.touch()
    with pytest.raises(PipelineError, match="No space left on device"):
        run_local("continual", path, {}, reason="240 new labels", settings=settings)
    (window,) = store.windows(spec.name)
    full.unlink()
    done = run_local("continual", path, {}, reason="the disk is empty again", settings=settings)
    assert done.outputs["snapshot"] == window.digest
    assert done.outputs["register"] == "1"
    assert Registry(settings).versions(spec.name)[-1].snapshots == (window.digest,)
    assert [w.digest for w in store.windows(spec.name)] == [window.digest]
