#!/usr/bin/env bash
# Hypothesis with `derandomize=True` gives a property other examples once one more module of the project is imported:
# a twentieth of what it draws are constants that it reads from the source of all local modules that are loaded at that
# moment. So the examples of a suite hang on which tests ran before and what they imported (in random order, or spread
# over processes, on chance), and a property that fails for one of them fails in some runs alone. No setting turns it
# off.
#
# Versions: hypothesis 6.170.17.
# Seen: two runs of a property draw the same; after the import of a module that holds six constants it draws others,
# among them some of these.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check hypothesis==6.170.17
mkdir "$folder/project"
echo 'NUMBERS = [918273645, 555444333, 777888999, 313370017, 246813579, 135792468]' > "$folder/project/constants.py"
cat > "$folder/project/look.py" <<'PYTHON'
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

drawn = []


@settings(derandomize=True, deadline=None)
@given(st.integers(), st.floats())
def holds(number, real):
    drawn.append((number, repr(real)))


def run():
    drawn.clear()
    holds()
    return list(drawn)


first, again = run(), run()
import constants  # noqa: E402

after = run()
found = sorted({number for number, _ in after} & set(constants.NUMBERS))
print("the same without an import:", first == again, "and after one:", first == after, "of its constants:", len(found))
sys.exit(0 if first == again != after and found else 1)
PYTHON
cd "$folder/project"
"$folder/venv/bin/python" look.py
