#!/usr/bin/env bash
# The first online read of a Feast store on SQLite imports the clients of every other online store that is installed,
# to see whether the store is one of those: the first answer of a process waits for all of these imports.
#
# Versions: feast 0.67.0, redis 8.1.0, aiobotocore 3.10.0 (Python 3.11).
# Seen: neither redis nor aiobotocore is imported when the store is opened, both are after one read of one feature.
# Expected: a store imports the client that it uses.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'feast==0.67.0' redis==8.1.0 hiredis aiobotocore==3.10.0 boto3==1.43.117
cat > "$folder/look.py" <<'PYTHON'
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import pandas as pd

warnings.simplefilter("ignore")

from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

repo = Path(sys.argv[1])
(repo / "feature_store.yaml").write_text(
    "project: shop\nprovider: local\nregistry: registry.db\nonline_store: {type: sqlite, path: online.db}\n"
    "offline_store: {type: file}\nentity_key_serialization_version: 3\n"
)
now = pd.Timestamp("2026-01-02", tz="UTC")
pd.DataFrame({"who": ["a"], "price": [0.25], "at": [now]}).to_parquet(repo / "rows.parquet")
source = FileSource(name="rows", path=str(repo / "rows.parquet"), timestamp_field="at")
who = Entity(name="who", join_keys=["who"], value_type=ValueType.STRING)
view = FeatureView(
    name="prices", entities=[who], ttl=timedelta(0), schema=[Field(name="price", dtype=Float64)], source=source
)
store = FeatureStore(repo_path=str(repo))
store.apply([who, view])
store.materialize(now - timedelta(days=1), now + timedelta(days=1))
clients = ("redis", "aiobotocore")
before = [name for name in clients if name in sys.modules]
store.get_online_features(features=["prices:price"], entity_rows=[{"who": "a"}]).to_dict()
after = [name for name in clients if name in sys.modules]
print("opened and written to:", before, "after the first read:", after)
sys.exit(0 if (before, after) == ([], ["redis", "aiobotocore"]) else 1)
PYTHON
mkdir "$folder/repo"
"$folder/venv/bin/python" "$folder/look.py" "$folder/repo" 2>/dev/null
