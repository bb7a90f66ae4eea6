"""A round under masks by the commands, and what a site's ledger keeps it from telling."""

import json
from contextlib import closing

import msgspec
import pytest
import yaml

from components.contracts import bundle
from components.contracts.attestation import signer
from components.contracts.errors import ArtifactError, ConfigError
from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from components.control.store import ControlStore
from components.federation.agreement import read_agreement
from components.federation.exchange import row_id, set_digest
from components.federation.rounds import read
from components.ledger.ledger import entries
from components.registry.registry import Registry
from infra.federation import masked
from infra.federation.site import ACTION
from tests.infra.test_federation import SPEC, TEXTS, Versions, run
from tests.keys import keys
from tests.stores import migrated

NAMES = ("east", "north", "south", "west")


class Sites:
    """Four sites, each with a platform and a version of its own, and the files that they hand on."""

    def __init__(self, folder, monkeypatch, registry):
        self.folder, self._set = folder, monkeypatch.setenv
        (folder / "public.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
        (folder / "open.yaml").write_text(SPEC)
        (folder / "handed").mkdir()
        self.keys = {name: keys(folder, name)[0] for name in NAMES}
        agreed = {"name": "banks", "space": "letters@1", "classes": ["a", "b", "c"], "masked": True, "min_sites": 3,
                  "sites": {name: {"key": f"{name}.pub"} for name in NAMES}}  # fmt: skip
        (folder / "federation.yaml").write_text(yaml.safe_dump(agreed))
        spec = load_spec(folder / "open.yaml")
        for name in NAMES:
            with self.at(name):
                registry.add(name, spec, classes=("c", "b", "a"))
                registry.add(f"{name}-newer", spec, classes=("a", "b", "c"))
        registry.add("fewer", spec, classes=("a", "b"))
        registry.add("more", spec, classes=("a", "b", "c", "oops"))
        self.agreement = folder / "federation.yaml"

    def at(self, name):
        self._set("COHOBATE_HOME", str(self.folder / name))
        there = (self.folder / name / "control.db").exists()
        return closing((ControlStore if there else migrated)(Settings().control_url))

    def asked(self, name, number=1, spec="open"):
        return ("--spec", self.folder / f"{spec}.yaml", "--public", self.folder / "public.jsonl", "--site", name,
                "--round", number, "--key", self.keys[name])  # fmt: skip

    def file(self, name, kind, number=1):
        return self.folder / "handed" / f"{name}-{number}.{kind}.tar"

    def secret(self, name, number=1):
        return self.folder / "handed" / f"{name}-{number}.mask.pem"

    def masks(self, name, number=1):
        return ("--joined", self.folder / "handed", "--secret", self.secret(name, number))

    def join(self, name, number=1):
        with self.at(name):
            return run("join", self.agreement, *self.asked(name, number), "-o", self.file(name, "join", number))

    def answer(self, name, number=1, version=None, spec="open"):
        with self.at(name):
            return run(
                "answer", *self.asked(name, number, spec), "--federation", "banks", "--version", version or name,
                "--agreement", self.agreement, *self.masks(name, number), "-o", self.file(name, "answers", number),
            )  # fmt: skip

    def all_join(self, number=1):
        for name in NAMES:
            self.join(name, number)

    def all_answer(self):
        for name in NAMES:
            self.answer(name)

    def unmask(self, name, among, number=1, spec="open"):
        with self.at(name):
            files = [self.file(n, "answers", number) for n in among]
            options = (
                *self.asked(name, number, spec),
                *self.masks(name, number),
                "-o",
                self.file(name, "unmask", number),
            )
            return run("unmask", self.agreement, *files, *options)

    def agrees(self, **values):
        """Change the agreement, as a site has it from now on."""
        self.agreement.write_text(yaml.safe_dump({**yaml.safe_load(self.agreement.read_text()), **values}))

    def mixed(self, among):
        files = [self.file(n, kind) for n in among for kind in ("answers", "unmask")]
        output = self.folder / "mixture.jsonl"
        asked = ("--spec", self.folder / "open.yaml", "--public", self.folder / "public.jsonl", "--round", 1)
        run("mix", self.agreement, *files, *asked, "-o", output)
        return read(output.read_bytes(), "m")

    def told(self, name, action):
        with self.at(name) as store:
            return [row.detail for row in entries(store, "letters") if row.action == action]


@pytest.fixture
def sites(tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_ACTOR", "ana")
    made = Versions()
    monkeypatch.setattr(Registry, "info", lambda _, *asked: made.info(*asked))
    return Sites(tmp_path, monkeypatch, made)


def test_a_round_under_masks_that_one_site_drops_out_of(sites):
    for name in NAMES:
        assert "keep" in sites.join(name)
    assert sites.secret("north").stat().st_mode & 0o777 == 0o600
    for name in NAMES[:3]:
        assert "behind masks" in sites.answer(name)
    for name in NAMES[:3]:
        sites.unmask(name, NAMES[:3])
    found = sites.mixed(NAMES[:3])
    assert {n: p.left_out for n, p in found.header.sites.items()} == dict.fromkeys(NAMES[:3]) | {"west": "dropped"}
    plain = []
    for name in NAMES[:3]:  # the same without masks
        with sites.at(name):
            output = sites.folder / f"{name}.plain.tar"
            run("answer", *sites.asked(name), "--federation", "banks", "--version", name, "-o", output)
            plain.append(output)
        # what is told without masks is more, and another entry
        assert [bool(d.get("peers")) for d in sites.told(name, ACTION)] == [True, False]
    agreed = {**yaml.safe_load(sites.agreement.read_text()), "masked": False}
    (sites.folder / "plain.yaml").write_text(yaml.safe_dump(agreed))
    asked = ("--spec", sites.folder / "open.yaml", "--public", sites.folder / "public.jsonl", "--round", 1)
    run("mix", sites.folder / "plain.yaml", *plain, *asked, "-o", sites.folder / "plain.jsonl")
    known = read((sites.folder / "plain.jsonl").read_bytes(), "m")
    for i in map(row_id, TEXTS):
        assert found.rows[i].distribution == pytest.approx(known.rows[i].distribution, abs=1e-8)


def test_asked_again_a_site_gives_the_same_files_and_one_entry(sites):
    sites.all_join()
    first = sites.file("north", "join").read_bytes()
    sites.join("north")
    assert sites.file("north", "join").read_bytes() == first
    made = []
    for _ in range(2):
        for name in NAMES[:3]:
            sites.answer(name)
        sites.unmask("north", NAMES[:3])
        made.append([sites.file("north", kind).read_bytes() for kind in ("answers", "unmask")])
    assert made[0] == made[1]
    assert len(sites.told("north", ACTION)) == len(sites.told("north", masked.ACTION)) == 1


def test_a_site_unmasks_for_one_set_of_sites_alone(sites):
    """The sums of two sets would tell what the site says in which they differ."""
    sites.all_join()
    sites.all_answer()
    sites.unmask("north", NAMES[:3])
    kept = sites.file("north", "unmask").read_bytes()
    with pytest.raises(ConfigError, match=r"were unmasked for the sum of east, north, south"):
        sites.unmask("north", NAMES)
    assert sites.file("north", "unmask").read_bytes() == kept
    seeds = json.loads(bundle.members(kept, "")["seeds.json"])
    assert seeds["dropped"].keys() == {"west"}


def test_masks_hide_one_answer_of_a_site_alone(sites):
    """Two answers behind the same masks tell what they differ in: of a newer student, or of another weight."""
    sites.all_join()
    sites.answer("north")
    first = sites.file("north", "answers").read_bytes()
    with pytest.raises(ConfigError, match=r"--round.*hide other answers of this site in round 1.*in a new round"):
        sites.answer("north", version="north-newer")
    agreed = yaml.safe_load(sites.agreement.read_text())
    agreed["sites"]["east"]["weight"] = 2.0
    sites.agrees(**agreed)
    with pytest.raises(ConfigError, match=r"--round.*hide other answers of this site"):
        sites.answer("north")
    assert sites.file("north", "answers").read_bytes() == first and len(sites.told("north", ACTION)) == 1


def test_masks_hide_one_answer_of_all_workloads_of_a_platform(sites):
    """The seeds of a secret are the same, whichever workload answers behind them."""
    (sites.folder / "other.yaml").write_text(SPEC.replace("name: letters", "name: others"))
    sites.all_join()
    sites.answer("north")
    with pytest.raises(ConfigError, match=r"--round.*hide other answers of this site in round 1"):
        sites.answer("north", version="north-newer", spec="other")
    sites.all_answer()
    sites.unmask("north", NAMES[:3])
    with pytest.raises(ConfigError, match="were unmasked for the sum of east, north, south"):
        sites.unmask("north", NAMES, spec="other")
    with sites.at("north") as store:
        assert not entries(store, "others")


def test_masks_are_off_for_one_set_of_sites_also_where_the_answers_are_others(sites, monkeypatch):
    """As of a site whose ledger does not have the first answers: the seeds are the same, whatever they hide."""
    sites.all_join()
    sites.all_answer()
    sites.unmask("north", NAMES[:3])
    with monkeypatch.context() as patched:
        patched.setattr(masked, "once", lambda *_: None)
        sites.answer("north", version="north-newer")
    with pytest.raises(ConfigError, match="were unmasked for the sum of east, north, south"):
        sites.unmask("north", NAMES)
    with pytest.raises(ConfigError, match="were unmasked for the sum of east, north, south"):
        sites.unmask("north", NAMES[:3])
    assert len(sites.told("north", masked.ACTION)) == 1


def test_a_round_that_all_join_anew_has_masks_of_its_own(sites):
    sites.all_join()
    sites.all_answer()
    sites.unmask("north", NAMES[:3])
    sites.all_join(2)
    for name in NAMES:
        sites.answer(name, 2, f"{name}-newer")
    sites.unmask("north", NAMES, 2)
    assert [d["round"] for d in sites.told("north", masked.ACTION)] == [1, 2]


def test_sites_may_have_the_classes_in_another_order(sites):
    sites.all_join()
    found = []
    for order in (["a", "b", "c"], ["c", "a", "b"]):
        sites.agrees(classes=order)
        sites.answer("north")
        found.append(bundle.members(sites.file("north", "answers").read_bytes(), "")["answers.u64"])
    assert found[0] == found[1]
    sites.answer("east"), sites.answer("west")
    for name in ("east", "north", "west"):
        sites.unmask(name, ("east", "north", "west"))
    rows = []
    for order in (["a", "b", "c"], ["b", "c", "a"]):
        sites.agrees(classes=order)
        rows.append(sites.mixed(("east", "north", "west")).rows)
    assert rows[0] == rows[1]


def test_a_student_that_knows_more_answers_for_the_classes_of_the_agreement(sites):
    sites.all_join()
    assert "behind masks" in sites.answer("north", version="more")
    sites.agrees(masked=False)
    output = sites.folder / "north.plain.tar"
    with sites.at("north"):
        run("answer", *sites.asked("north", 2), "--federation", "banks", "--version", "more", "--agreement",
            sites.agreement, "-o", output)  # fmt: skip
    assert [d["classes"] for d in sites.told("north", ACTION)] == [["a", "b", "c"]] * 2
    assert b"oops" not in bundle.members(output.read_bytes(), "")["answers.jsonl"]


def test_a_key_by_which_anybody_would_know_the_masks_is_refused(sites):
    sites.all_join()
    said = masked.Joined(federation="banks", site="west", round=1, public=set_digest(map(row_id, TEXTS)))
    file = sites.file("west", "join")
    file.write_bytes(masked.masked.write(masked.JOIN, said, b"00" * 32, signer(str(sites.keys["west"]))).data)
    with pytest.raises(ArtifactError, match=rf"{file}.*point of small order"):
        sites.answer("north")
    assert sites.told("north", ACTION) == []


def test_a_student_answers_under_masks_once(sites):
    sites.all_join()
    sites.answer("north")
    sites.file("west", "join").unlink()
    with pytest.raises(ConfigError, match=r"answered under masks in round 1.*let a newer student answer"):
        sites.answer("north")
    for name in NAMES[:3]:
        sites.join(name, 2)
    with pytest.raises(ConfigError, match="answered under masks in round 1"):
        sites.answer("north", 2)
    sites.answer("north", 2, "north-newer")


def test_what_would_not_fit_is_refused_before_anything_is_told(sites, tmp_path):
    sites.all_join()
    with pytest.raises(ConfigError, match=r"classes.*must be just those of the agreement.*differ in c"):
        sites.answer("north", version="fewer")
    kept = sites.agreement.read_text()
    sites.agrees(space="letters@2")
    with pytest.raises(ConfigError, match=r"space.*letters@1.*must be the agreement's: letters@2"):
        sites.answer("north")
    sites.agreement.write_text(kept)
    with pytest.raises(ConfigError, match=r"--secret.*must be the file"), sites.at("north"):
        run("answer", *sites.asked("north"), "--federation", "banks", "--version", "north", "--agreement",
            sites.agreement, "--joined", sites.folder / "handed", "--secret", tmp_path / "none.pem")  # fmt: skip
    other = ("--joined", sites.folder / "handed", "--secret", sites.secret("west"))
    with sites.at("north"):
        asked = ("answer", *sites.asked("north"), "--federation", "banks", "--version", "north")
        with pytest.raises(ConfigError, match=r"--joined.*this site's own file"):
            run(*asked, "--agreement", sites.agreement, *other)
        with pytest.raises(ConfigError, match=r"--agreement.*must name an agreement"):
            run(*asked, *other)
        with pytest.raises(ConfigError, match=r"--joined.*go with an agreement"):
            run(*asked, "--agreement", sites.agreement)
    assert sites.told("north", ACTION) == []
    for name in NAMES[:3]:
        sites.answer(name)
    with pytest.raises(ConfigError, match=r"must have the answers of west itself"):
        sites.unmask("west", NAMES[:3])
    with pytest.raises(ConfigError, match=r"min_sites.*the answers of 2 are here"):
        sites.unmask("north", NAMES[:2])
    sites.file("west", "join").unlink()
    with pytest.raises(ConfigError, match="must be the files that this site answered with"):
        sites.unmask("north", NAMES[:3])
    assert sites.told("north", masked.ACTION) == []


def test_a_round_without_masks_has_nothing_to_join(sites):
    agreed = msgspec.structs.replace(read_agreement(sites.agreement), masked=False)
    with pytest.raises(ConfigError, match="must be true in an agreement"):
        masked.require(agreed, "north")
    with pytest.raises(ConfigError, match=r"--site.*must be one of the agreement's"):
        masked.require(msgspec.structs.replace(agreed, masked=True), "coast")
