"""False rollbacks of candidates that are no worse, looked at after every request; 2,000 rollouts for each line.

No allowance is made (every margin is 0, which is the hardest), every request is audited, and each rollout goes
through shadow, 1, 5 and 25 %. The candidate errs as often as the champion, on other inputs. The goal: at most 5 % are
taken back (the policy's ``alpha``), whatever the rates are; where both students answer the canary's inputs (*pairs*,
as the policy has it), and where each answers its own (``pairs: 0``).
"""

import time

import numpy as np

from drift.quality import proportion
from tests.bench._rollouts import POLICY, Case, Twin, make

ROLLOUTS = 2_000
CHUNK = 500
WEIGHTS = np.repeat([0.0, 0.01, 0.05, 0.25], [500, 1_500, 2_000, 2_000])

CASES = [
    *(Case(name="", errors=errors, wrong=wrong, shared=0.5) for errors in (0.001, 0.01, 0.05) for wrong in (0.05, 0.2)),
    Case(name="outage of both", errors=0.01, wrong=0.05, shared=0.5, outage=True),
]


def main() -> None:
    print(f"{ROLLOUTS} rollouts a line, {len(WEIGHTS)} requests each, a look at every one; alpha {POLICY.alpha:g}")
    for pairs in (True, False):
        print("-- pairs in the canary" if pairs else "-- one student each in the canary")
        table(pairs)


def table(pairs: bool) -> None:
    print(f"{'errors':>7} {'disagreement':>13} {'taken back':>11} {'share':>7}  95 % interval     goal  seconds")
    everywhere = 0
    for seed, case in enumerate(CASES):
        began = time.perf_counter()
        rng = np.random.default_rng(seed)
        runs = [Twin(CHUNK, pairs).run(make(case, rng, CHUNK, WEIGHTS)) for _ in range(ROLLOUTS // CHUNK)]
        false = int((np.concatenate(runs) > 0).sum())
        everywhere += false
        share = proportion(false, ROLLOUTS)
        reached = "reached" if share.value <= POLICY.alpha else "MISSED"
        interval = f"[{share.lower:.2%}, {share.upper:.2%}]"
        print(
            f"{case.errors:7.1%} {case.wrong:13.0%} {false:11d} {share.value:7.2%}  {interval}"
            f"  {reached}  {time.perf_counter() - began:7.0f}  {case.name}",
            flush=True,
        )
    total = proportion(everywhere, ROLLOUTS * len(CASES))
    print(f"in all {everywhere} of {ROLLOUTS * len(CASES)}: {total.value:.2%} [{total.lower:.2%}, {total.upper:.2%}]")
