#!/usr/bin/env bash
# torchdistill's similarity-preserving loss brings the rows of its similarity matrices to length 1 in the L1 norm; the
# paper (arXiv 1907.09682) says L2.
#
# Versions: torchdistill 1.1.5, torch 2.13.0, numpy 2.4.4.
# Seen, for random rows, 12 wide against 8 wide: of 16 rows SPKDLoss is 0.0087, the paper's 1/B² ||G student - G teacher||²
#   with rows at L1 length 1; at L2 length 1 that is 0.0765. Of 256 rows 0.000046 against 0.0075. The call is
#   normalize(matrix, 1), whose second argument is the norm's order p, and not the dimension. A weight that was chosen for
#   the paper's loss is then too small by 9 to 160 times, the more the larger the batch.
# Expected: rows at L2 length 1.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.4
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps torchdistill==1.1.5
cat > "$folder/look.py" <<'PYTHON'
import sys

import torch
from torchdistill.losses.mid_level import SPKDLoss

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.manual_seed(0)


def paper(student, teacher, order):
    """The loss with rows of similarities at length 1 in a norm of this order."""
    sides = []
    for states in (student, teacher):
        similarity = states @ states.T
        sides.append(similarity / similarity.abs().pow(order).sum(dim=1, keepdim=True).pow(1 / order))
    return float((sides[0] - sides[1]).square().sum() / len(student) ** 2)


def seen(rows):
    student, teacher = torch.randn(rows, 8), torch.randn(rows, 12)
    loss = SPKDLoss("m", "m", "batchmean")
    found = float(loss({"m": {"output": student}}, {"m": {"output": teacher}}))
    print(f"{rows} rows: {found:.6f}; L1 {paper(student, teacher, 1):.6f}; L2 {paper(student, teacher, 2):.6f}")
    return abs(found - paper(student, teacher, 1)) < 1e-12, paper(student, teacher, 2) / found


(small, factor), (large, more) = seen(16), seen(256)
sys.exit(0 if small and large and factor > 5 and more > 2 * factor else 1)
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
