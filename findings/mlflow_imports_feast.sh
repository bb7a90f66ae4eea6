#!/usr/bin/env bash
# MLflow's REST client imports all of Feast at its first request where both are installed, and Prometheus' client of
# that process, and of every child, is in multi-process mode from then on.
#
# Versions: mlflow-skinny 3.17.2, feast 0.67.0, prometheus-client 0.24.1.
# Seen: Feast registers an entry point in MLflow's group of request header providers. A program that has never named
#   Feast asks a tracking server for its registered models; afterwards feast is imported, and the environment names a
#   folder for Prometheus' client in PROMETHEUS_MULTIPROC_DIR, which Feast deletes when the process ends. A gauge that
#   takes back one of its label sets then warns that this "has not been implemented in multi-process mode", and a child
#   that inherits the variable keeps its metrics in files of that folder.
# Expected of a request for a list of models: it changes nothing of the process.
# Exits 0 while they behave so, 1 once they do not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mlflow-skinny==3.17.2 feast==0.67.0 prometheus-client==0.24.1
cat > "$folder/look.py" <<'PY'
import http.server
import os
import sys
import threading
import warnings

from mlflow.tracking import MlflowClient


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
uri = f"http://127.0.0.1:{server.server_port}"
client = MlflowClient(uri, uri)
before = "feast" in sys.modules, "PROMETHEUS_MULTIPROC_DIR" in os.environ
client.search_registered_models()
after = "feast" in sys.modules, "PROMETHEUS_MULTIPROC_DIR" in os.environ

from prometheus_client import Gauge  # noqa: E402

gauge = Gauge("lag", "of a partition", ["partition"])
gauge.labels("0").set(1)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    gauge.remove("0")
print(f"feast imported, variable set: before {before}, after {after}; warnings of a gauge: {len(said)}")
sys.exit(0 if (before, after, len(said)) == ((False, False), (True, True), 1) else 1)
PY
MLFLOW_DISABLE_TELEMETRY=true "$folder/venv/bin/python" "$folder/look.py"
