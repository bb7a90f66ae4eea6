"""Teachers of made-up inputs: one that counts words, one of a rare class, and a network of PyTorch on real digits."""

import math
from functools import cache

import numpy as np

from components.contracts.records import SoftLabel
from components.synthetic.spaces import png
from components.teachers.contract import Differentiable

KNOWN = {"animal": {"cat", "dog", "cow"}, "plant": {"oak", "fern", "moss"}, "stone": {"flint", "chalk", "slate"}}
FILLING = {f"{a}{b}{c}" for a in "bdfg" for b in "aeiou" for c in "lmnrt"}


class Words:
    """Is the surer of a class the more of its few words there are; knows 109 words."""

    name, task, space, size_bytes, digest = "words", "classification", "things@1", 1, "1" * 64
    classes = tuple(KNOWN)

    def label(self, payloads):
        return [self._one(text.split()) for text in payloads]

    def _one(self, words):
        weights = [math.exp(2.0 * sum(w in KNOWN[c] for w in words)) for c in self.classes]
        return SoftLabel.of(self.space, self.classes, [w / sum(weights) for w in weights])

    def vocabulary(self):
        return sorted(FILLING.union(*KNOWN.values()))


class Rare:
    """Finds one row in about 500 likely to be rich: old, of high income, in the north."""

    name, task, space, size_bytes, digest = "rare", "classification", "rich@1", 1, "2" * 64
    classes = ("no", "rich")

    def label(self, payloads):
        found = []
        for row in payloads:
            x = (row.get("age", 0) - 60) / 6 + (row.get("income", 0) - 4500) / 450 - 3 * (row.get("region") != "north")
            p = 1 / (1 + math.exp(-min(max(x, -30.0), 30.0)))
            found.append(SoftLabel.of(self.space, self.classes, [1 - p, p]))
        return found


@cache
def network():
    """A network with batch norms that tells scikit-learn's digits apart, trained on 800 of them."""
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    torch.set_num_threads(1)
    pixels, labels = load_digits(return_X_y=True)
    inputs = torch.from_numpy((pixels[:800] / 16.0).astype(np.float32)).view(-1, 1, 8, 8)
    goals = torch.from_numpy(labels[:800])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 48), nn.BatchNorm1d(48),
            nn.ReLU(), nn.Linear(48, 10),
        )  # fmt: skip
        optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
        for _ in range(15):
            for some in torch.randperm(800).split(100):
                loss = nn.functional.cross_entropy(net(inputs[some]), goals[some])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return net.eval()


class Digits:
    """The network, which shows itself."""

    name, task, space, size_bytes, digest = "digits", "classification", "digits@1", 1, "3" * 64
    classes = tuple("0123456789")

    def label(self, payloads):
        import torch

        with torch.no_grad():
            shares = network()(torch.from_numpy(self.numbers(payloads))).double().softmax(dim=1).numpy()
        return [SoftLabel.of(self.space, self.classes, row.tolist()) for row in shares]

    def numbers(self, payloads):
        from components.student.image import Image

        pixels = Image(height=8, width=8, colour="grey").encode(payloads)["pixels"]
        return (pixels.reshape(len(payloads), 1, 8, 8) + 1.0) / 2.0

    def differentiable(self):
        def payloads(arrays):
            return [png((255 * a[0]).round().astype(np.uint8)) for a in arrays]

        return Differentiable(module=network(), shape=(1, 8, 8), low=0.0, high=1.0, payloads=payloads)
