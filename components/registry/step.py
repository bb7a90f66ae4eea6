"""The pipelines' steps that register a candidate and order the rollout controller."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from components.contracts.errors import ConfigError, OrderError
from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from components.control.store import ControlStore
from components.process import short_lived
from components.steps import DATA_FREE, Candidate

__all__ = ["order", "register"]

ORDER_SECONDS = 60.0
"""How long a pipeline waits for the rollout controller to carry out its order."""


@short_lived
def register(spec_path: str, candidate: Candidate, force: bool = False) -> str:
    """Register a judged candidate with its lineage and give it the alias ``candidate``; returns its version.

    ``force`` registers one that the gate did not promote; the verdict and the ledger then say that it was forced. The
    rollout controller starts no such version by itself: order it with ``forced``.

    1. Where the policy asks for signatures: require that of the evidence, and that it has the verdict at hand.
    2. Register it, which gives its version.
    3. Sign its provenance, where the settings name a key.
    4. Set the alias, from which the rollout controller takes it.

    Raises:
        OrderError: the gate did not promote it, and ``force`` was not given.
        UntrustedError: its evidence is not signed as the policy asks, or has another verdict.

    """
    from components.ledger import signatures
    from components.ledger.ledger import append
    from components.registry import provenance
    from components.registry.registry import Registry

    spec, settings = load_spec(spec_path), Settings()
    forced = candidate.decision != "promote"
    if forced and not force:
        reasons = "; ".join(candidate.verdict.get("reasons", ())) or "it was not judged"
        raise OrderError("register a student of", spec.name, f"the gate says {candidate.decision}: {reasons}")
    registry, store = Registry(settings), ControlStore.open(settings.control_url)
    # Step 1
    signing = signatures.wanted(settings)
    if settings.artifact_policy == "signed":
        provenance.require_judged(settings, store, spec, candidate)
    # Step 2
    known = {k: v for k, v in candidate.measurements.items() if v is not None and math.isfinite(v)}
    measured = {k: v for k, v in known.items() if "[" not in k}  # those of slices stand in the verdict
    bundle = {"bundle": spec.bundle} if spec.bundle is not None else {}
    model = registry.register(
        spec,
        candidate.uri,
        candidate.digest,
        candidate.card,
        verdict={**candidate.verdict, "forced": forced},
        metrics={**candidate.metrics, **measured},
        params={
            "variant": candidate.card.variant,
            "spec": spec.digest,
            "seed": str(spec.seed),
            **bundle,
            **({"synthetic": ", ".join(sorted(candidate.card.synthetic))} if candidate.card.synthetic else {}),
        },
    )
    # Step 3
    key = None
    if signing:
        key = provenance.sign(settings, store, provenance.of_candidate(settings, store, spec, candidate, model, forced))
    # Step 4
    if not forced:
        registry.set_alias(spec.name, "candidate", model.version)
    detail = {"version": model.version, "digest": model.digest, "verdict": candidate.decision, "forced": forced}
    detail |= bundle | ({"signed_by": key} if key is not None else {})
    if candidate.data_free:
        named = {"model": msgspec.to_builtins(model), "variant": candidate.card.variant}
        store.put_gauge(spec.name, DATA_FREE, named)
    append(store, spec.name, settings.actor, "register", detail)
    store.close()
    return model.version


@short_lived
def order(spec_path: str, verb: str, reason: str, key: str, args: dict[str, Any]) -> str:
    """Order a verb of the rollout controller and wait for its outcome; the same ``key`` orders it once.

    It goes to the admin API that the settings name, with their token, else into the control database.

    Raises:
        ConfigError: there is no reason, or no key of its own.
        OrderError: it was refused, or no controller took it in time.
        AccessError: the admin API does not let the caller do this.

    """
    from components.control.order_client import Order, open_order_client
    from components.runs.step import workload_of

    if "{{" in key or not key:  # a placeholder that was not filled in is the same for all runs
        raise ConfigError(
            "key", key, "must be an order's own: with one key for all only the first would be carried out"
        )
    workload = workload_of(spec_path)
    wanted = Order(workload=workload, verb=verb, reason=reason, args=args, key=key)
    done = open_order_client(Settings()).place(wanted, ORDER_SECONDS)
    if done.ok is None:
        late = (
            f"no controller took it in {ORDER_SECONDS:.0f} s; it stays open and will be carried out when one comes up"
        )
        raise OrderError(verb, workload, late)
    if not done.ok:
        raise OrderError(verb, workload, f"refused: {done.outcome}")
    return str(done.outcome)
