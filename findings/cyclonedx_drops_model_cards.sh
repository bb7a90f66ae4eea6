#!/usr/bin/env bash
# cyclonedx-python-lib takes a bill of materials of a model that its own strict validator finds valid, and loses what
# says that it is one: `modelCard` of a component of type machine-learning-model, and `data` of one of type data, are
# gone after reading and writing it again, without an error or a warning. Its components have no place for the two, so
# that whoever makes an ML-BOM with it has to add them to what it writes.
#
# Versions: cyclonedx-python-lib 11.12.0, CycloneDX 1.6.
# Seen: both documents are valid; the second one has [bom-ref name type] of each component, and no warning was given.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'cyclonedx-python-lib[json-validation]==11.12.0'
cat > "$folder/look.py" <<'PYTHON'
import json
import sys
import warnings

from cyclonedx.model.bom import Bom
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

GIVEN = {
    "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
    "components": [
        {"type": "machine-learning-model", "name": "m", "bom-ref": "m",
         "modelCard": {"modelParameters": {"task": "classification"}}},
        {"type": "data", "name": "d", "bom-ref": "d", "data": [{"type": "dataset", "name": "d"}]},
    ],
}


def valid(text):
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    again = make_outputter(Bom.from_json(GIVEN), OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
kept = sorted({name for component in json.loads(again)["components"] for name in component})
print("valid before and after:", valid(json.dumps(GIVEN)), valid(again))
print("members of the components:", kept, "warnings:", len(told))
seen = valid(json.dumps(GIVEN)) and valid(again) and kept == ["bom-ref", "name", "type"] and not told
sys.exit(0 if seen else 1)
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
