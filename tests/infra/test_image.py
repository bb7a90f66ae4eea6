"""What the image is made of, read from its Containerfile: tests/integration/test_image.py runs one that was built."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

from components.contracts.settings import IMAGE

HERE = Path("infra/deploy")
PROJECT = tomllib.loads(Path("pyproject.toml").read_text())


@pytest.fixture(scope="module")
def containerfile(tmp_path_factory):
    """Parsed; the parser opens what it reads for writing too, so that it gets a copy."""
    copy = tmp_path_factory.mktemp("image") / "Dockerfile"
    copy.write_bytes((HERE / "Containerfile").read_bytes())
    return DockerfileParser(str(copy))


def values(containerfile, instruction):
    return [line["value"] for line in containerfile.structure if line["instruction"] == instruction]


def test_the_base_is_pinned_by_digest(containerfile):
    assert containerfile.parent_images[0] == containerfile.baseimage
    assert re.fullmatch(r"docker\.io/\S+:\S+@sha256:[0-9a-f]{64}", containerfile.baseimage)
    assert {value.split()[0] for value in values(containerfile, "FROM")} == {"${BASE}"}


def test_the_list_for_sites_without_a_registry_names_each_image():
    lines = [line.split("#")[0].strip() for line in (HERE / "images.txt").read_text().splitlines()]
    (base,) = re.findall(r"^ARG BASE=(\S+)$", (HERE / "Containerfile").read_text(), flags=re.MULTILINE)
    assert [line for line in lines if line][:2] == [base, IMAGE]


def test_the_user_is_a_number_and_not_root(containerfile):
    """With ``runAsNonRoot`` and no uid, the kubelet refuses an image whose user is a name."""
    user, group = values(containerfile, "USER")[-1].split(":")
    assert int(user) > 0 and group == "0", "files that a group may read are readable to any user of OpenShift"
    last = [line["instruction"] for line in containerfile.structure]
    assert "RUN" not in last[last.index("USER") :] and "COPY" not in last[last.index("USER") :]


def test_what_is_copied_is_the_package_and_nothing_else(containerfile):
    """Neither a working tree as a whole nor what a download brings: no secret comes with it."""
    assert not values(containerfile, "ADD")
    copied = [value.split()[:-1] for value in values(containerfile, "COPY")]
    sources = {source for words in copied for source in words if words[0] != "--from=build"}
    packages = {pattern.rstrip("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert sources == packages | {"pyproject.toml", "constraints.txt", PROJECT["project"]["readme"]}
    ignored = [line for line in Path(".containerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignored[0] == "*" and {line[1:] for line in ignored if line.startswith("!")} == sources


def test_the_environment_holds_no_setting_and_no_secret(containerfile):
    assert containerfile.envs["PATH"].startswith("/opt/cohobate/bin:") and containerfile.envs["HOME"] == "/tmp"  # noqa: S108
    assert not [n for n in containerfile.envs if n.startswith("COHOBATE_") or re.search("TOKEN|SECRET|PASSWORD", n)]
    assert not [v for v in values(containerfile, "ARG") if re.search("TOKEN|SECRET|PASSWORD", v)]


def test_it_begins_with_a_command_that_the_package_installs(containerfile):
    assert json.loads(containerfile.cmd)[0] in PROJECT["project"]["scripts"]


def test_make_names_it_as_pipelines_do():
    assert re.findall(r"^IMAGE \?= (\S+)$", Path("Makefile").read_text(), flags=re.MULTILINE) == [IMAGE]
    assert IMAGE.endswith(f":{PROJECT['project']['version']}")
