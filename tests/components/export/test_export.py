import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from components.contracts import attestation
from components.contracts.errors import ArtifactError, ConfigError, ParityError, RecordError
from components.contracts.records import SoftLabel, Token, vector_of
from components.contracts.settings import Settings
from components.contracts.signing import new_key
from components.contracts.storage import digest_of
from components.contracts.tagging import tagging
from components.export import TARGETS
from components.export.export import export, signer_of
from components.export.manifest import Defer, read, verify
from components.export.notices import notices
from components.export.parity import _compared
from components.export.runtime import spans
from components.export.targets.onnx import Onnx
from components.student.card import read_card
from components.student.runtime import Reply
from tests.components.export.conftest import FEATURES, SCORES, TAGS, exported, load, package_of


@pytest.fixture(scope="module")
def bundle(text_student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "letters"
    version, payloads = text_student
    return export(version, "onnx", folder, payloads, limit=0.0), folder


@pytest.fixture
def copied(bundle, tmp_path):
    shutil.copytree(bundle[1], tmp_path / "copy")
    return tmp_path / "copy"


def test_a_bundle_says_what_the_student_is(bundle, text_student):
    done, folder = bundle
    version, payloads = text_student
    manifest = verify(folder, None)
    assert (manifest.workload, manifest.version, manifest.target) == ("letters", "3", "onnx")
    assert manifest.classes == version.card.classes and manifest.input.media_type.startswith("text/plain")
    assert manifest.lineage.student == version.digest == digest_of((folder / manifest.model.path).read_bytes())
    assert manifest.defer == version.defer and manifest.model.outputs == ("probabilities", "novelty")
    assert manifest.parity is not None and (manifest.parity.rows, manifest.parity.gap) == (len(payloads), 0.0)
    assert (manifest.runtime.name, manifest.model.precision) == ("onnxruntime", "float32")
    assert {"README.md", "NOTICES.md", "card.json", "lineage.json", "parity.json", "requirements.txt"} <= set(
        manifest.files
    )
    assert read_card((folder / "card.json").read_bytes()) == version.card
    assert [c.batch for c in done.parity.batches] == [1, 7, 32, 256]
    assert all(c.largest < 1e-6 and c.novelty == 0.0 and c.defer == 0.0 for c in done.parity.batches)
    assert "mmh3" in (folder / "requirements.txt").read_text() and "mmh3" in (folder / "NOTICES.md").read_text()


def test_the_same_version_gives_the_same_bytes(bundle, text_student, tmp_path):
    version, payloads = text_student
    export(version, "onnx", tmp_path / "again", payloads, limit=0.0)
    assert (tmp_path / "again/manifest.json").read_bytes() == (bundle[1] / "manifest.json").read_bytes()


@pytest.mark.parametrize("reading", [name for name in FEATURES if name != "TextNgrams"])
def test_it_answers_as_the_judged_artefact_whatever_it_reads(reading, tmp_path):
    version, payloads, _ = exported(reading)
    done = export(version, "onnx", tmp_path / "b", payloads, limit=0.0)
    assert done.parity.gap == 0.0 and done.parity.rows == len(payloads)


def test_a_report_counts_the_inputs_that_were_asked(text_student, tmp_path):
    version, payloads = text_student
    done = export(version, "onnx", tmp_path / "b", payloads * 12, limit=0.0)
    assert len(payloads) * 12 > 1_000 == done.parity.rows == read(tmp_path / "b").parity.rows
    assert {c.rows for c in done.parity.batches} == {1_000}


def test_a_quantised_artefact_is_exported_as_it_was_judged(tmp_path):
    version, payloads, small = exported("WordSequence")
    done = export(replace(version, artefact=small), "onnx", tmp_path / "b", payloads, limit=0.0)
    assert (done.precision, done.parity.gap) == ("int8", 0.0)


def test_the_sentences_that_the_terms_ask_for_are_in_the_notices(bundle, text_student):
    manifest = read(bundle[1])
    said = notices(manifest, [], ("Teacher by Ana,\nCC-BY 4.0", "Data by Bo"))
    assert {"- Teacher by Ana, CC-BY 4.0", "- Data by Bo"} <= set(said.splitlines())


@pytest.mark.parametrize("target", ["onnx", "mlflow", "openvino"])
def test_a_set_of_classes_is_answered_as_it_was_judged(target, tmp_path):
    version, payloads, _ = exported("WordSequence", task="multilabel")
    done = export(version, target, tmp_path / "b", payloads, limit=0.0)
    said, judged = load(tmp_path / "b").predict(payloads), version.student.predict(payloads)
    assert done.parity.gap == 0.0 and {c.defer for c in done.parity.batches} == {0.0}
    assert [a.label for a in said] == [s.label for s in judged] and len({a.label for a in said}) > 1
    for answer, soft in zip(said, judged, strict=True):
        assert answer.soft_label == pytest.approx(soft.distribution, abs=1e-4)
        assert answer.confidence == pytest.approx(soft.confidence, abs=1e-4)


def test_a_regression_is_answered_by_value_and_scale(tmp_path):
    version, payloads, _ = exported("TableColumns", task="regression", defer=Defer(below=0.0, novelty=None, known=()))
    done = export(version, "onnx", tmp_path / "b", payloads, limit=0.0)
    (answer,) = load(tmp_path / "b").predict(payloads[:1])
    (judged,) = version.student.predict(payloads[:1])
    assert done.parity.gap == 0.0 and not answer.defer and answer.novelty is None
    assert answer.soft_label == {"value": judged.value, "scale": judged.scale}
    assert (answer.label, answer.confidence) == (judged.label, judged.confidence)


@pytest.mark.parametrize("target", ["onnx", "openvino", "mlflow", "triton"])
def test_an_embedding_is_answered_by_its_vector_and_scale(tmp_path, target):
    if target == "openvino":
        pytest.importorskip("openvino")
    version, payloads, _ = exported("TextNgrams", task="embedding", temperature=1.5)
    done = export(version, target, tmp_path / "b", payloads[:40], limit=0.0)
    assert done.parity.gap == 0.0 and done.parity.rows == 40
    (answer,) = load(Path(done.folder)).predict(payloads[:1])
    (judged,) = version.student.predict(payloads[:1])
    assert answer.soft_label["vector"] == pytest.approx(judged.vector, abs=1e-5) and len(judged.vector) == 6
    assert answer.soft_label["scale"] == pytest.approx(judged.scale, rel=1e-4)
    assert answer.confidence == pytest.approx(judged.confidence, rel=1e-4) and answer.novelty is not None
    assert vector_of(answer.label) == pytest.approx(vector_of(judged.label), abs=2e-3)


@pytest.mark.parametrize(
    ("limits", "share"),
    [(Defer(below=0.0, novelty=None, known=SCORES), 0.0), (Defer(below=1.01, novelty=None, known=SCORES), 1.0),
     (Defer(below=0.0, novelty=0.999, known=SCORES), None)],
)  # fmt: skip
def test_answers_are_deferred_as_the_gateway_defers_them(text_student, tmp_path, limits, share):
    version, payloads = text_student
    export(replace(version, defer=limits), "onnx", tmp_path / "b", payloads, limit=0.0)
    said, judged = load(tmp_path / "b").predict(payloads), version.student.reply(payloads)
    assert [a.novelty for a in said] == [r.novelty for r in judged]
    if share is None:
        assert [a.defer for a in said] == [r.novelty <= 0.999 for r in judged] and any(a.defer for a in said)
        assert all("unlike" in a.defer_reason for a in said if a.defer)
    else:
        assert {a.defer for a in said} == {bool(share)}


def test_one_bad_input_spoils_no_other(bundle, text_student):
    student, (_, payloads) = load(bundle[1]), text_student
    good, empty, broken, large = student.predict_each([payloads[0], b"", b"\xff\xfe", b"x" * 5000])
    assert good == student.predict(payloads[:1])[0]
    assert [e.reason for e in (empty, broken, large)] == ["empty", "undecodable", "oversize"]
    with pytest.raises(Exception, match="empty: the payload has no bytes"):
        student.predict([b""])


def test_what_is_no_json_of_the_columns_is_refused_as_the_gateway_refuses_it(tmp_path):
    version, payloads, _ = exported("TableColumns")
    bad = [b'{"x": NaN}', b'{"x": 1e999}', b"{", b"\xff\xfe{\x00}\x00", b'{"x": "a"}', b"[1]", b"[1, 2"]
    export(version, "onnx", tmp_path / "b", payloads, limit=None)
    told = load(tmp_path / "b").predict_each([*bad, payloads[0]])
    for payload, error in zip(bad, told, strict=False):
        with pytest.raises(RecordError) as judged:
            version.student.predict([payload])
        assert error.reason == judged.value.reason
    assert told[-1].label == version.student.predict(payloads[:1])[0].label


def test_the_command_in_it_answers_lines_and_checks_the_files(bundle, copied):
    def run(*arguments, given=b""):
        command = [sys.executable, "-B", "-m", "cohobate_student", *arguments]
        return subprocess.run(command, cwd=copied, input=given, capture_output=True, check=False)

    done = run("predict", "--lines", "--batch", "2", given=b"prize money\nmeeting\n\xff\n")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1 and lines[2]["error"]["title"] == "undecodable"
    assert lines[0] == load(copied).predict([b"prize money"])[0].as_dict()
    for arguments, lines in (("predict", "no-file"), b""), (("predict", "--base64"), b"cHJpemU=\n?\n"):
        done = run(*arguments, given=lines)
        assert done.returncode == 1 and done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1
    assert run("check").returncode == 0
    (copied / "card.json").write_text("{}")
    done = run("predict", given=b"prize")
    assert done.returncode == 1 and b"card.json was changed" in done.stderr


def pem(key, folder):
    path = folder / "key.pub"
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))
    return path


def test_one_signature_covers_every_file(text_student, tmp_path, monkeypatch):
    version, payloads = text_student
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    done = export(version, "onnx", tmp_path / "b", payloads, limit=0.0, by=attestation.signer_by(key))
    trusted, folder = attestation.verifier(pem(key, tmp_path)), tmp_path / "b"
    assert done.signed and verify(folder, trusted) == read(folder)
    with pytest.raises(ArtifactError, match="did not sign"):
        verify(folder, attestation.verifier(pem(other, tmp_path)))
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["defer"]["below"] = 0.0
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="of another bundle"):
        verify(folder, trusted)


def test_the_platform_s_own_key_signs_where_it_is_set(monkeypatch):
    monkeypatch.delenv("COHOBATE_WORKLOAD_SIGNING_KEY", raising=False)
    assert signer_of(Settings(), "", None) is None
    monkeypatch.setenv("COHOBATE_WORKLOAD_SIGNING_KEY", new_key()[0])
    assert signer_of(Settings(), "", None) is not None
    monkeypatch.setenv("COHOBATE_WORKLOAD_SIGNING_KEY", "no key")
    with pytest.raises(ConfigError, match="WORKLOAD_SIGNING_KEY"):
        signer_of(Settings(), "", None)


def test_a_bundle_that_is_not_signed_is_no_signed_one(bundle, tmp_path):
    with pytest.raises(ArtifactError, match="is not signed"):
        verify(bundle[1], attestation.verifier(pem(Ed25519PrivateKey.generate(), tmp_path)))


def test_a_changed_missing_or_further_file_is_found(copied):
    (copied / "model/extra.bin").write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"model/extra\.bin is not in its manifest"):
        verify(copied, None)
    (copied / "model/extra.bin").unlink()
    planted = copied / "cohobate_student/__pycache__/student.cpython-311.pyc"
    planted.parent.mkdir()
    planted.write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"is byte code.*remove __pycache__, or run it with python -B"):
        verify(copied, None)
    shutil.rmtree(planted.parent)
    (copied / "README.md").write_text("other")
    with pytest.raises(ArtifactError, match=r"README\.md was changed"):
        verify(copied, None)
    (copied / "README.md").unlink()
    with pytest.raises(ArtifactError, match=r"README\.md is missing"):
        verify(copied, None)
    package = package_of(copied)
    with pytest.raises(package.BundleError, match="cannot be read"):
        package.load(copied)


def test_another_major_version_is_refused_by_both_readers(copied):
    manifest = json.loads((copied / "manifest.json").read_bytes())
    (copied / "manifest.json").write_text(json.dumps(manifest | {"schema": "1.7", "later": True}))
    assert load(copied).manifest["later"] and read(copied).version == "3"
    (copied / "manifest.json").write_text(json.dumps(manifest | {"schema": "2.0"}))
    with pytest.raises(ConfigError, match=r"schema is 2\.0"):
        verify(copied, None)
    package = package_of(copied)
    with pytest.raises(package.BundleError, match=r"schema is 2\.0"):
        package.load(copied)


def test_what_answers_otherwise_is_not_written(text_student, tmp_path, monkeypatch):
    version, payloads = text_student
    other = replace(version, artefact=exported("TextNgrams", temperature=-0.05)[0].artefact)
    built = Onnx.build
    monkeypatch.setattr(Onnx, "build", lambda self, _, *rest: built(self, other, *rest))
    with pytest.raises(ParityError, match=r"in batches of 7.*max_parity_gap is 0\.3") as refused:
        export(version, "onnx", tmp_path / "b", payloads, limit=0.3)
    assert refused.value.gap > 0.3 and list(tmp_path.iterdir()) == []


def test_without_a_holdout_nothing_is_known_and_nothing_is_written(text_student, tmp_path):
    with pytest.raises(ParityError, match="no held-out input"):
        export(text_student[0], "onnx", tmp_path / "b", [], limit=0.1)
    assert list(tmp_path.iterdir()) == []
    assert export(text_student[0], "onnx", tmp_path / "b", [], limit=None).parity.gap is None


def test_what_is_not_offered_is_refused_by_name(text_student, tmp_path):
    version, payloads = text_student
    with pytest.raises(ConfigError, match=r"--to is 'fax': must be one of onnx"):
        export(version, "fax", tmp_path / "b", payloads, limit=0.1)
    with pytest.raises(ConfigError, match=r"--precision is 'float16'.*can be had in float32"):
        export(version, "onnx", tmp_path / "b", payloads, limit=0.1, precision="float16")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/file").write_text("")
    with pytest.raises(ConfigError, match="--output"):
        export(version, "onnx", tmp_path / "b", payloads, limit=0.1)


@pytest.mark.parametrize(
    ("target", "precision", "near"),
    [(name, "", 1e-9) for name in TARGETS if name not in ("openvino", "litert", "tensorrt")]
    + [("openvino", "float32", 1e-4), ("openvino", "float16", 0.05)],
)
def test_spans_are_answered_as_they_were_judged(tagger, target, precision, near, tmp_path):
    if target == "openvino":
        pytest.importorskip("openvino")
    version, payloads = tagger
    done = export(version, target, tmp_path / "b", payloads, limit=0.0, precision=precision)
    assert (done.parity.gap, done.parity.rows) == (0.0, len(payloads))
    folder = Path(done.folder)
    said, judged = load(folder).predict(payloads), version.student.reply(payloads)
    assert len({a.label for a in said}) > 9 and "4 tags of" in (folder / "README.md").read_text()
    for answer, (soft, novelty) in zip(said, judged, strict=True):
        told = answer.as_dict()
        assert (answer.label, told["soft_label"]) == (soft.label, {})
        assert told["spans"] == list(msgspec.to_builtins(soft.spans))
        assert [(t["start"], t["end"]) for t in told["tokens"]] == [(t.start, t.end) for t in soft.tokens]
        for token, judged_token in zip(told["tokens"], soft.tokens, strict=True):
            shares = [token["distribution"].get(tag, 0.0) for tag in TAGS]
            assert shares == pytest.approx([judged_token.distribution.get(tag, 0.0) for tag in TAGS], abs=near)
        assert answer.confidence == pytest.approx(soft.confidence, abs=near)
        assert answer.novelty == pytest.approx(novelty, abs=0.05)
        assert answer.defer == (soft.confidence < 0.5 or novelty <= 0.2)
    assert load(folder).predict([b" \n"])[0][:3] == ("[]", 1.0, {})


def test_int8_of_spans_is_calibrated_and_judged(tagger, tmp_path):
    pytest.importorskip("openvino")
    version, payloads = tagger
    done = export(version, "openvino", tmp_path / "b", payloads, limit=None, precision="int8")
    assert done.precision == "int8" and done.parity.rows == len(payloads) and done.parity.gap is not None
    graph = (tmp_path / "b/model/model.xml").read_text()
    assert 'type="FakeQuantize"' in graph and 'element_type="i8"' in graph  # ranges of activations, weights in 8 bits


def test_a_mark_that_makes_no_other_span_counts_as_another_answer(tagger):
    version, _ = tagger
    mine = [Reply(marked("B-PER"), 0.5)] * 2
    theirs = [{"defer": False, "tokens": msgspec.to_builtins(marked(tag).tokens)} for tag in ("B-PER", "I-PER")]
    limits = Defer(below=0.0, novelty=None, known=())
    assert mine[0].soft.label == marked("I-PER").label
    assert _compared(1, mine, theirs, version.card, limits).gap == 0.25  # one of four tokens
    other = [{"defer": False, "tokens": [{"start": 0, "end": 2, "distribution": {"O": 1.0}}]}] * 2
    with pytest.raises(ArtifactError, match="other tokens than the artefact"):
        _compared(1, mine, other, version.card, limits)


def test_a_tagger_that_answers_otherwise_is_not_written(tagger, tmp_path, monkeypatch):
    version, payloads = tagger
    other = replace(version, artefact=exported("TaggedWords", temperature=-0.05)[0].artefact)
    built = Onnx.build
    monkeypatch.setattr(Onnx, "build", lambda self, _, *rest: built(self, other, *rest))
    with pytest.raises(ParityError, match=r"in batches of 7.*max_parity_gap is 0\.3"):
        export(version, "onnx", tmp_path / "b", payloads, limit=0.3)
    assert list(tmp_path.iterdir()) == []


def marked(first):
    """A text of two tokens, of which the first has a tag."""
    return tagging("s@1", TAGS, [(0, 1), (1, 2)], [[float(t == first) for t in TAGS], [1.0, 0.0, 0.0, 0.0]])


PARTS = st.sampled_from(["O", "B-PER", "I-PER", "PER", "B-LOC", "I-LOC", "LOC", "B-", "I-", "B"])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), PARTS, PARTS), max_size=9))
def test_spans_are_read_as_the_gateway_reads_them(parts):
    tokens, at = [], 0
    for gap, length, one, other in parts:
        shares = {one: 1.0} if one == other else {one: 0.5, other: 0.5}
        tokens.append(Token(start=at + gap, end=at + gap + length, distribution=shares))
        at += gap + length
    soft = SoftLabel(task="tagging", space="s@1", tokens=tuple(tokens))
    found = spans.spans_of(msgspec.to_builtins(soft.tokens))
    assert found == list(msgspec.to_builtins(soft.spans)) and spans.text_of(found) == soft.label
