"""The export of one network in a process of its own: ``python -m components.distill.apart ASKED ANSWER``.

``ASKED`` is a file that :mod:`components.distill.export` wrote: the folders of the user's modules, a pickled network
and its inputs. ``ANSWER`` becomes the model with exit code 0, or with exit code 1 why there is none.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import torch

from components.contracts.errors import ConfigError
from components.contracts.spec.user_code import package_of
from components.distill.export import traced


def main(asked: str, answer: str) -> int:
    """Export what ``asked`` holds to ``answer``; returns the exit code."""
    given, sent, inputs = pickle.loads(Path(asked).read_bytes())  # noqa: S301  (written by the process that waits)
    for folder in given:
        package_of(Path(folder))
    net = pickle.loads(sent)  # noqa: S301
    try:
        with torch.no_grad():
            model = traced(net, inputs)
    except ConfigError as error:
        Path(answer).write_text(error.allowed)
        return 1
    Path(answer).write_bytes(model.SerializeToString(deterministic=True))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
