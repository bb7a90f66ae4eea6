"""Four sites that share no inputs, from their students to one that the gate lets through: by functions, in one process.

One of the sites knows two of the four classes alone.
"""

import msgspec
import pytest

from components.contracts.spec import Variant
from components.contracts.storage import get_bytes
from components.distill.train import distill
from components.evaluate.evaluate import evaluate
from components.federation.exchange import row_id, set_digest
from components.federation.rounds import mixed
from components.student.runtime import Student
from components.teachers.contract import reference
from components.teachers.federation import Federation
from tests.components.conftest import LETTERS
from tests.components.federation.conftest import Desk
from tests.stores import migrated

TINY = Variant(name="tiny", dim=8, hidden=16)
KNOWN = {"east": "abcd", "north": "abcd", "south": "abcd", "west": "ab"}


def learnt(spec, window, artifacts):
    done = distill(spec, [window], variant=TINY, parent=None, artifacts=artifacts, seed=0)
    return done, Student.load(get_bytes(done.uri))


@pytest.fixture(scope="module")
def spec(letter_spec):
    apart = {"calibration": "apart", "epochs": 20}
    return msgspec.structs.replace(letter_spec, student=msgspec.structs.replace(letter_spec.student, **apart))


@pytest.fixture(scope="module")
def sites(spec, letters, freeze_rows, tmp_path_factory):
    """The student of each site, which has learnt from inputs that no other site has seen."""
    folder = f"file://{tmp_path_factory.mktemp('sites')}"
    windows = {
        name: freeze_rows(spec, letters(known, 40, seed=n), folder, n)
        for n, (name, known) in enumerate(KNOWN.items(), start=1)
    }
    return {name: learnt(spec, window, folder)[1] for name, window in windows.items()}


def handed_on(desk, sites, payloads, lying=()):
    """What the sites hand on; a site that lies says the next class."""
    wrong = dict(zip("abcd", "bcda", strict=True))
    files = {}
    for name, student in sites.items():
        answers = {p: s.distribution for p, s in zip(payloads, student.predict(payloads), strict=True)}
        if name in lying:
            answers = {p: {wrong[c]: share for c, share in d.items()} for p, d in answers.items()}
        files[name] = desk.file(
            name, answers=answers, space="letters@1", classes=student.card.classes,
            public=set_digest(map(row_id, payloads)), student=student.digest,
        )  # fmt: skip
    return files


@pytest.mark.parametrize(
    ("rule", "lying"), [("log_mean", ()), ("geometric_median", ("south",))], ids=["honest", "byzantine"]
)
def test_the_student_of_the_mixture_is_let_through_and_knows_what_a_site_does_not(
    spec, sites, letters, freeze_rows, tmp_path, rule, lying
):
    public = letters("abcd", 80, seed=90)
    payloads = [payload for payload, _, _ in public]
    desk = Desk(tmp_path, KNOWN)
    agreed = desk.agreement(space="letters@1", classes=tuple(LETTERS), rule=rule, min_sites=3)
    done = mixed(agreed, 1, map(row_id, payloads), handed_on(desk, sites, payloads, lying))
    (tmp_path / "m.jsonl").write_bytes(done.data)
    teacher = Federation(str(tmp_path / "m.jsonl"))
    rows = [(p, s, truth) for (p, _, truth), s in zip(public, teacher.label(payloads), strict=True)]
    artifacts = f"file://{tmp_path}"
    window = freeze_rows(spec, rows, artifacts, 1, teacher=reference(teacher))
    made, student = learnt(spec, window, artifacts)
    assert student.card.teacher == f"federation@{teacher.digest}" and "d" not in sites["west"].card.classes
    store = migrated(f"sqlite:///{tmp_path}/control.db")
    judged = evaluate(spec, made.uri, made.digest, made.float_uri, windows=[window], champion=None, store=store)
    store.close()
    assert judged.verdict.decision == "promote", judged.verdict.reasons
    unseen = letters("abcd", 25, seed=91)
    said = student.predict([payload for payload, _, _ in unseen])
    assert sum(s.label == truth for s, (_, _, truth) in zip(said, unseen, strict=True)) >= 95
