import re
from pathlib import Path

import pytest

from components.contracts.errors import ConfigError
from components.federation.agreement import read_agreement, site_of_key
from tests.keys import keys

GOOD = """
name: banks
space: mail@1
classes: [ham, spam]
sites:
  north: {key: north.pub}
  south: {key: south.pub, weight: 2.0}
"""


@pytest.fixture
def folder(tmp_path):
    for name in ("north", "south"):
        keys(tmp_path, name)
    return tmp_path


def written(folder, text):
    (folder / "federation.yaml").write_text(text)
    return folder / "federation.yaml"


def test_keys_lie_beside_the_agreement(folder):
    found = read_agreement(written(folder, GOOD))
    assert (found.rule, found.min_sites, found.most_distance) == ("mean", 2, None)
    assert found.sites["south"].weight == 2.0 and set(site_of_key(found).values()) == {"north", "south"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("name: banks\n", ""), "name"),
        (("banks", "Our Banks"), "name"),
        (("mail@1", "''"), "space"),
        (("[ham, spam]", "[ham]"), "must name two or more classes"),
        (("[ham, spam]", "[ham, ham]"), "each once"),
        (("[ham, spam]", "[ham, '']"), "no text"),
        (("south.pub", "none.pub"), r"^sites\.south\.key is .*: must be a public key in PEM"),
        (("south.pub", "north.pub"), "is the key of north too"),
        (("2.0", "0"), "weight"),
        (("2.0", "2.0, classes: [eggs]"), r"sites\.south\.classes is \['eggs'\]: must be some of the agreement's"),
        (("2.0", ".inf"), "must be a finite number"),
        (("south:", "South Office:"), "federation.yaml"),
        (("space:", "rule: median\nspace:"), "rule"),
        (("space:", "min_sites: 1\nspace:"), "must be 2 to the 2 sites"),
        (("space:", "min_sites: 3\nspace:"), "must be 2 to the 2 sites"),
        (("space:", "most_distance: 1.5\nspace:"), "most_distance"),
        (("space:", "temperature: 0\nspace:"), "temperature"),
        (("space:", "temperature: 2\nspace:"), "temperature"),
        (("space:", "unknown: 1\nspace:"), "unknown"),
        (("space:", ": ["), "must be the YAML file of a federation"),
    ],
)
def test_a_bad_value_is_named(folder, change, told):
    with pytest.raises(ConfigError, match=told) as refused:
        read_agreement(written(folder, GOOD.replace(*change)))
    assert "\n" not in str(refused.value)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        read_agreement(tmp_path / "none.yaml")


def test_the_documentation_s_agreement_is_one(tmp_path):
    doc = (Path(__file__).parents[3] / "docs" / "federated.md").read_text()
    (example,) = re.findall(r"```yaml\n(name:.*?)```", doc, re.S)
    for name in ("north", "south", "west", "coast"):
        keys(tmp_path, name)
    found = read_agreement(written(tmp_path, example))
    assert found.min_sites == 3 and found.sites["west"].weight == 0.5
