#!/usr/bin/env bash
# safetensors writes a NumPy array's memory under the array's shape, whatever the order that the memory is in: of a
# transposed array, one in Fortran's order, or one whose axis is turned round, other numbers come back than were given,
# of the right shape and type, and nothing is said. Weights that are turned for another runtime before they are saved
# (x @ W for W @ x) are such arrays. The same with PyTorch's tensors is an error.
#
# Versions: safetensors 0.8.0, numpy 2.4.6.
# Seen: of [[0, 1, 2], [3, 4, 5]].T comes back [[0, 1], [2, 3], [4, 5]]; np.asfortranarray and [::-1] are mixed up alike;
#   np.ascontiguousarray of any of them comes back as it was.
# Expected: the array, or an error as for tensors.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
cat > "$folder/look.py" <<'PYTHON'
import sys

import numpy as np
from safetensors.numpy import load, save

plain = np.arange(6, dtype=np.float32).reshape(2, 3)
given = {"plain": plain, "transposed": plain.T, "in Fortran's order": np.asfortranarray(plain), "turned": plain[::-1]}


def same(array):
    found = load(save({"x": array}))["x"]
    return found.shape == array.shape and bool((found == array).all())


kept = {name: (same(array), same(np.ascontiguousarray(array))) for name, array in given.items()}
back = load(save({"x": plain.T}))["x"].tolist()
print("the same again as it is, and made contiguous:", kept, "of the transposed:", back)
right = (False, True)
expected = {"plain": (True, True), "transposed": right, "in Fortran's order": right, "turned": right}
sys.exit(0 if kept == expected and back == [[0, 1], [2, 3], [4, 5]] else 1)
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
