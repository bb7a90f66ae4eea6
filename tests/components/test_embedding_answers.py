"""Wherever answers are compared, vectors are compared by how far apart they are, and never by their texts."""

import math

import msgspec
import numpy as np
import pytest

from components.contracts.errors import ArtifactError, ConfigError, RecordError, TeacherError
from components.contracts.records import Input, Label, SoftLabel, encode
from components.contracts.spec import Factory, Features, Spec
from components.distill.temperature import fit
from components.evaluate.evidence import Answer
from components.evaluate.membership import loss_of
from components.evaluate.share import agrees, confidence_of
from components.query.policies import entropy, margin, vote_entropy
from components.snapshot.provenance import Declared
from components.snapshot.table import snapshot_table, soft_of
from components.steps import Candidate
from components.stream.contract import Record
from components.student.parity import parity
from components.student.runtime import Student
from components.teacher_watch.probes import Comparison, Probe, distance
from components.teachers.contract import check
from components.teachers.minilm_embedding import check_scale
from pipelines.regimes import _better
from serving.rollout.evidence import Pending, Teachings, join
from tests.students import encoder


def at(degrees, scale=0.1, space="s@1"):
    """A vector in the plane, at an angle to the first axis."""
    angle = math.radians(degrees)
    return SoftLabel(task="embedding", space=space, vector=(math.cos(angle), math.sin(angle)), scale=scale)


NEAR, FAR = 30.0, 60.0
"""Degrees from an answer whose three expected distances of 0.1 are 45.6 degrees."""


def label(soft, number=0, teacher="t@1"):
    entry = Input(workload="files", id=f"i{number}", key="k", time=1.0, payload=b"%d" % number)
    made = Label(key="", teacher=teacher, soft=soft, input=entry, labelled_at=2.0)
    from components.teacher_watch.settle import keyed

    return keyed(made)


def test_agreement_is_within_what_the_teacher_expects():
    teacher = Answer.of(at(0.0))
    assert teacher.value is None and teacher.confidence is None and teacher.scale == 0.1
    assert agrees(Answer.of(at(NEAR)), teacher) and not agrees(Answer.of(at(FAR)), teacher)
    assert not agrees(Answer(), teacher) and not agrees(Answer.of(at(0.0)), None)
    assert confidence_of(Answer.of(at(0.0, 0.25))) == at(0.0, 0.25).confidence == 0.8
    assert loss_of(at(0.0), at(NEAR)) == pytest.approx(1.0 - math.cos(math.radians(NEAR)))


def test_a_canary_disagrees_beyond_what_the_teacher_expects():
    teachings = Teachings(10)
    teachings.learn(label(at(0.0)))
    content = next(iter(teachings._told))
    given = Pending(id="r", content=content, champion=at(NEAR).label, candidate=at(FAR).label)
    (audited,), waiting = join([given], teachings, "t@1")
    assert (audited.champion, audited.candidate, audited.slice) == (False, True, None) and not waiting


def test_probes_move_by_the_distance_in_expected_ones():
    assert distance(at(0.0), at(0.0)) == 0.0 and distance(at(0.0), at(180.0)) == 1.0
    assert distance(at(0.0), at(10.0)) == pytest.approx((1.0 - math.cos(math.radians(10.0))) / 0.1)
    assert distance(at(0.0), at(0.0, 0.2)) == pytest.approx(0.5) and distance(at(0.0), at(0.0, space="s@2")) == 1.0
    longer = SoftLabel(task="embedding", space="s@1", vector=(1.0, 0.0, 0.0), scale=0.1)
    assert distance(at(0.0), longer) == 1.0
    watch = Comparison([Probe(content="c", answers=(at(0.0),))], tolerance=2e-3, alpha=1e-4)
    assert not watch.observe("c", at(0.05)) and watch.observe("c", at(20.0))


def test_exports_differ_where_their_vectors_are_apart():
    found = parity([at(0.0), at(0.0)], [at(2.0), at(20.0)])
    assert found.gap == 0.5 and found.largest == pytest.approx((1.0 - math.cos(math.radians(20.0))) / 0.1)


def test_policies_prefer_large_expected_distances_and_members_that_part():
    sure, unsure = at(0.0, 0.05), at(0.0, 0.5)
    for policy in (margin, entropy):
        assert policy([[sure, unsure]]).tolist() == [0.05, 0.5]
    votes = vote_entropy([[at(0.0), at(0.0)], [at(0.0), at(90.0)]])
    assert votes.tolist() == pytest.approx([0.0, 1.0])


def test_a_former_champion_is_better_where_its_vector_is_nearer():
    assert _better(at(NEAR), at(FAR), at(0.0)) and not _better(at(FAR), at(NEAR), at(0.0))


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_calibration_multiplies_the_expected_distances_by_what_came(factor):
    chance = np.random.default_rng(0)
    expected = chance.uniform(0.05, 0.15, 2_000)
    came = (expected * factor * chance.exponential(size=2_000)).clip(0.0, 2.0)
    answers = [at(math.degrees(math.acos(1.0 - d)), s) for d, s in zip(came, expected, strict=True)]
    assert fit(answers, [at(0.0)] * 2_000, [None] * 2_000) == pytest.approx(factor, rel=0.1)


def test_a_teacher_s_vectors_have_one_length():
    class Teacher:
        name, digest, task, space, classes, size_bytes = "t", "1", "embedding", "s@1", (), 0

    short = SoftLabel(task="embedding", space="s@1", vector=(1.0,), scale=0.1)
    check(Teacher(), [at(0.0), at(10.0)])
    with pytest.raises(TeacherError, match=r"vectors of \[1, 2\] numbers"):
        check(Teacher(), [at(0.0), short])
    with pytest.raises(TeacherError, match="not a soft label for embedding"):
        check(Teacher(), [SoftLabel(task="regression", space="s@1", value=1.0, scale=1.0)])
    with pytest.raises(ConfigError, match=r"scale is 3\.0"):
        check_scale(3.0)


def test_a_window_takes_vectors_of_one_length_and_no_other_task():
    factory = Factory(factory="t:T")
    spec = Spec(name="files", task="embedding", teacher=factory, features=Features.of(factory))
    declared = Declared(spec=spec, teacher="t@1", state=None, space="s@1", verifier=None, dimension=2)

    def refused(soft):
        value = encode(label(soft))
        with pytest.raises(RecordError) as caught:
            declared.check(Record("files.labels", 0, 0, None, value, {}, 0.0))
        return caught.value.reason

    good = label(at(0.0))
    assert declared.check(Record("files.labels", 0, 0, None, encode(good), {}, 0.0)) == good
    assert refused(SoftLabel(task="embedding", space="s@1", vector=(1.0, 0.0, 0.0), scale=0.1)) == "undeclared_space"
    assert refused(SoftLabel(task="classification", space="s@1", distribution={"a": 1.0})) == "other_task"


def test_a_snapshot_has_the_vector_and_no_label():
    (row,) = snapshot_table([label(at(NEAR))], {}, 0.2).to_pylist()
    assert row["label"] is None and soft_of(row["soft"]) == at(NEAR) and row["confidence"] == at(NEAR).confidence


def test_a_student_answers_unit_vectors_of_its_card_s_dimension_alike_at_any_size_of_batch():
    card, data = encoder(5)
    student = Student.load(data)
    texts = [b"a lost parcel", b"great shop", b"?"]
    together = student.predict(texts)
    for text, soft in zip(texts, together, strict=True):
        (alone,) = student.predict([text])
        assert math.hypot(*soft.vector) == pytest.approx(1.0, abs=1e-6) and len(soft.vector) == card.dimension
        assert soft.vector == pytest.approx(alone.vector, abs=1e-6) and soft.scale > 0.0
    from components.distill.export import resealed

    wrong = resealed(data, msgspec.structs.replace(card, dimension=4), {})
    with pytest.raises(ArtifactError, match="vectors of 5 numbers, and its card says 4"):
        Student.load(wrong)


def test_of_two_variants_the_one_is_taken_whose_vectors_are_nearer():
    card, _ = encoder()
    plain = {"uri": "", "digest": "", "float_uri": "", "card": card, "parity_gap": None, "metrics": {}, "history": ()}
    near = Candidate(**plain, decision="promote", measurements={"agreement": 1.0, "cosine": 0.95})
    far = Candidate(**plain, decision="promote", measurements={"agreement": 1.0, "cosine": 0.85})
    assert near.score > far.score > Candidate(**plain, measurements={"agreement": 1.0, "cosine": 0.99}).score
