"""A spec with its code as a bundle: what goes into it, how it is fetched, and how what is in it is imported."""

import io
import pickle
import sys
import tarfile
import threading

import msgspec
import pytest

from components.contracts.bundle import members, pack
from components.contracts.errors import ArtifactError, ConfigError
from components.contracts.reference import Reference, parse
from components.contracts.settings import Settings
from components.contracts.signing import new_key
from components.contracts.spec import build, load_spec, resolve
from components.contracts.spec.bundles import folder_of, keep, kept
from components.contracts.spec.gathering import gather
from components.contracts.storage import digest_of

MOST = 1024 * 1024


@pytest.fixture
def folder(tmp_path):
    """A folder with a spec, code that imports code beside it in many ways, data, and what is nobody's business."""
    made = tmp_path / "mine"
    files = {
        "w.yaml": "name: w\nteacher: {factory: 'code.py:Teacher', options: {key_file: secret.txt}}\n"
        "features: {factory: 'parts/features.py:Features', options: {vocabulary: words.txt}}\n"
        "files: [more]\nstudent: {network: {factory: 'net.py:Net', options: {start: weights}}}\n",
        "code.py": "import words.deep\nfrom words import ONE\n\n\n"
        "def late():\n    import lazy\n    return lazy.NAME\n\n\n"
        "class Teacher:\n    def __init__(self, key_file):\n        self.said = words.deep.SAID, ONE, late()\n",
        "words/__init__.py": "ONE = 'one'\n",
        "words/deep.py": "from . import near\nSAID = near.SAID\n",
        "words/near.py": "import json as words_json\nimport lazy as other\nSAID = 'deep ' + other.NAME\n",
        "lazy.py": "NAME = 'lazy'\n",
        "json.py": "raise RuntimeError('Python has one')\n",
        "parts/features.py": "from ..lazy import NAME\n\n\nclass Features:\n    pass\n",
        "net.py": "Net = dict\n",
        "weights/model.bin": "0" * 100,
        "more/a/b.txt": "b",
        "words.txt": "w",
        "secret.txt": "hush",
        "unused.py": "",
        "history.jsonl": "x",
    }
    for name, text in files.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text)
    return made


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path / "home", artifact_root=f"file://{tmp_path}/shared")


def test_a_bundle_holds_what_the_spec_names_and_what_that_imports_and_nothing_else(folder):
    assert sorted(gather(folder / "w.yaml", MOST)) == [
        "code.py", "lazy.py", "more/a/b.txt", "net.py", "parts/features.py", "spec.yaml", "weights/model.bin",
        "words.txt", "words/__init__.py", "words/deep.py", "words/near.py",
    ]  # fmt: skip


def test_the_same_files_make_the_same_archive_whatever_their_times_order_and_modes(folder, settings):
    first = keep(folder / "w.yaml", "w", settings)
    for path in folder.rglob("*"):
        path.chmod(0o700)
        path.touch()
    assert keep(folder / "w.yaml", "w", settings) == first
    files = gather(folder / "w.yaml", MOST)
    data = pack(dict(reversed(files.items())))
    assert digest_of(data) == first.digest and members(data, "here") == files
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = archive.getmembers()
    assert [m.name for m in found] == sorted(files)
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in found} == {(0, 0, 0, "", "", 0o644)}


def test_code_beside_the_spec_is_imported_from_the_bundle_at_once_late_and_relatively(folder, settings):
    bundle = keep(folder / "w.yaml", "w", settings)
    spec = load_spec(bundle.reference, settings)
    assert spec.source == bundle.reference == str(Reference("w", bundle.digest))
    assert (spec.digest, kept(spec.source, settings)) == (load_spec(folder / "w.yaml").digest, bundle)
    assert build(spec.teacher, spec.source).said == ("deep lazy", "one", "lazy")
    features = resolve(spec.features.factory, spec.source)
    assert sys.modules[features.__module__].__file__ == str(folder_of(spec.source) / "parts" / "features.py")
    assert pickle.loads(pickle.dumps(features())).__class__ is features  # noqa: S301
    assert "words" not in sys.modules and "lazy" not in sys.modules
    assert not list(folder_of(spec.source).rglob("__pycache__"))
    assert build(load_spec(folder / "w.yaml").teacher, str(folder / "w.yaml")).said == ("deep lazy", "one", "lazy")


def test_two_versions_and_two_workloads_do_not_meet_in_one_process(folder, settings):
    said = []
    for name, text in (("w", "lazy"), ("w", "newer"), ("v", "other")):
        (folder / "w.yaml").write_text((folder / "w.yaml").read_text().replace("name: w", f"name: {name}"))
        (folder / "lazy.py").write_text(f"NAME = {text!r}\n")
        spec = load_spec(keep(folder / "w.yaml", name, settings).reference, settings)
        said.append((spec, text))
    for spec, text in said:
        assert build(spec.teacher, spec.source).said == (f"deep {text}", "one", text)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("w.yaml", "files: [/etc/hostname]\n", "files is '/etc/hostname': must be relative to the spec"),
        ("w.yaml", "files: [../out.txt]\n", r"files is '\.\./out\.txt': must lie beside the spec or below"),
        ("w.yaml", "files: [gone]\n", "files is 'gone': no such file or folder"),
        ("w.yaml", "files: [link.txt]\n", r"files is 'link\.txt': must lie beside the spec or below"),
        ("w.yaml", "files: [spec.yaml]\n", "the spec itself has this name in a bundle"),
        ("w.yaml", "teacher: {factory: 'gone.py:T'}\n", "reference is 'gone.py': no such file"),
        ("w.yaml", "teacher: {factory: '../out.py:T'}\n", "reference is '../out.py': must lie beside the spec"),
        ("code.py", "class Teacher\n", "reference is 'code.py': not Python"),
        ("w.yaml", "student: {unlabelled: [more.jsonl]}\n", "student.unlabelled is 'more.jsonl': no such file"),
    ],
)
def test_what_cannot_be_taken_along_is_refused_by_name(folder, name, change, says):
    (folder.parent / "out.txt").write_text("out")
    (folder.parent / "out.py").write_text("T = 1")
    (folder / "link.txt").symlink_to(folder.parent / "out.txt")
    (folder / "spec.yaml").write_text("another")
    raw = msgspec.yaml.decode((folder / "w.yaml").read_bytes())
    raw |= msgspec.yaml.decode(change) if name == "w.yaml" else {}
    (folder / "w.yaml").write_bytes(msgspec.yaml.encode(raw))
    if name != "w.yaml":
        (folder / name).write_text(change)
    with pytest.raises(ConfigError, match=says):
        gather(folder / "w.yaml", MOST)


def test_a_link_within_the_folder_is_taken_along_as_what_it_leads_to(folder):
    (folder / "more" / "here.txt").symlink_to(folder / "words.txt")
    assert gather(folder / "w.yaml", MOST)["more/here.txt"] == b"w"


def test_a_bundle_that_is_too_large_names_its_largest_file(folder, settings):
    (folder / "weights" / "model.bin").write_bytes(b"0" * MOST)
    with pytest.raises(ConfigError, match=r"may have 1\.0 MiB; its largest file is weights/model\.bin \(1\.0 MiB\)"):
        keep(folder / "w.yaml", "w", settings.model_copy(update={"workload_max_bytes": MOST}))
    assert not (settings.home.parent / "shared").exists()


def archive(*tars):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for member in tars:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return made.getvalue()


def member(name, **changes):
    made = tarfile.TarInfo(name)
    for field, value in changes.items():
        setattr(made, field, value)
    return made


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (archive(member("/etc/a", size=1)), "'/etc/a' would lie outside"),
        (archive(member("a/../../b", size=1)), "would lie outside"),
        (archive(member("a", type=tarfile.SYMTYPE, linkname="/etc")), "'a' is a symbolic link"),
        (archive(member("a", type=tarfile.LNKTYPE, linkname="b")), "'a' is a link"),
        (archive(member("a", type=tarfile.DIRTYPE)), "'a' is no regular file"),
        (archive(member("a", type=tarfile.FIFOTYPE)), "'a' is no regular file"),
        (b"no archive" * 100, "is no bundle of a workload"),
    ],
)
def test_an_archive_of_anything_but_files_below_it_is_refused_before_anything_is_written(settings, data, says):
    store = settings.home.parent / "shared" / "workloads"
    store.mkdir(parents=True)
    (store / f"{digest_of(data)}.tar").write_bytes(data)
    with pytest.raises(ArtifactError, match=says):
        load_spec(f"workload:w@{digest_of(data)}", settings)
    assert not [p for p in (settings.home / "workloads").iterdir() if p.is_dir()]


def test_a_changed_bundle_is_not_loaded_and_a_changed_copy_is_made_anew(folder, settings, tmp_path):
    reference = keep(folder / "w.yaml", "w", settings).reference
    with pytest.raises(ArtifactError, match="is a bundle of w"):
        load_spec(reference.replace("workload:w", "workload:v"), settings)
    mine = folder_of(reference, settings)
    (mine / "lazy.py").write_text("NAME = 'changed'\n")
    (mine / "more" / "new.py").write_text("")
    again = settings.model_copy(update={"home": tmp_path / "other"})
    (tmp_path / "other").mkdir()
    (settings.home / "workloads").rename(tmp_path / "other" / "workloads")
    assert folder_of(reference, again) == tmp_path / "other" / "workloads" / mine.name
    assert (folder_of(reference) / "lazy.py").read_text() == "NAME = 'lazy'\n"
    assert sorted(p.name for p in (tmp_path / "other" / "workloads").glob("[!.]*")) == [mine.name, f"{mine.name}.tar"]
    bundle = tmp_path / "shared" / "workloads" / f"{mine.name}.tar"
    bundle.write_bytes(bundle.read_bytes().replace(b"lazy'", b"evil'"))
    with pytest.raises(ArtifactError, match="was changed after it was registered"):
        load_spec(reference, settings.model_copy(update={"home": tmp_path / "third"}))
    bundle.unlink()
    with pytest.raises(ArtifactError, match="does not exist"):
        load_spec(reference, settings.model_copy(update={"home": tmp_path / "third"}))
    assert load_spec(reference, again).name == "w"


def test_many_load_one_bundle_at_once(folder, settings, tmp_path, monkeypatch):
    """Each as a process of its own would: nothing that one knows is known to the others."""
    from components.contracts.spec import bundles

    reference = keep(folder / "w.yaml", "w", settings).reference
    digest = parse(reference).digest
    found, start = [], threading.Barrier(8)

    def load():
        start.wait()
        found.append(bundles._fetched("w", digest, settings))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [settings.home.resolve() / "workloads" / digest] * 8
    assert sorted(p.name for p in (settings.home / "workloads").glob("[!.]*")) == [digest, f"{digest}.tar"]


def test_a_host_that_asks_for_a_signature_loads_nothing_without(folder, settings):
    (private, public), (other, _) = new_key(), new_key()
    asking = settings.model_copy(update={"workload_signed_by": public})
    reference = keep(folder / "w.yaml", "w", settings).reference
    load_spec(reference, settings)
    signed = f"{asking.home}-2"
    asking = asking.model_copy(update={"home": settings.home.with_name("asking")})
    with pytest.raises(ArtifactError, match="is not signed, and COHOBATE_WORKLOAD_SIGNED_BY asks for it"):
        load_spec(reference, asking)
    forged = Settings(home=signed, artifact_root=settings.artifact_root, workload_signing_key=other)
    assert keep(folder / "w.yaml", "w", forged).signed_by != public
    with pytest.raises(ArtifactError, match="is signed by another key"):
        load_spec(reference, asking)
    right = Settings(home=signed, artifact_root=settings.artifact_root, workload_signing_key=private)
    assert keep(folder / "w.yaml", "w", right).signed_by == public == kept(reference, right).signed_by
    assert load_spec(reference, asking).name == "w"
    with pytest.raises(ConfigError, match=r"COHOBATE_WORKLOAD_SIGNING_KEY is .* must be an Ed25519 key"):
        keep(folder / "w.yaml", "w", Settings(home=signed, workload_signing_key="hush"))


@pytest.mark.parametrize(
    "text",
    ["workload:", "workload:W", "workload:w@", "workload:w@0", "workload:w@abc", "workload:w@1 ", "workload:../w"],
)
def test_what_begins_like_a_reference_and_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="must have the form workload:NAME"):
        load_spec(text)


def test_a_reference_without_a_digest_is_for_the_registry():
    assert parse("workload:w") == ("w", None) and parse("workload:w@12") == ("w", "12") and parse("w.yaml") is None
    with pytest.raises(ConfigError, match="names no bundle by its digest"):
        load_spec("workload:w@12")


def test_a_vocabulary_of_made_up_inputs_goes_with_the_spec(tmp_path):
    (tmp_path / "t.py").write_text("class T: ...\n")
    (tmp_path / "words.txt").write_text("one\ntwo\n")
    inputs = "{kind: text, vocabulary: words.txt}"
    text = 'name: w\nteacher: {factory: "t.py:T"}\nfeatures: {factory: "components.student.text:HashedText"}\n'
    (tmp_path / "w.yaml").write_text(f"{text}student: {{data_free: {{inputs: {inputs}}}}}\n")
    assert "words.txt" in gather(tmp_path / "w.yaml", 1 << 20)
