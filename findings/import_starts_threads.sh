#!/usr/bin/env bash
# Importing pyarrow or onnxruntime starts a thread of the system that Python does not count, so that a process which
# imports first and forks then, as fork servers do to be quick, forks one with threads without knowing it.
#
# Versions: pyarrow 25.0.1, onnxruntime 1.32.0, numpy 2.4.6 (Linux).
# Seen: after the import alone, with nothing called, /proc/self/task has one thread more than threading counts.
#   pyarrow's is its allocator's (jemalloc_bg_thd), onnxruntime's bears the process' own name; numpy with one OpenBLAS
#   thread has none. What a fork finds of such a thread are its locks, as they happened to be.
# Expected: an import that starts no thread; libraries' threads begin with the first call.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==25.0.1 onnxruntime==1.32.0 numpy==2.4.6
cat > "$folder/look.py" <<'PYTHON'
import importlib
import os
import sys
import threading

importlib.import_module(sys.argv[1])
tasks = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
print(len(tasks) - threading.active_count(), *sorted(tasks))
PYTHON
seen() { OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/look.py" "$1"; }
for module in numpy pyarrow onnxruntime; do
  echo "$module: threads that threading does not count, and all by name: $(seen $module)"
done
[ "$(seen numpy | cut -d' ' -f1)" = 0 ]
[ "$(seen pyarrow | cut -d' ' -f1)" = 1 ] && seen pyarrow | grep -q jemalloc_bg_thd
[ "$(seen onnxruntime | cut -d' ' -f1)" = 1 ]
