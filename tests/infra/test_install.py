"""How the dependencies are installed: what uv is told, and when pip does it alone."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra import install

LISTED = """:env:.cert='/etc/ssl/ca.crt'
:env:.flags=''
:env:.default-timeout='180'
global.cert='/etc/ssl/ca.crt'
global.constraint='/etc/more.txt'
global.extra-index-url='https://a/simple https://b/simple'
:env:.find-links='/wheels'
install.find-links='/wheels'
download.only-binary=':all:'
"""


class Machine:
    """Runs nothing, and remembers what it was asked to; ``fails``: a word of the command that does."""

    def __init__(self, listed=LISTED, fails=None):
        self.listed, self.fails, self.commands, self.environments = listed, fails, [], []

    def __call__(self, command, **options):
        self.commands.append(list(command))
        self.environments.append(options.get("env"))
        if self.fails in command:
            raise subprocess.CalledProcessError(2, command)
        return subprocess.CompletedProcess(command, 0, self.listed if "config" in command else "")


def test_uv_is_told_the_places_that_pip_is_configured_with():
    assert install.places(LISTED) == [
        "--constraint", "/etc/more.txt", "--extra-index-url", "https://a/simple", "--extra-index-url",
        "https://b/simple", "--find-links", "/wheels",
    ]  # fmt: skip
    assert install.environment(LISTED, {"A": "b"}) == {"SSL_CERT_FILE": "/etc/ssl/ca.crt", "A": "b"}
    assert install.environment(LISTED, {"SSL_CERT_FILE": "/mine"})["SSL_CERT_FILE"] == "/mine"


def test_pip_brings_torch_and_uv_the_rest_by_the_same_constraints():
    machine = Machine()
    install.with_uv(["-e", ".[dev]"], machine)
    (torch,) = [c for c in machine.commands if c[-1] == "torch"]
    assert torch[1:3] == ["-m", "pip"] and torch[-3:-1] == ["-c", "constraints.txt"]
    last = machine.commands[-1]
    assert Path(last[0]).name == "uv" and last[1:3] == ["pip", "install"] and last[-2:] == ["-e", ".[dev]"]
    assert last[last.index("--python") + 1] == sys.executable and "constraints.txt" in last and "/wheels" in last
    assert machine.environments[-1]["SSL_CERT_FILE"]


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        (Machine("global.only-binary=':all:'\n"), "only-binary"),
        (Machine(fails="torch"), "python.* failed"),
        (Machine(fails="--index-strategy"), "uv failed"),
    ],
)
def test_what_uv_cannot_do_is_said(machine, why):
    with pytest.raises(install.CannotError, match=why):
        install.with_uv(["-e", "."], machine)


def test_pip_does_alone_what_has_flags_and_what_uv_cannot(monkeypatch, capsys):
    done = []
    monkeypatch.setattr(install, "with_pip", lambda requirement, flags: done.append((requirement, flags)) or 7)
    monkeypatch.setattr(install, "with_uv", lambda requirement: done.append("uv"))
    monkeypatch.setenv("PIP_FLAGS", "--no-index --find-links 'a b'")
    assert install.main(["."]) == 7
    assert done == [(["-e", "."], ["--no-index", "--find-links", "a b"])]
    monkeypatch.delenv("PIP_FLAGS")
    assert install.main([".[mail]"]) == 0 and done.pop() == "uv"
    monkeypatch.setattr(install, "with_uv", done.append)
    assert install.main(["--no-editable", "."]) == 0 and done.pop() == ["."], "an image holds a copy"

    def cannot(_):
        raise install.CannotError("uv is not there")

    monkeypatch.setattr(install, "with_uv", cannot)
    assert install.main(["."]) == 7 and done[-1] == (["-e", "."], [])
    assert capsys.readouterr().err == "uv is not there: pip goes on alone, which takes longer\n"


def test_it_runs_without_any_package():
    done = subprocess.run(
        [sys.executable, "-I", "-S", "infra/install.py", "--help"], capture_output=True, text=True, check=True
    )
    assert "requirement" in done.stdout


def test_the_converter_s_environment_is_pinned_within_what_the_extra_allows():
    """TensorFlow's stack does not go with ``constraints.txt``: CI and the docs install it by a file of its own."""
    pins = dict(line.split("==") for line in Path("requirements-litert.txt").read_text().split())
    extra = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]["litert"]
    for wanted in map(Requirement, extra):
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), wanted
    assert {"onnx", "onnxruntime", "numpy", "psutil"} <= pins.keys(), "onnx2tf and its tests import them undeclared"
    served = dict(line.split("==") for line in Path("constraints.txt").read_text().split() if "==" in line)
    assert pins["ai-edge-litert"] == served["ai-edge-litert"], "what converts is what is served by"
    assert "own_environment litert -r requirements-litert.txt" in Path(".ci/run").read_text()
