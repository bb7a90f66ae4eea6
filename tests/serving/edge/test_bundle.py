"""Whether a bundle may be used is known before anything of it is executed."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile

import pytest

from serving.edge.bundle import load, pack, unpacked, verify
from serving.edge.errors import UntrustedError
from tests.serving.edge import bundles

RAW = bundles.KEY.public_key().public_bytes_raw()


@pytest.fixture
def folder(tmp_path, signs):
    """A bundle whose package leaves a mark where it is imported."""
    made = tmp_path / "bundle"
    mark = tmp_path / "executed"
    bundles.make(made, signs.artifact(), "1", package=f"open({str(mark)!r}, 'w').close()\n{bundles.PACKAGE}")
    return made


def spoil_model(folder):
    (folder / "model.onnx").write_bytes(b"another")


def remove_model(folder):
    (folder / "model.onnx").unlink()


def add_module(folder):
    (folder / "cohobate_student" / "json.py").write_text("raise SystemExit")


def add_byte_code(folder):
    (folder / "cohobate_student" / "__pycache__").mkdir()
    (folder / "cohobate_student" / "__pycache__" / "__init__.cpython-311.pyc").write_bytes(b"x")


def change_manifest(folder):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "version": "2"}))


def sign_by_another(folder):
    bundles.attest(folder, bundles.OTHER_KEY)


def sign_as_another_kind(folder):
    bundles.attest(folder, predicate="urn:cohobate:evidence:v1")


def not_signed(folder):
    (folder / "attestation.json").unlink()


def no_envelope(folder):
    (folder / "attestation.json").write_text("[]")


def no_manifest(folder):
    (folder / "manifest.json").unlink()


SPOILT = {
    spoil_model: "was changed", remove_model: "is missing", add_module: "not in its manifest",
    add_byte_code: "remove __pycache__", change_manifest: "of another bundle", sign_by_another: "this edge's key",
    sign_as_another_kind: "of another bundle", not_signed: "attestation.json", no_envelope: "no bundle",
    no_manifest: "manifest.json",
}  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILT)
def test_what_was_not_signed_as_it_is_is_not_executed(folder, spoil, tmp_path):
    spoil(folder)
    with pytest.raises(UntrustedError, match=SPOILT[spoil]):
        load(folder, RAW)
    assert not (tmp_path / "executed").exists()


def test_a_good_one_answers_and_leaves_no_byte_code_in_its_folder(folder, tmp_path):
    before = sys.dont_write_bytecode
    found = load(folder, RAW)
    assert (tmp_path / "executed").exists() and found.version == "1" and found.workload == "signs"
    assert found.student.predict([b'{"x": 3}'])[0].label == "pos"
    assert verify(folder, RAW)["version"] == "1" and sys.dont_write_bytecode is before
    assert load(folder, RAW).student.predict([b'{"x": -3}'])[0].label == "neg"


DEVICE = """
import json, sys
from pathlib import Path

from serving.edge import Edge

device = Path(sys.argv[1])
edge = Edge(device, None)
edge.install(sys.argv[2])
edge.close()
edge = Edge(device, None)
told = edge.predict(b"prize money offer")
print(json.dumps({"told": told["label"], "problems": edge.problems, "written": sys.dont_write_bytecode,
                  "code": [str(p) for p in device.rglob("__pycache__")]}))
edge.close()
"""


def test_what_is_exported_is_installed_and_serves_after_a_restart(tmp_path):
    """In a Python that writes byte code, as it does unless it is told otherwise."""
    from components.export.export import export
    from tests.components.export.conftest import exported

    version, payloads, _ = exported("TextNgrams")
    export(version, "onnx", tmp_path / "b", payloads[:20], limit=0.0)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", DEVICE, str(tmp_path / "device"), str(tmp_path / "b")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    soft = version.student.predict([b"prize money offer"])[0].distribution
    assert found.pop("told") == max(soft, key=soft.get)
    assert found == {"problems": [], "written": False, "code": []}


def test_two_versions_are_loaded_side_by_side(tmp_path, signs):
    for version, classes in (("1", ("neg", "pos")), ("2", ("pos", "neg"))):
        model = signs.artifact(space=f"signs@{version}")
        bundles.make(tmp_path / version, model, version, classes=classes)
    one, two = (load(tmp_path / version, RAW) for version in ("1", "2"))
    assert [b.student.predict([b'{"x": 3}'])[0].label for b in (one, two)] == ["pos", "neg"]


def test_a_newer_major_schema_is_refused(tmp_path, signs):
    bundles.make(tmp_path / "b", signs.artifact(), "1", schema="2.0")
    with pytest.raises(UntrustedError, match=r"schema is 2\.0"):
        load(tmp_path / "b", RAW)


def test_a_model_that_the_runtime_does_not_load_is_refused(tmp_path):
    bundles.make(tmp_path / "b", b"no model", "1")
    with pytest.raises(UntrustedError, match="cannot be loaded here"):
        load(tmp_path / "b", RAW)


def test_a_bundle_is_packed_to_the_same_bytes_and_unpacked_to_the_same_files(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    packed = pack(folder)
    assert packed == pack(tmp_path / "copy")
    files = dict(unpacked(packed))
    assert files == {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "."])
def test_nothing_is_unpacked_beside_its_folder(name):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.type = tarfile.DIRTYPE if name == "." else tarfile.REGTYPE
        tar.addfile(entry, io.BytesIO(b""))
    with pytest.raises(UntrustedError, match="no file below it"):
        list(unpacked(out.getvalue()))


def test_a_link_is_no_file():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("model.onnx")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)
    with pytest.raises(UntrustedError, match="no file below it"):
        list(unpacked(out.getvalue()))
    with pytest.raises(UntrustedError, match="no packed bundle"):
        list(unpacked(b"not a tar" * 100))
