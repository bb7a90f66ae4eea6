#!/usr/bin/env bash
# The same tensors with the same metadata give another safetensors file in each process: tensors are sorted, and metadata
# are in the order of a hash table that is seeded anew each time. Who names weights by the digest of their file, as
# content-addressed stores and signatures do, has a new name for the same weights as soon as they have two metadata.
#
# Versions: safetensors 0.8.0, numpy 2.4.6.
# Seen: in eight processes one array with eight metadata gives more than one digest, and without metadata, or with one, a
#   single one; PYTHONHASHSEED=0 does not change that. What is read back is the same.
# Expected: the same bytes of the same content.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
cat > "$folder/save.py" <<'PYTHON'
import hashlib
import sys

import numpy as np
from safetensors.numpy import save

names = "abcdefgh"[: int(sys.argv[1])]
data = save({"x": np.arange(3.0)}, metadata={name: name for name in names} or None)
print(hashlib.sha256(data).hexdigest())
PYTHON
digests() {
  for _ in 1 2 3 4 5 6 7 8; do PYTHONHASHSEED=0 "$folder/venv/bin/python" "$folder/save.py" "$1"; done | sort -u | wc -l
}
none=$(digests 0) one=$(digests 1) eight=$(digests 8)
echo "digests of eight processes: $none without metadata, $one with one, $eight with eight"
[ "$none" = 1 ] && [ "$one" = 1 ] && [ "$eight" -gt 1 ]
