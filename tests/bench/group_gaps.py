"""How often the bounds of gaps between groups are broken: students whose gap is exactly the limit, by groups and rows.

``passes``: the gate lets a student through whose true gap is the limit, which is to be at most the level. ``breaks``:
it calls one broken. Both with Clopper and Pearson's intervals of the simulation at 99 %.
"""

import argparse

import numpy as np

from drift.gap import Gap
from drift.gate import Criterion, assess
from drift.measured import Share
from drift.quality import proportion

ALPHA, LIMIT = 0.05, 0.1

CASES = (
    ((60, 60), (0.9, 0.8)), ((60, 200), (0.95, 0.85)), ((400, 400), (0.9, 0.8)), ((400, 90), (0.1, 0.0)),
    ((60, 60, 60), (0.9, 0.8, 0.85)), ((150, 300, 80), (0.6, 0.5, 0.5)), ((100,) * 5, (0.9, 0.8, 0.8, 0.8, 0.8)),
)  # fmt: skip
"""Rows and true shares of each group: their largest gap is the limit."""


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2_000)
    draws = parser.parse_args(argv).draws
    wanted = [Criterion(measure="gap", at_most=LIMIT, confidence=1.0 - ALPHA, family="gap")]
    for sizes, shares in CASES:
        chance = np.random.default_rng(0)
        decisions = []
        for _ in range(draws):
            hits = chance.binomial(sizes, shares)
            groups = tuple(
                Share(hits=(True,) * int(x) + (False,) * (n - int(x)), weights=(1.0,) * n)
                for x, n in zip(hits, sizes, strict=True)
            )
            decisions.append(assess({"gap": Gap(groups=groups)}, wanted).decision)
        said = []
        for decision in ("promote", "reject"):
            found = proportion(decisions.count(decision), draws, 0.99)
            said.append(f"{100 * found.value:.2f} % ({100 * found.lower:.2f} to {100 * found.upper:.2f})")
        print(f"{sizes!s:22} {shares!s:32} passes {said[0]:26} breaks {said[1]}", flush=True)


if __name__ == "__main__":
    main()
