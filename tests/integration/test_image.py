"""An image that was built, from within: as a user whom it does not know, with nothing writable but /tmp."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.container import STRANGER
from tests.ports import free_ports

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif("COHOBATE_TEST_IMAGE" not in os.environ, reason="COHOBATE_TEST_IMAGE names no image"),
]


def inside(image, *words, **settings):
    command, env = [*image.words(writable=()), *words], image.env | settings
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_its_user_is_a_number(image):
    assert image.user == "10001:0"


def test_what_pods_call_is_on_the_path(image):
    names = ("python3", "sh", "bash", "wget", "grep", "cohobate")
    script = 'for name in "$@"; do command -v "$name"; done; id -u; pwd; ! touch /x /opt/x 2>&1'
    shown = inside(image, "sh", "-c", script, "sh", *names).splitlines()
    assert [place.rpartition("/")[2] for place in shown[:6]] == list(names)
    assert shown[0] == "/opt/cohobate/bin/python3" and shown[5] == "/opt/cohobate/bin/cohobate"
    assert (int(shown[6]), shown[7]) == (STRANGER, image.workdir)
    assert len(shown) == 10 and all("Read-only file system" in line for line in shown[8:])


def test_every_file_of_the_packages_is_in_it(image):
    """A kind of file that pyproject.toml's package-data forgets is there in a checkout, and in no image."""
    (there,) = image.root.glob("opt/cohobate/lib/python3*/site-packages")
    files = [f for p in ("drift", "components", "pipelines", "serving", "infra") for f in Path(p).rglob("*")]
    ours = [f for f in files if f.is_file() and "__pycache__" not in f.parts and Path("infra/deploy") not in f.parents]
    assert len(ours) > 200 and [str(f) for f in ours if not (there / f).is_file()] == []


def test_every_module_is_there_compiled_and_comes_up(image):
    """With a root that nobody can write, each start would compile anew what is not."""
    shown = inside(image, "python3", "-c", WALK)
    assert int(shown) > 200


WALK = """
import importlib, importlib.util, os, pkgutil
import components, drift, infra, pipelines, serving
found = 0
for package in (components, drift, infra, pipelines, serving):
    assert package.__file__.startswith("/opt/cohobate/lib/"), package.__file__
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        spec = importlib.util.find_spec(module.name)
        assert os.path.exists(spec.cached), spec.cached
        found += 1
for name in ("infra.cli", "infra.worker", "serving.ray_app", "pipelines.dags", "kfp.dsl.executor_main", "torch"):
    importlib.import_module(name)
print(found)
"""


@pytest.mark.timeout(480)
def test_all_roles_come_up_in_it(image):
    """Broker, gateway with its proxy, controller, labeler, monitor and trigger, each as the stranger."""
    gateway, broker = free_ports(2)
    script = (
        "trap 'cohobate down >&2' EXIT; cohobate up --spec files >&2;"
        " for role in gateway controller labeler monitor trigger; do"
        ' until ls .cohobate/metrics | grep -m 1 "^files-$role-"; do sleep 0.5; done; done;'
        f" wget -q -O - http://127.0.0.1:{gateway}/files/healthz"
    )
    ports = {"COHOBATE_GATEWAY_PORT": str(gateway), "COHOBATE_BROKER_PORT": str(broker), "COHOBATE_ADMIN_HOST": ""}
    *roles, health = inside(image, "sh", "-ec", script, **ports).splitlines()
    assert len(roles) == 5 and json.loads(health) == {"status": "ok"}


def test_it_keeps_nothing_of_what_built_it_and_gives_no_rights(image):
    """The installer, pip's configuration with its addresses, lists of packages, programs that change the user."""
    root = image.root
    assert not [p for p in ("etc/pip.conf", "build", "opt/cohobate/uv", "root/.cache") if (root / p).exists()]
    assert not list((root / "var/lib/apt/lists").glob("*_Packages*"))
    raised, unread = [], []
    for folder, _, names in os.walk(root):
        for name in (".", *names):
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH):
                raised.append(path)
            if path.startswith(f"{root}/opt/") and not stat.S_ISLNK(mode) and not mode & stat.S_IROTH:
                unread.append(path)
    assert (raised, unread) == ([], []), "a stranger reads by the rights of others"
