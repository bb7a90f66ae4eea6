"""The edge: students that answer on a device which is offline for much of the time.

This folder needs Python alone, and what a bundle of ``cohobate export`` needs: its runtime (ONNX Runtime) and NumPy. It
imports nothing of the platform and may be copied as it is, under any name.

>>> from serving.edge import Edge, Link                                         # doctest: +SKIP
>>> edge = Edge("/var/lib/edge", key="…")                                       # doctest: +SKIP
>>> edge.predict(b"an input", key="customer-7", consent="training")             # doctest: +SKIP
>>> edge.sync(Link("https://gateway.example/tickets"))                          # doctest: +SKIP
"""

from __future__ import annotations

from .edge import Edge, Synced
from .errors import EdgeError, InputError, LinkError, NotReadyError, UntrustedError
from .link import Link

__all__ = ["Edge", "EdgeError", "InputError", "Link", "LinkError", "NotReadyError", "Synced", "UntrustedError"]
