#!/usr/bin/env bash
# MLflow's REST client sends "create model version" again when the answer to it was lost, and MLflow makes a second one.
#
# Versions: mlflow-skinny 3.17.2, urllib3 2.5.0.
# Seen: MlflowClient.create_model_version against a server that carries the request out and closes the connection
#   before it answers (a restart, a proxy's time-out). The client repeats the POST (its Retry allows every method), so
#   that the server has carried it out twice; the caller gets the second version and no word of the first.
# Expected of a request that is not idempotent: it fails, and the caller looks.
# Exits 0 while the client behaves so, 1 once it does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mlflow-skinny==3.17.2 urllib3==2.5.0
cat > "$folder/look.py" <<'PY'
import http.server
import json
import sys
import threading

from mlflow.tracking import MlflowClient

made = []


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        if not self.path.endswith("/model-versions/create"):
            self.send_error(404)
            return
        made.append(len(made) + 1)
        if len(made) == 1:  # carried out, but the answer is lost
            self.close_connection = True
            return
        version = {"name": "m", "version": str(made[-1]), "status": "READY"}
        body = json.dumps({"model_version": version}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = MlflowClient(f"http://127.0.0.1:{server.server_port}", f"http://127.0.0.1:{server.server_port}")
try:
    got = client.create_model_version("m", "file:///nowhere", await_creation_for=0).version
except Exception as error:
    got = type(error).__name__
print(f"versions made: {made}; the caller got: {got}")
sys.exit(0 if (made, str(got)) == ([1, 2], "2") else 1)
PY
MLFLOW_DISABLE_TELEMETRY=true "$folder/venv/bin/python" "$folder/look.py"
