#!/usr/bin/env bash
# Of a Feast source of several Parquet files, the DuckDB store reads all with the column types of the first one by name,
# and rounds what does not fit: prices that happen to be whole in the first file make 0.75 in the second one a 1, in
# joins and in what is materialised, though the view declares floats. pandas writes such files by itself: a column of
# whole numbers is int64, one with a fraction or a gap double.
#
# Versions: feast 0.67.0, duckdb 2.0.1, ibis-framework 12.0.0.
# Seen, for a view of one Float64 feature over FOLDER/*.parquet, one file of [1] (int64), one of [0.75] (double):
#   duckdb store: 0.75 is read as 1, joined and online, where the file of whole numbers comes first; right where it comes
#   second. File store (Dask): right in either order. Neither says a word.
# Expected: the declared type, or an error that the files disagree.
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

NOON = pd.Timestamp("2026-01-01 12:00", tz="UTC")
HOUR = timedelta(hours=1)
WHOLE, PARTS = ("a", 1), ("b", 0.75)


def seen(folder, store, *files):
    """What is read of "b", joined and online."""
    (folder / "rows").mkdir(parents=True)
    for n, (key, price) in enumerate(files):
        pd.DataFrame({"key": [key], "at": [NOON], "price": [price]}).to_parquet(folder / "rows" / f"{n}.parquet")
    features = FeatureStore(config=RepoConfig(
        project="p", provider="local", registry=str(folder / "registry.db"), offline_store={"type": store},
        online_store={"type": "sqlite", "path": str(folder / "online.db")}, entity_key_serialization_version=3,
    ))
    who = Entity(name="who", join_keys=["key"], value_type=ValueType.STRING)
    source = FileSource(name="s", path=str(folder / "rows" / "*.parquet"), timestamp_field="at")
    fields = [Field(name="price", dtype=Float64)]
    view = FeatureView(name="v", entities=[who], ttl=timedelta(0), schema=fields, source=source)
    features.apply([who, view])
    features.materialize(NOON - HOUR, NOON + HOUR)
    asked = pd.DataFrame({"key": ["b"], "event_timestamp": [NOON + HOUR]})
    joined = features.get_historical_features(entity_df=asked, features=["v:price"]).to_df()
    online = features.get_online_features(["v:price"], [{"key": "b"}]).to_dict()
    return float(joined["price"][0]), online["price"][0]


found = {
    store: (seen(Path(sys.argv[1], store, "1"), store, WHOLE, PARTS), seen(Path(sys.argv[1], store, "2"), store, PARTS, WHOLE))
    for store in ("duckdb", "file")
}
print("0.75 (joined, online) with the whole number in the first file, and in the second:", found)
right = (0.75, 0.75)
sys.exit(0 if found == {"duckdb": ((1.0, 1.0), right), "file": (right, right)} else 1)
PYTHON
"$folder/venv/bin/python" "$folder/look.py" "$folder/made" 2>"$folder/log"
