"""A small teacher of letters that shows what it knows inside."""

import numpy as np

from components.contracts.records import SoftLabel
from components.contracts.storage import digest_of
from components.teachers.contract import States

LETTERS = b"abcdefghijklmnopqrstuvwxyz"
DIGEST = digest_of(b"letters")


class Letters:
    """Says which letter there is most of; knows inside how many of each there are, and each byte by its place."""

    name, digest, task, space, classes, size_bytes = "t", DIGEST, "classification", "letters@1", ("a", "b"), 0
    asked = 0

    def label(self, payloads):
        shares = self.states(payloads, ["shares"]).arrays["shares"][:, :2] + 1e-3  # a and b
        return [SoftLabel.of(self.space, self.classes, (row / row.sum()).tolist()) for row in shares]

    def states(self, payloads, names):
        type(self).asked += len(payloads)
        made = {
            "shares": np.array([[p.count(c) / max(len(p), 1) for c in LETTERS] for p in payloads], dtype=np.float32),
            "wide": np.zeros((len(payloads), 1 << 20), dtype=np.float32),
        }
        return States(arrays={name: made[name] for name in names})


class Embedding(Letters):
    """One that shows what it knows as an embedding, or has a ``fault``."""

    fault = ""

    def states(self, payloads, names):
        shares = super().states(payloads, ["shares"]).arrays["shares"]
        if self.fault == "raises" and len(payloads) > 1:
            raise ValueError("takes one at a time")
        if self.fault == "nan":
            shares[-1] = np.nan
        if self.fault == "deep":
            shares = shares[:, :, None, None]
        return States(arrays=dict.fromkeys(names, shares))
