#!/usr/bin/env bash
# torch-pruning cuts a layer whose weights are shared with another one, and shares them no more, without a word: the two
# are two from then on, one cut and one whole, and a network that was to become smaller may have more numbers than before.
#
# Versions: torch-pruning 1.6.1, torch 2.13.0.
# Seen: a network whose second Linear has its Embedding's table as weights (as language models tie them), a quarter of
#   each layer cut: the Linear has rows of its own afterwards, the Embedding's table is as it was, and the parameters have
#   become more by a quarter or more. The same network without sharing has become smaller.
# Expected: both cut alike, or an error.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 torch-pruning==1.6.1
cat > "$folder/look.py" <<'PYTHON'
import sys
import warnings

warnings.simplefilter("ignore")
import torch
import torch_pruning
from torch import nn


class Net(nn.Module):
    def __init__(self, tied):
        super().__init__()
        self.table, self.middle = nn.Embedding(200, 16), nn.Linear(16, 16)
        self.back, self.head = nn.Linear(16, 200, bias=False), nn.Linear(200, 3)
        if tied:
            self.back.weight = self.table.weight

    def forward(self, ids):
        return self.head(self.back(torch.relu(self.middle(self.table(ids).mean(dim=1)))))


def cut(tied):
    torch.manual_seed(0)
    net = Net(tied)
    before = sum(p.numel() for p in net.parameters())
    torch_pruning.pruner.BasePruner(
        net, torch.randint(0, 200, (2, 5)), importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.25, ignored_layers=[net.head],
    ).step()
    after = sum(p.numel() for p in net.parameters())
    return before, after, net.back.weight is net.table.weight, tuple(net.table.weight.shape), tuple(net.back.weight.shape)


tied, apart = cut(True), cut(False)
print("numbers before and after, still shared, table, product:", tied, "never shared:", apart)
seen = tied[1] > 1.25 * tied[0] and tied[2:4] == (False, (200, 16)) and tied[4] != (200, 16) and apart[1] < apart[0]
sys.exit(0 if seen else 1)
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
