#!/usr/bin/env bash
# Ray 2.60.0 reads all its settings (RAY_...) once, while it is imported: what is put into the environment later, by a
# process that was forked from one with Ray imported, say, is not seen. Among them is the id of the job that the raylet
# gives each worker it starts (RAY_JOB_ID), without which a worker aborts. So a worker cannot be forked from a process
# that has imported Ray; it can be from one that has imported all else (PyTorch, pandas), which is most of the time.
# Seen: "set before the import 4242, after it 3000".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install --quiet ray==2.60.0

cat > "$folder/read.py" <<'PYTHON'
import os
import sys

if sys.argv[1] == "before":
    os.environ["RAY_health_check_period_ms"] = "4242"
from ray._raylet import Config

os.environ["RAY_health_check_period_ms"] = "4242"
print(Config.health_check_period_ms())
PYTHON

before=$("$folder/venv/bin/python" "$folder/read.py" before)
after=$("$folder/venv/bin/python" "$folder/read.py" after)
echo "set before the import $before, after it $after"
[ "$before" = 4242 ] && [ "$after" != 4242 ]
