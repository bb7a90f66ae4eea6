#!/usr/bin/env bash
# What MLflow calls the latest value of a metric is the largest one of its last step and millisecond: a loss that is
# logged again within a millisecond, or with the time of its run, as whoever corrects or repeats an evaluation does, stays
# as bad as it was; an accuracy stays as good. Not a number never takes the place of a number, and infinity is a number.
# Searches and orders go by that value.
#
# Versions: mlflow-skinny 3.17.2, sqlalchemy 2.1.9 (SQLite).
# Seen: logged with one step and time, 0.9 and then 0.1 is 0.9, 0.1 and then 0.9 is 0.9, 0.5 and then NaN is 0.5, NaN and
#   then 0.5 is 0.5. With a smaller time, though logged later, 0.1 does not count. Infinity is 1.7976931348623157e+308.
#   The history has all of them.
# Expected: what was logged last.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mlflow-skinny==3.17.2 sqlalchemy==2.1.9 alembic==1.20.1 pandas==2.3.3
cat > "$folder/look.py" <<'PYTHON'
import math
import sys

from mlflow.tracking import MlflowClient

client = MlflowClient(sys.argv[1])
run = client.create_run(client.create_experiment("e")).info.run_id
NAN = math.nan
LOGGED = {
    "falls": [(0.9, 1000), (0.1, 1000)], "rises": [(0.1, 1000), (0.9, 1000)], "breaks": [(0.5, 1000), (NAN, 1000)],
    "mends": [(NAN, 1000), (0.5, 1000)], "earlier": [(0.9, 2000), (0.1, 1000)], "later": [(0.9, 1000), (0.1, 2000)],
    "endless": [(math.inf, 1000)],
}
for name, values in LOGGED.items():
    for value, time in values:
        client.log_metric(run, name, value, timestamp=time, step=0)
latest = client.get_run(run).data.metrics
counts = {name: len(client.get_metric_history(run, name)) for name in LOGGED}
below = client.search_runs([client.get_run(run).info.experiment_id], "metrics.falls < 0.5")
print("latest:", latest, "found with falls < 0.5:", len(below))
expected = {
    "falls": 0.9, "rises": 0.9, "breaks": 0.5, "mends": 0.5, "earlier": 0.9, "later": 0.1, "endless": sys.float_info.max,
}
seen = latest == expected and not below and counts == {name: len(values) for name, values in LOGGED.items()}
sys.exit(0 if seen else 1)
PYTHON
MLFLOW_DISABLE_TELEMETRY=true "$folder/venv/bin/python" "$folder/look.py" "sqlite:///$folder/m.db" 2>"$folder/log"
