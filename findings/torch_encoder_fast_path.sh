#!/usr/bin/env bash
# A TransformerEncoder of PyTorch answers otherwise once gradients are off: in eval() and under no_grad it takes another
# path, in which places that are padding come out as zeros, and a batch with a row of padding alone is an error. With
# gradients, in training, and in what torch.onnx exports, the same weights give numbers there. So what is measured with
# no_grad (a validation, a temperature) is not what was trained, and not what serves.
#
# Versions: torch 2.13.0, onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.32.0.
# Seen, dropout 0, three rows of which two are padded: the mean over all places differs by more than 0.1 between eval()
#   with and without gradients; eval() with gradients, train() and the exported file agree. The mean over real places
#   alone agrees everywhere. A row of padding alone raises a RuntimeError under no_grad only. With
#   torch.backends.mha.set_fastpath_enabled(False) all of them agree.
# Expected: one answer of one set of weights, whether or not somebody wants its gradient.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0
cat > "$folder/look.py" <<'PYTHON'
import logging
import sys
import warnings

logging.disable(logging.WARNING)
warnings.simplefilter("ignore")
import numpy as np
import onnxruntime
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
IDS = torch.tensor([[1, 2, 3, 0, 0, 0], [4, 5, 6, 7, 8, 9], [8, 9, 0, 0, 0, 0]])


class Net(nn.Module):
    def __init__(self, real_alone):
        super().__init__()
        self.embedding, self.head, self.real_alone = nn.Embedding(50, 16), nn.Linear(16, 3), real_alone
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, ids):
        padding = ids.eq(0)
        states = self.encoder(self.embedding(ids), src_key_padding_mask=padding)
        if not self.real_alone:
            return self.head(states.mean(dim=1))
        real = (~padding).unsqueeze(2).float()
        return self.head((states * real).sum(dim=1) / real.sum(dim=1))


def answers(net, fast=True):
    torch.backends.mha.set_fastpath_enabled(fast)
    with torch.no_grad():
        without = net.eval()(IDS).numpy()
        training = net.train()(IDS).numpy()
    with_gradients = net.eval()(IDS).detach().numpy()
    sizes = ({0: torch.export.Dim("B"), 1: torch.export.Dim("L")},)
    made = torch.onnx.export(net, (IDS,), dynamo=True, dynamic_shapes=sizes, input_names=["ids"], verbose=False)
    session = onnxruntime.InferenceSession(made.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    file = session.run(None, {"ids": IDS.numpy()})[0]
    return [float(np.abs(other - training).max()) for other in (without, with_gradients, file)]


def padding_alone(net):
    torch.backends.mha.set_fastpath_enabled(True)
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(2, 4, dtype=torch.long))
    except RuntimeError:
        return "an error"
    return "an answer"


everything, real = Net(False), Net(True)
found = answers(everything), answers(real), answers(everything, fast=False)
empty = padding_alone(everything)
print("difference from train(): eval() without gradients, with them, the exported file")
for name, of in zip(("mean over all places", "over real places", "over all, fast path off"), found, strict=True):
    print(f"  {name}: {of[0]:.2g}, {of[1]:.2g}, {of[2]:.2g}")
print("rows of padding alone, without gradients:", empty)
far = found[0].pop(0) > 0.1
sys.exit(0 if far and empty == "an error" and max(map(max, found)) < 1e-4 else 1)
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
