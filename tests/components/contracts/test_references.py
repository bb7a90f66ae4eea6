import pytest

from components.contracts.errors import ConfigError
from components.contracts.spec import Factory, located, placed


def test_a_path_is_absolute_or_beside_the_spec_or_within_a_package(tmp_path):
    (tmp_path / "model").mkdir()
    assert located("model", str(tmp_path), "f") == tmp_path / "model"
    assert located(str(tmp_path / "model"), "/elsewhere", "f") == tmp_path / "model"
    assert located("components/contracts/errors.py", "", "f").name == "errors.py"
    assert located("msgspec/__init__.py", str(tmp_path), "f").is_file()
    for name in ("none", "msgspec/none", "no_such_package/none", "../none"):
        with pytest.raises(ConfigError, match=rf"f is '{name}': no such file or folder: give one that is absolute"):
            located(name, str(tmp_path), "f")


def test_only_what_takes_the_spec_s_folder_is_given_it(tmp_path):
    (tmp_path / "own.py").write_text("def takes(spec_folder=''):\n    pass\ndef other(x=1):\n    pass\nthing = 3\n")
    source = str(tmp_path / "spec.yaml")

    def options(name, **given):
        return placed(Factory(factory=f"own.py:{name}", options=given), source).options

    assert options("takes") == {"spec_folder": str(tmp_path)} and options("other", x=2) == {"x": 2}
    assert options("takes", spec_folder="mine") == {"spec_folder": "mine"} and options("thing") == {}
