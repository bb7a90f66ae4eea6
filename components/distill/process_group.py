"""The process group of workers that train one student, of which each is reached where its Ray node is."""

from __future__ import annotations

import os
from typing import Any

import psutil
import ray
from ray.train.backend import Backend
from ray.train.torch import TorchConfig


class Reachable(TorchConfig):  # type: ignore[misc]
    """Ray Train's own process group, made once each worker listens at the address of its node.

    Gloo (PyTorch 2.13) listens where a host's own name leads, which on a plain Debian is 127.0.1.1, and on a host whose
    name nobody knows 127.0.0.1, and tells the others that address: workers on two hosts do not find each other.
    """

    @property
    def backend_cls(self) -> type[Backend]:
        """What makes the group."""
        theirs: Any = super().backend_cls

        class Ours(theirs):  # type: ignore[misc]
            def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
                worker_group.execute(own_interface)
                super().on_start(worker_group, backend_config)

        return Ours


def own_interface() -> None:
    """Name the interface of this node's address to Gloo (``GLOO_SOCKET_IFNAME``), where nobody named one."""
    node = ray.get_runtime_context().get_node_id()
    address = next(one["NodeManagerAddress"] for one in ray.nodes() if one["NodeID"] == node)
    for name, known in psutil.net_if_addrs().items():
        if address in {one.address for one in known}:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
