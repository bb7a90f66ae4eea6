"""The edge where nothing of the platform is: its folder is copied, and every other import is refused."""

import json
import subprocess
import sys

from typer.testing import CliRunner

from infra.cli import app
from tests.serving.edge import bundles

PROGRAM = """
import sys

ALLOWED = {*sys.stdlib_module_names, "numpy", "onnxruntime", "edge_code", "cohobate_student_" + sys.argv[3][:16]}
REFUSED = []


class Guard:
    # onnxruntime itself looks for what is optional to it, and goes on without
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            REFUSED.append(name)
            raise ImportError(f"{name} is not on this device")
        return None


sys.meta_path.insert(0, Guard())
sys.path.insert(0, sys.argv[1])
import json

from edge_code import Edge, Link

edge = Edge("device", sys.argv[4])
edge.install(sys.argv[2])
answer = edge.predict(b'{"x": 3}', consent="training")
problem = edge.sync(Link("http://127.0.0.1:1")).problem
own = ("components", "serving", "drift", "pipelines", "infra", "msgspec", "pydantic", "cryptography", "httpx")
print(json.dumps([answer["label"], edge.status()["records"]["waiting"], problem, [m for m in own if m in sys.modules],
                  [r for r in REFUSED if r.partition(".")[0] in own]]))
"""


def test_it_needs_its_own_folder_numpy_and_the_runtime_alone(tmp_path, signs):
    done = CliRunner().invoke(app, ["edge", "code", str(tmp_path / "edge_code")])
    assert done.exit_code == 0, done.output
    digest = bundles.make(tmp_path / "bundle", signs.artifact(), "1")
    command = [sys.executable, "-I", "-c", PROGRAM, str(tmp_path), str(tmp_path / "bundle"), digest, bundles.public()]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert found.returncode == 0, found.stderr
    label, waiting, problem, loaded, refused = json.loads(found.stdout)
    assert (label, loaded, refused) == ("pos", [], []) and problem.startswith("http://127.0.0.1:1")
    assert waiting == 1  # its terms were named, and before the first contact that is what is asked for


def test_the_code_is_not_written_over_what_is_there(tmp_path):
    done = CliRunner().invoke(app, ["edge", "code", str(tmp_path)])
    assert done.exit_code != 0 and "must not exist yet" in str(done.exception or done.output)


def test_a_bundle_is_published_for_edges_and_one_that_is_not_signed_is_not(tmp_path, signs, monkeypatch):
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COHOBATE_WORKLOAD_SIGNED_BY", bundles.public())
    digest = bundles.make(tmp_path / "bundle", signs.artifact(), "7")
    done = CliRunner().invoke(app, ["edge", "publish", str(tmp_path / "bundle")])
    assert done.exit_code == 0 and f"edge/signs/{digest}.tar" in done.output, done.output
    assert (tmp_path / "home" / "artifacts" / "edge" / "signs" / f"{digest}.tar").is_file()
    bundles.make(tmp_path / "other", signs.artifact(), "7", key=bundles.OTHER_KEY)
    refused = CliRunner().invoke(app, ["edge", "publish", str(tmp_path / "other")])
    assert refused.exit_code != 0 and "not signed" in str(refused.exception or refused.output)
