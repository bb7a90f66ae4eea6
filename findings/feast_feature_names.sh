#!/usr/bin/env bash
# Feast gives some features' names to columns of its own while it joins point in time, and takes any name when a view is
# registered. What becomes of such a feature depends on the offline store, and one of the two says nothing.
#
# Versions: feast 0.67.0, duckdb 2.0.1, ibis-framework 12.0.0.
# Seen, for a view of one feature with the values 0.25 and 0.75:
#   duckdb store: "price" is read; "rn" and "event_timestamp" end with an error of Ibis, after `apply` took them.
#   file store (Dask): "price" and "rn" are read; for "event_timestamp" the times that were asked for come back in place
#   of the feature's values, without a word.
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

from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64

ASKED = pd.Timestamp("2026-01-02", tz="UTC")


def read(folder, store, name):
    """The two values of a feature of this name; what came in their place; or the error."""
    folder.mkdir(parents=True)
    written = pd.Timestamp("2026-01-01", tz="UTC")
    rows = pd.DataFrame({"key": ["a", "b"], "event_time": [written, written], name: [0.25, 0.75]})
    rows.to_parquet(folder / "rows.parquet")
    config = RepoConfig(
        project="p", provider="local", registry=str(folder / "registry.db"), offline_store={"type": store},
        online_store={"type": "sqlite", "path": str(folder / "online.db")}, entity_key_serialization_version=3,
    )
    features = FeatureStore(config=config)
    who = Entity(name="who", join_keys=["key"], value_type=ValueType.STRING)
    source = FileSource(name="s", path=str(folder / "rows.parquet"), timestamp_field="event_time")
    view = FeatureView(
        name="v", entities=[who], ttl=timedelta(0), schema=[Field(name=name, dtype=Float64)], source=source
    )
    features.apply([who, view])
    asked = pd.DataFrame({"key": ["a", "b"], "event_timestamp": [ASKED, ASKED]})
    try:
        found = features.get_historical_features(entity_df=asked, features=[f"v:{name}"]).to_df()
    except Exception as error:
        return "error" if type(error).__module__.startswith("ibis") else repr(error)
    values = sorted(found[name])
    return "values" if values == [0.25, 0.75] else "times" if values == [ASKED, ASKED] else repr(values)


names = ("price", "rn", "event_timestamp")
seen = {store: [read(Path(sys.argv[1], store, n), store, n) for n in names] for store in ("duckdb", "file")}
print(seen)
sys.exit(seen != {"duckdb": ["values", "error", "error"], "file": ["values", "values", "times"]})
PYTHON
"$folder/venv/bin/python" "$folder/look.py" "$folder/made" 2>"$folder/log"
