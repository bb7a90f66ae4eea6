"""An edge whose student tags texts: it answers with spans where there is no network, and sends home what it kept."""

import json

import msgspec
import pytest
from securesystemslib.signer import CryptoSigner

from components.contracts.records import Input, decode
from components.control.intent import ModelRef
from components.export.export import export
from components.export.manifest import Defer
from components.export.targets.contract import Version
from components.student.runtime import Student
from serving.edge import InputError, Link
from serving.gateway.edge import HEADER
from tests.serving.edge import bundles
from tests.serving.edge.conftest import Platform
from tests.serving.gateway.test_tagging import serving, tags_spec
from tests.spans import artifact

TEXT = "Ada Lovelace, of London & Co — 東京 🙂 again"


@pytest.fixture(scope="module")
def data():
    return artifact(workload="signs", space="signs@1", teacher="sign@1")


@pytest.fixture
def spec(tmp_path):
    return tags_spec(tmp_path)


@pytest.fixture
def running(spec, store, clock, data, tmp_path):
    return serving(spec, store, clock, data, tmp_path)


@pytest.fixture
def platform(running, store, data, tmp_path, monkeypatch):
    """Its version 1 is exported, signed and published as it is for any edge; it is unsure below 1e-8."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    made = Platform(running, store, None, tmp_path)
    version = Version(
        workload="signs", version="1", artefact=data, defer=Defer(below=1e-8, novelty=None, known=()), source="",
        lineage={"workload": "signs"}, full=lambda: data, calibration=list,
    )  # fmt: skip
    texts = [TEXT.encode(), b"x", b"Grace of Berlin"]
    export(version, "onnx", tmp_path / "bundle1", texts, limit=0.0, by=CryptoSigner(bundles.KEY))
    made.refs["1"] = ModelRef(version="1", uri="file:///none", digest=version.digest, snapshot="s" * 64, teacher="t")
    made.publish("1")
    made.decide("1")
    return made


def test_it_answers_offline_as_the_gateway_does_and_sends_home_what_it_kept(platform, link, device, data, clock):
    edge = device()
    assert edge.sync(link).updated
    away = Link("http://127.0.0.1:1")
    device().sync(away)  # switched on again where there is no network
    edge = device()
    said = edge.predict(TEXT.encode(), id="a", key="k", consent="training")
    (soft,) = Student.load(data).predict([TEXT.encode()])
    asked = platform.running.call("POST", "/v1/predict", json={"text": TEXT}).json()
    assert said["label"] == asked["label"] == soft.label and said["soft_label"] == {}
    assert said["spans"] == asked["spans"] == list(msgspec.to_builtins(soft.spans)) != []
    assert said["tokens"] == asked["tokens"] and said["confidence"] == pytest.approx(asked["confidence"])
    assert [TEXT[t["start"] : t["end"]] for t in said["tokens"]][-4:] == ["東", "京", "🙂", "again"]

    # It leaves to others what it is unsure of, and what is none of its inputs.
    long = edge.predict(TEXT.encode() * 10, id="b")
    assert not said["defer"] and long["defer"] and "is below 1e-08" in long["defer_reason"]
    with pytest.raises(InputError, match="undecodable"):
        edge.predict(b"\xff\xfe")
    assert edge.status()["records"]["waiting"] == 2

    # Back home: each input is one of the workload's, with the spans that the edge answered.
    done = edge.sync(link)
    assert (done.sent, done.refused, done.problem) == (2, 0, "")
    records = platform.running.broker.consumer(["signs.inputs", "signs.inputs.urgent"]).poll(1_000, 0)
    told = {decode(Input, r.value).id: json.loads(r.headers[HEADER]) for r in records}
    assert told["a"]["label"] == soft.label and told["b"]["label"] == long["label"]
    assert (told["a"]["defer"], told["b"]["defer"]) == (False, True)


def test_a_guard_defers_by_the_confidence_of_all_tags_together(platform, link, device, device_clock):
    platform.decide("1", guard=0.9)
    edge = device()
    edge.sync(link)
    said = edge.predict(TEXT.encode())
    assert 1e-8 < said["confidence"] < 0.9 and said["defer"] and "guarded" in said["defer_reason"]
    assert not edge.predict(b" ")["defer"]  # without a word there is nothing to be unsure of
