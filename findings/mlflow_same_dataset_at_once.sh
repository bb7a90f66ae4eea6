#!/usr/bin/env bash
# Two runs that log the same dataset at the same moment: MLflow's SQL store looks whether the dataset is there and then
# inserts it, so the slower of them gets BAD_REQUEST, "UNIQUE constraint failed", as if the request were wrong. Nothing
# of that run's inputs is written; asked again, it works. (Client: MlflowClient.log_inputs.)
#
# Versions: mlflow-skinny 3.17.2, sqlalchemy 2.1.9, SQLite.
# Seen: of 20 rounds of 4 runs that log one dataset each, some end so, and each of those works when it is repeated.
# Exits 0 while that is so, 1 once no round meets it or a repetition fails.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mlflow-skinny==3.17.2 sqlalchemy==2.1.9 alembic==1.20.1 pandas==2.3.3
cat > "$folder/look.py" <<'PYTHON'
import sys
import threading

from mlflow.entities import Dataset, DatasetInput
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

client = MlflowClient(sys.argv[1])
experiment = client.create_experiment("e")
refused, answers = [], set()


def log(run, digest, gate):
    dataset = DatasetInput(Dataset(name="d", digest=digest, source_type="local", source="{}"))
    gate.wait()
    try:
        client.log_inputs(run, datasets=[dataset])
    except MlflowException as error:
        answers.add(error.error_code if "UNIQUE constraint failed" in str(error) else str(error))
        refused.append((run, dataset))


for number in range(20):
    gate = threading.Barrier(4)
    runs = [client.create_run(experiment).info.run_id for _ in range(4)]
    threads = [threading.Thread(target=log, args=(run, f"{number:08d}", gate)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
for run, dataset in refused:
    client.log_inputs(run, datasets=[dataset])
    assert len(client.get_run(run).inputs.dataset_inputs) == 1
print(f"{len(refused)} of 80 refused with {answers or 'nothing'}; each was written when asked again")
sys.exit(answers != {"BAD_REQUEST"})
PYTHON
MLFLOW_DISABLE_TELEMETRY=true "$folder/venv/bin/python" "$folder/look.py" "sqlite:///$folder/m.db" 2>"$folder/log"
