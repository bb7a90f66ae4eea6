#!/usr/bin/env bash
# The type that a Feast view declares for a feature holds online, and not in a join: there a feature has the type that
# its file has, and whole numbers become floats as soon as the join has one entity of which nothing is known. What is
# learnt from a join and what answers are told online then differ, without a word, and as categories ("3" and "3.0")
# they have nothing in common.
#
# Versions: feast 0.67.0, duckdb 2.0.1, ibis-framework 12.0.0, pandas 2.3.3.
# Seen, with the DuckDB store and the file store (Dask) alike, for views whose features are declared as Int64:
#   a file of the whole numbers 3 and 2^53 + 1: a join of "a" alone gives them; one of "a" and an unknown entity gives
#   3.0 and 2^53 for "a"; online it is 3 and 2^53 + 1, unknown entities or not.
#   a file of the float 0.75: the join gives 0.75, the online store, materialised from that file, 0.
# Expected: one value of a feature, whoever else is asked about and wherever it is read.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  'feast[duckdb]==0.67.0' duckdb==2.0.1 ibis-framework==12.0.0 pandas==2.3.3
cat > "$folder/look.py" <<'PYTHON'
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import pandas as pd

warnings.simplefilter("ignore")

from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Int64

NOON = pd.Timestamp("2026-01-01 12:00", tz="UTC")
HOUR = timedelta(hours=1)
LARGE = 2**53 + 1


def seen(folder, store, value):
    """A feature of "a": joined alone, joined beside an unknown entity, and online beside one."""
    folder.mkdir(parents=True)
    pd.DataFrame({"key": ["a"], "at": [NOON], "value": [value]}).to_parquet(folder / "rows.parquet")
    features = FeatureStore(config=RepoConfig(
        project="p", provider="local", registry=str(folder / "registry.db"), offline_store={"type": store},
        online_store={"type": "sqlite", "path": str(folder / "online.db")}, entity_key_serialization_version=3,
    ))
    who = Entity(name="who", join_keys=["key"], value_type=ValueType.STRING)
    source = FileSource(name="s", path=str(folder / "rows.parquet"), timestamp_field="at")
    fields = [Field(name="value", dtype=Int64)]
    view = FeatureView(name="v", entities=[who], ttl=timedelta(0), schema=fields, source=source)
    features.apply([who, view])
    features.materialize(NOON - HOUR, NOON + HOUR)

    def joined(*keys):
        asked = pd.DataFrame({"key": keys, "event_timestamp": [NOON + HOUR] * len(keys)})
        rows = features.get_historical_features(entity_df=asked, features=["v:value"]).to_df()
        return rows.set_index("key")["value"].tolist()[list(rows["key"]).index("a")]

    online = features.get_online_features(["v:value"], [{"key": k} for k in ("a", "nobody")]).to_dict()
    return joined("a"), joined("a", "nobody"), online["value"][0]


found = {
    store: [seen(Path(sys.argv[1], store, str(n)), store, value) for n, value in enumerate((3, LARGE, 0.75))]
    for store in ("duckdb", "file")
}
for store, of in found.items():
    print(f"{store}: joined alone, joined beside an unknown entity, online: {of}")
expected = [(3, 3.0, 3), (LARGE, float(2**53), LARGE), (0.75, 0.75, 0)]
same = all([list(map(repr, one)) for one in of] == [list(map(repr, one)) for one in expected] for of in found.values())
sys.exit(0 if same else 1)
PYTHON
"$folder/venv/bin/python" "$folder/look.py" "$folder/made" 2>"$folder/log"
