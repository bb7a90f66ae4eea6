"""How soon an open page shows that a rollback was carried out, in a real browser, and what the click costs before.

The console over a controller and a replica of this process (``tests/integration/test_console.py``'s platform), a
canary at 20 %, and Chromium. ``COHOBATE_BENCH_ROLLBACKS`` times (20): start, open the workload's page, roll back.
``placed``: from the click to the order in the control database. From there: ``acknowledged``, until the replica had
applied it and the controller closed the order; ``shown``, until the page that another browser had open says "rolled
back" (looked at on every frame). All are of one machine's clock.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from components.control.order_client import LocalOrderClient
from components.control.store import ControlStore
from components.stream.memory import MemoryBroker
from tests.bench.gateway import machine
from tests.clock import Clock
from tests.integration.test_console import Running, W, ready
from tests.integration.test_console_platform import SHOWN
from tests.ports import free_port
from tests.serving.conftest import SPEC, TEACHER_FILE, MemoryRegistry, artifact, label_of, payload
from tests.serving.control.test_controller import Platform

ROUNDS = int(os.environ.get("COHOBATE_BENCH_ROLLBACKS", "20"))


class Signs:
    payload, label, artifact = staticmethod(payload), staticmethod(label_of), staticmethod(artifact)


class Now(Clock):
    """The machine's clock, to which a platform's ticks add nothing."""

    def __call__(self):
        return time.time()


def platform(folder, registry, store):
    (folder / "teacher.py").write_text(TEACHER_FILE)
    (folder / "signs.yaml").write_text(SPEC)
    spec, broker = load_spec(folder / "signs.yaml"), MemoryBroker()
    broker.ensure_topics(spec.topics)

    def model(version, decision="promote"):
        from components.contracts.storage import digest_of, put_bytes
        from components.control.intent import ModelRef

        data, uri = artifact(space=f"signs@{version}"), (folder / f"v{version}.onnx").as_uri()
        put_bytes(uri, data)
        ref = ModelRef(version=version, uri=uri, digest=digest_of(data), snapshot="s" * 64, teacher="sign@1")
        return registry.add(ref, decision)

    return Platform(spec, store, broker, registry, Now(time.time()), model, Signs(), f"file://{folder}/artifacts")


def quantiles(name, seconds):
    cuts = statistics.quantiles(seconds, n=20)
    print(f"{name:13s} p50 {1000 * statistics.median(seconds):6.0f} ms   p95 {1000 * cuts[-1]:6.0f} ms   "
          f"most {1000 * max(seconds):6.0f} ms")  # fmt: skip


def main():
    print(machine())
    placed, acknowledged, shown = [], [], []
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        settings = Settings(home=folder, admin_port=free_port())
        store = ControlStore(settings.control_url)
        store.migrate()
        made = platform(folder, MemoryRegistry(), store)
        made.crown("1")
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        running = Running(made, settings, browser)
        try:
            acting, watching = running.visit(), running.visit("viewer")
            for number in range(ROUNDS):
                canary_of(running, str(number + 2))
                for tab in (acting, watching):
                    tab.goto(f"/console/w/{W}")
                    ready(tab)
                watching.evaluate(f"() => {{ window.seen = ({SHOWN})('rolled back'); }}")
                acting.get_by_role("link", name="Roll back", exact=True).click()
                dialog = acting.get_by_role("dialog")
                dialog.get_by_label("Reason").fill("bench")
                button = dialog.get_by_role("button", name="Roll back")
                clicked = time.time()
                button.click()
                at = watching.evaluate("window.seen")
                row = store.await_order(LocalOrderClient(store, "bench").orders(W)[-1]["id"])
                placed.append(row.created_at - clicked)
                acknowledged.append(row.done_at - row.created_at)
                shown.append(at - row.created_at)
        finally:
            running.close()
            browser.close()
            store.close()
    for what, seconds in (("placed", placed), ("acknowledged", acknowledged), ("shown", shown)):
        quantiles(what, seconds)


def canary_of(running, version):
    running.do(lambda p: p.registry.set_alias(W, "candidate", p.model(version).version))
    running.do(lambda p: p.tick())
    running.do(lambda p: p.go(lambda: p.state["phase"] == "canary"))
