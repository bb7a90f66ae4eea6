"""A workload that ``cohobate init`` wrote, from its history to a student that the gate promotes."""

import time

import pytest

from components.contracts.spec import load_spec
from components.distill.train import distill
from components.evaluate.evaluate import evaluate
from components.label.history import label_history
from components.label.history_file import read_history
from components.snapshot import freeze
from components.stream.memory import MemoryBroker
from infra.init import HISTORY, MODALITIES, write_workload
from tests.stores import migrated


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("modality", MODALITIES)
def test_a_written_workload_s_first_student_is_promoted(modality, tmp_path):
    path = write_workload("mine", modality, tmp_path / "mine")
    spec, broker, artifacts = load_spec(path), MemoryBroker(), f"file://{tmp_path}/artifacts"
    store = migrated(f"sqlite:///{tmp_path}/control.db")
    counts = label_history(spec, broker, store, read_history(str(path.parent / HISTORY), spec), patience=0.0)
    assert counts["inputs"] == 400 and counts["dead"] == 0
    window = freeze(spec, broker, store, artifacts, now=time.time())
    made = distill(spec, [window], variant=spec.student.variants[0], parent=None, artifacts=artifacts, seed=spec.seed)
    done = evaluate(spec, made.uri, made.digest, made.float_uri, windows=[window], champion=None, store=store)
    assert done.verdict.decision == "promote", done.verdict.reasons
    store.close()
