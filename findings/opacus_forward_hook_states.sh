#!/usr/bin/env bash
# Opacus does not see what a loss takes from a layer by a forward hook: the layer's gradients of single rows lack that
# part, without a word, so that clipping them bounds less than the whole.
#
# Versions: opacus 1.6.0, torch 2.13.0.
# Seen: a layer's output is read by register_forward_hook, as distillation from inner states does, and the loss is a sum
#   over the network's output and over what the hook read. The rows' gradients that Opacus keeps for that layer
#   (grad_sample) add up to the gradient of the first part alone, while the layer's grad has both. Where the network
#   returns the state beside its output, both have both. PyTorch puts the function that full backward hooks hang on
#   around a module's output after the module's forward hooks have run.
# Expected: gradients of rows that add up to the gradient, or an error.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 opacus==1.6.0
cat > "$folder/look.py" <<'PYTHON'
import sys
import warnings

warnings.simplefilter("ignore")
import torch
from opacus.grad_sample import GradSampleModule
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, rows):
        state = self.inner(rows)
        return self.head(torch.relu(state)), state


def missing(by_hook):
    """Of the inner layer: how far the rows' gradients are from adding up to the gradient, as a share of it."""
    torch.manual_seed(0)
    net, caught = Net(), {}
    net.inner.register_forward_hook(lambda _module, _given, out: caught.update(state=out))
    watched = GradSampleModule(net, loss_reduction="sum")
    out, returned = watched(torch.randn(8, 5))
    state = caught["state"] if by_hook else returned
    (out.square().sum() + state.square().sum()).backward()
    weight = net.inner.weight
    return float((weight.grad_sample.sum(dim=0) - weight.grad).norm() / weight.grad.norm())


by_hook, returned = missing(True), missing(False)
print(f"share of the gradient that the rows' gradients lack: read by a hook {by_hook:.3f}, returned {returned:.6f}")
sys.exit(0 if by_hook > 0.1 and returned < 1e-5 else 1)
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
