"""Ray Serve without pandas, which it takes where it is there, to encode data frames: nobody answers one here.

It costs 40 MB in each of Ray's processes: Serve's controller, two proxies, every replica, the driver. A decoder of the
user's that imports pandas gets it.
"""

from __future__ import annotations

from components.process import without

SETUP = "serving.ray_light.import_serve"
"""For ``worker_process_setup_hook`` of a runtime environment: Ray calls it first in every process of its own."""


def import_serve() -> None:
    """Import Ray Serve, the first time in this process."""
    with without("pandas"):
        import ray.serve  # noqa: F401
