"""Carrying out an order to forget on the platform that the settings name: what ``cohobate forget`` does."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from components.contracts.errors import CohobateError, ConfigError, UnavailableError
from components.contracts.settings import Settings
from components.contracts.spec import Spec, load_spec
from components.control import forgettings, runs
from components.control.store import ControlStore
from components.control.workloads import in_force
from components.forget import order, retention
from components.forget.kafka import delete
from components.forget.traces import Places
from components.stream import open_broker
from components.stream.kafka import KafkaBroker
from components.stream.restored import copy_of
from infra.broker import ask_to_erase
from infra.state import read_state

if TYPE_CHECKING:
    from securesystemslib.signer import Signer


def forget(workload: str, key: str, reason: str, signer: Signer | None = None) -> dict[str, Any]:
    """Erase an entity of a workload whose version in force is the registry's; returns what was erased.

    No update may start meanwhile: the work is recorded as a run, which one of them would have to wait for.

    Raises:
        NotFoundError: there is no such workload.
        PipelineError: an update is under way, or began while this was silent for too long.
        RemainsError: something came meanwhile: give the order again.
        UnavailableError: the platform's broker, or MLflow, does not answer.

    """
    settings = Settings()
    with _platform(settings, workload, signer) as on:
        order.check(key, reason)
        run = runs.begin(on.store, workload, runs.FORGET, reason, settings.actor)
        status, failure = "failed", "it was interrupted"
        try:
            with runs.beating(on.store, run):
                result = order.forget(on, key, reason, lambda: runs.go_on(on.store, run))
            status, failure = "succeeded", ""
        except CohobateError as error:
            failure = str(error)
            raise
        except Exception as error:
            failure = type(error).__name__  # what else it says may name who is to be forgotten
            raise
        finally:
            runs.end(on.store, run, status, {"failure": failure} if failure else {}, settings.actor)
    return result


def look(workload: str, key: str) -> dict[str, Any]:
    """What would be erased, counted."""
    with _platform(Settings(), workload, None) as on:
        return order.look(on, key)


def expire(workload: str, *, dry: bool) -> dict[str, Any]:
    """Delete what is older than the spec in force says, or, ``dry``, count it.

    Raises:
        NotFoundError: there is no such workload.
        ConfigError: its spec has no retention.
        AccessError, RefusedError, UnavailableError: of the broker.
        PipelineError: an update is under way.

    """
    settings = Settings()
    with closing(ControlStore.open(settings.control_url)) as store:
        spec = load_spec(in_force(store, workload).reference, settings)
        if not spec.retention.wanted:
            raise ConfigError("retention", None, "names no age: say in the spec how many days what is kept")
        topics = KafkaBroker(settings) if settings.bootstrap_servers else None
        found = (retention.due if dry else retention.swept)(spec, settings, store, topics)
    said: dict[str, Any] = msgspec.to_builtins(found, str_keys=True)
    return said


def orders(workload: str) -> list[dict[str, Any]]:
    """The orders of a workload, oldest first, each with what it erased."""
    with closing(ControlStore.open(Settings().control_url)) as store:
        return [
            {
                "order": row.id, "at": row.at, "actor": row.actor, "reason": row.reason, "subject": row.subject,
                "state": "done" if row.done_at is not None else f"{order.STEPS[row.step]} is next",
                "students": [s["version"] for s in row.result.get("students", ())],
                "retrained_at": row.retrained_at, "proof": row.result.get("proof", {}).get("uri"),
            }
            for row in forgettings.orders(store, workload)
        ]  # fmt: skip


@contextmanager
def _platform(settings: Settings, workload: str, signer: Signer | None) -> Iterator[order.Platform]:
    from components.registry.registry import Registry

    with closing(ControlStore.open(settings.control_url)) as store:
        spec = load_spec(in_force(store, workload).reference, settings)
        yield order.Platform(
            spec=spec, settings=settings, store=store, broker=open_broker(settings), registry=Registry(settings),
            erase=_eraser(settings, spec, store), leftovers=lambda since: _leftovers(settings, store, workload, since),
            signer=signer,
        )  # fmt: skip


def _eraser(settings: Settings, spec: Spec, store: ControlStore) -> Callable[[Places], None]:
    """How records are deleted: the embedded broker's by its platform, another's by Kafka's own request."""
    if settings.bootstrap_servers:
        return lambda places: delete(spec, store, KafkaBroker(settings), places)
    state = read_state(settings)
    if state is None or not state.alive:
        raise UnavailableError("platform", str(settings.home), "it does not run: 'cohobate up' starts its broker")

    def alive() -> bool:
        now = read_state(settings)
        return now is not None and now.alive

    return lambda places: ask_to_erase(copy_of(settings), places, alive)


def _leftovers(settings: Settings, store: ControlStore, workload: str, since: float) -> tuple[int, list[str]]:
    """Delete what the steps of ended runs left on this host, reports among it.

    Returns of how many runs, and what is left: artifacts on Kubeflow, which are not ours to delete.
    """
    count, remote = 0, []
    for run in store.runs(workload):
        if run.started_at < since - RUN_SECONDS:
            continue
        if known := run.detail.get(runs.KUBEFLOW):
            remote.append(str(known))
        folder = Path(settings.home.resolve(), "pipelines", run.id)
        if run.status != "running" and folder.is_dir():
            shutil.rmtree(folder)
            count += 1
    left = [f"artifacts of Kubeflow's runs {', '.join(remote)}: delete them in the pipeline root"] if remote else []
    return count, left


RUN_SECONDS = 86_400.0
"""How long before its window a run may have begun."""
