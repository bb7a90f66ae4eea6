"""The Ray cluster on which workers train, where the settings name one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from components.contracts.errors import UnavailableError
from components.contracts.ray_access import JOBS_API, access, last_line
from components.contracts.settings import Settings

SCHEMES = ("ray://", *JOBS_API)
"""Of an address of Ray's client server, which takes in whoever is no node of the cluster: a pod, say; or of the head's
Jobs API (:mod:`components.distill.job`)."""

STARTS = 5
"""How often a client asks to be taken in by a cluster that answers. Ray's client server (2.60) forks a process for each
client while its own threads call into gRPC, and now and then that one has ended before it ran."""

HANDED_ON = ("artifact_root", "workload_signed_by", "workload_max_bytes")
"""Settings that workers have from us: where the spec's bundle, the rows and the checkpoint lie. None is a secret; the
store's credentials are those of the cluster's own pods."""


def elsewhere(workers: int, settings: Settings) -> bool:
    """Whether so many workers train on a cluster that this process is no node of."""
    return workers > 0 and settings.ray_address.startswith(SCHEMES)


def handed_on(settings: Settings) -> dict[str, str]:
    """The variables that workers have from us."""
    public = settings.public()
    return {f"COHOBATE_{name.upper()}": public[name] for name in HANDED_ON if name in public}


@contextlib.contextmanager
def joined(settings: Settings) -> Iterator[None]:
    """Be a client of the cluster while the body runs.

    Whatever it started there ends with it: when it has ended, and also when this process was killed, as the cluster
    waits half a minute for a client that it has lost (``RAY_CLIENT_RECONNECT_GRACE_PERIOD``, in seconds).

    Raises:
        UnavailableError: no client server answers there, or it does not take us in.

    """
    os.environ.update(access(settings, os.environ))
    import ray
    import stamina

    told = {"env_vars": handed_on(settings)}
    try:
        for attempt in stamina.retry_context(on=ConnectionAbortedError, attempts=STARTS, timeout=None):
            with attempt:
                ray.init(address=settings.ray_address, log_to_driver=False, runtime_env=told)
    except ConnectionError as error:
        said = f"no client server takes us in ({last_line(error)})"
        remedy = f"{said}: see COHOBATE_RAY_ADDRESS and COHOBATE_RAY_TOKEN_FILE"
        raise UnavailableError("Ray", settings.ray_address, remedy) from error
    try:
        yield
    finally:
        ray.shutdown()
