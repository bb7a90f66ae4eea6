#!/usr/bin/env bash
# Feast reads a file source whose path is relative from the repository when it registers a view, and from the working
# directory when its DuckDB store joins the view.
#
# Versions: feast 0.67.0, duckdb 2.0.1, ibis-framework 12.0.0.
# Seen, for a view on "rows.parquet" beside feature_store.yaml, asked from another folder: `apply` finds the file and
#   infers from it with either offline store; the file store (Dask) joins 0.25; the duckdb store ends with an IOException
#   for no file of that name in the working directory, or would join whatever file of that name lies there.
# Expected of one path: one place.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'feast[duckdb]==0.67.0' duckdb==2.0.1 ibis-framework==12.0.0
cat > "$folder/look.py" <<'PYTHON'
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import pandas as pd

warnings.simplefilter("ignore")

from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

here = Path(sys.argv[1])
now = pd.Timestamp("2026-01-02", tz="UTC")
asked = pd.DataFrame({"who": ["a"], "event_timestamp": [now]})
who = Entity(name="who", join_keys=["who"], value_type=ValueType.STRING)
found = {}
for kind in ("file", "duckdb"):
    repo = here / kind
    repo.mkdir()
    (repo / "feature_store.yaml").write_text(
        f"project: shop\nprovider: local\nregistry: registry.db\nonline_store: {{type: sqlite, path: online.db}}\n"
        f"offline_store: {{type: {kind}}}\nentity_key_serialization_version: 3\n"
    )
    pd.DataFrame({"who": ["a"], "price": [0.25], "at": [now - pd.Timedelta("1h")]}).to_parquet(repo / "rows.parquet")
    source = FileSource(name="rows", path="rows.parquet", timestamp_field="at")
    fields = [Field(name="price", dtype=Float64)]
    view = FeatureView(name="prices", entities=[who], ttl=timedelta(0), schema=fields, source=source)
    store = FeatureStore(repo_path=str(repo))
    store.apply([who, view])
    try:
        rows = store.get_historical_features(entity_df=asked, features=["prices:price"]).to_df()
        found[kind] = rows["price"].tolist()
    except Exception as error:
        there = str(Path.cwd() / "rows.parquet") in str(error)
        found[kind] = f"{type(error).__name__} in the working directory" if there else str(error)
for kind, what in found.items():
    print(kind, what)
expected = {"file": [0.25], "duckdb": "IOException in the working directory"}
sys.exit(0 if found == expected else 1)
PYTHON
mkdir "$folder/repositories" "$folder/elsewhere"
cd "$folder/elsewhere"
"$folder/venv/bin/python" "$folder/look.py" "$folder/repositories"
