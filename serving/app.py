"""The gateway's import path: ``serving.app:build`` in a Serve configuration, of ``serve deploy`` or of a RayService."""

# Ray reads the type of the argument as it stands in the signature: no annotations from the future here.

from typing import Any

from serving.declaration import GatewayArgs
from serving.ray_app import application
from serving.ray_cluster import require_proxies


def build(args: GatewayArgs) -> Any:
    """The application that ``args`` declare. Serve calls this in a process on the cluster.

    Raises:
        ConfigError: a workload cannot be loaded there, a secret is missing, or the proxies are none that will do.

    """
    require_proxies(args)
    return application(args)
