#!/usr/bin/env bash
# Opacus takes the gradients of single rows from a layer's kind, and not from how it was set: of three layers of PyTorch
# that its validator passes, the rows' gradients do not add up to the gradient, and their lengths, which rows are clipped
# by, are too small, so that one row moves the weights further than the account says.
#
# Versions: opacus 1.6.0, torch 2.13.0.
# Seen: EmbeddingBag where a row has an id more than once: the id counts once (a row of 16 times one id has a gradient 16
#   times as long as the length that it is clipped by). Conv1d with padding_mode "circular", "reflect" or "replicate": reckoned as
#   if it were padded with zeros. EmbeddingBag of mode "max": no row has a gradient at all. With distinct ids, and with zero
#   padding, all is right; no warning in either case.
# Expected: gradients of rows that add up to the gradient, or an error.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 opacus==1.6.0
cat > "$folder/look.py" <<'PYTHON'
import logging
import sys
import warnings

logging.disable(logging.WARNING)
warnings.simplefilter("ignore")
import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.validators import ModuleValidator
from torch import nn


def missing(layer, *given):
    """How far the rows' gradients of the weight are from adding up to its gradient, as a share of it."""
    torch.manual_seed(0)
    watched = GradSampleModule(layer, loss_reduction="sum")
    (watched(*given) * torch.randn(1)).square().sum().backward()
    weight = layer.weight
    return float((weight.grad_sample.sum(dim=0) - weight.grad).norm() / weight.grad.norm())


def longer(layer, *given):
    """By how much the longest of the rows' gradients is longer than the length that clipping goes by."""
    watched = GradSampleModuleFastGradientClipping(layer, loss_reduction="sum", max_grad_norm=1.0)
    losses = watched(*given).square().flatten(1).sum(dim=1)
    losses.sum().backward(retain_graph=True)
    said = watched.get_norm_sample()
    watched.disable_hooks()
    found = [torch.autograd.grad(one, layer.weight, retain_graph=True)[0].norm() for one in losses]
    return float((torch.stack(found) / said).max())


torch.manual_seed(0)
starts = torch.arange(0, 64, 16)
apart = torch.cat([torch.randperm(32)[:16] for _ in starts])
same = torch.arange(4).repeat_interleave(16)
rows = torch.randn(4, 3, 6)


def bag(mode="sum"):
    return nn.EmbeddingBag(32, 5, mode=mode)


def convolution(padding):
    return nn.Conv1d(3, 4, 3, padding=1, padding_mode=padding, bias=False)


valid = not ModuleValidator.validate(nn.Sequential(bag(), bag("max"), convolution("circular")), strict=False)
lack = {
    "ids apart": missing(bag(), apart, starts), "ids repeated": missing(bag(), same, starts),
    "mode max": missing(bag("max"), apart, starts),
    **{padding: missing(convolution(padding), rows) for padding in ("zeros", "circular", "reflect", "replicate")},
}
length = {
    "ids apart": longer(bag(), apart, starts), "ids repeated": longer(bag(), same, starts),
    "zeros": longer(convolution("zeros"), rows), "circular": longer(convolution("circular"), rows),
}
print("passed by the validator:", valid)
print("share of the gradient that the rows' lack:", {name: round(share, 3) for name, share in lack.items()})
print("a row's gradient is so many times as long as said:", {name: round(times, 3) for name, times in length.items()})
right = all(lack[name] < 1e-5 for name in ("ids apart", "zeros"))
wrong = all(lack[name] > 0.05 for name in ("ids repeated", "mode max", "circular", "reflect", "replicate"))
seen = valid and right and wrong and abs(length["ids apart"] - 1) < 1e-4 and abs(length["zeros"] - 1) < 1e-4
sys.exit(0 if seen and abs(length["ids repeated"] - 16) < 1e-3 and length["circular"] > 1.02 else 1)
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
