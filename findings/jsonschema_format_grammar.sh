#!/usr/bin/env bash
# `import jsonschema` parses and compiles a grammar of internationalised addresses (RFC 3987, by lark) in every process,
# whether or not a schema ever asks for a format, once something in the environment has asked for jsonschema's extra
# `format-nongpl`: CycloneDX's library does with its extra `json-validation`. It costs about a second of processor time
# and tens of megabytes. Ray imports jsonschema in each of its processes, so that one dependency for a document that is
# written once made every worker, agent and replica of a cluster slower to start.
#
# Versions: jsonschema 4.26.0, rfc3987-syntax 1.1.0, lark 1.3.1 (by cyclonedx-python-lib[json-validation] 11.12.0).
# Seen: with the extra, lark and the grammar are loaded and compiled by the import alone, which takes many times as long
# as without it; uninstalling rfc3987-syntax is enough to be rid of it, and jsonschema says nothing.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/pip" --quiet --disable-pip-version-check "$@"; }
pip install "cyclonedx-python-lib[json-validation]==11.12.0" jsonschema==4.26.0 rfc3987-syntax==1.1.0 lark==1.3.1
look() {
  "$folder/venv/bin/python" - <<'PYTHON'
import sys
import time

began = time.process_time()
import jsonschema

loaded = [name for name in ("rfc3987_syntax", "lark") if name in sys.modules]
print(f"{1000 * (time.process_time() - began):.0f} ms, loaded: {' '.join(loaded) or 'neither'}")
PYTHON
}
with=$(look)
pip uninstall --yes rfc3987-syntax
without=$(look)
echo "with the extra: $with; without rfc3987-syntax: $without"
[[ "$with" == *"loaded: rfc3987_syntax lark" && "$without" == *"loaded: neither" ]] || exit 1
((${with%% ms*} > 3 * ${without%% ms*}))
