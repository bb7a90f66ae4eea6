import json
import os
import time

import pytest

from components.contracts.errors import TeacherError
from components.contracts.spec import build, load_spec
from tests.chaos.conduct import SPEC
from tests.chaos.teacher import SteeredTeacher, answer


@pytest.fixture
def steer(tmp_path, monkeypatch):
    monkeypatch.setenv("CHAOS_STEER", str(tmp_path))

    def fault(kind, seconds=1e6, hang=0.0):
        text = json.dumps({"kind": kind, "until": time.time() + seconds, "hang": hang})
        (tmp_path / "fault.json").write_text(text)

    return fault


def test_it_says_the_same_of_the_same_text_and_leaves_a_sign_of_work(steer, tmp_path):
    spec = load_spec(SPEC)
    teacher = build(spec.teacher, spec.source)
    assert [s.distribution for s in teacher.label(["x", "y"])] == [answer("x").distribution, answer("y").distribution]
    assert (tmp_path / f"work-{os.getpid()}").exists()


def test_its_faults_are_what_they_are_called(steer):
    teacher = SteeredTeacher()
    for kind, error in (("raise", TeacherError), ("nan", ValueError)):
        steer(kind)
        with pytest.raises(error):
            teacher.label(["x"])
    steer("crash")
    crashes = 0
    for n in range(40):
        try:
            assert teacher.label([f"text {n}"]) == [answer(f"text {n}")]
        except RuntimeError:
            crashes += 1
    assert 10 < crashes < 30, "half of the batches"
    steer("classes")
    assert not set(teacher.label(["x"])[0].distribution) & set(teacher.classes)
    steer("space")
    assert teacher.label(["x"])[0].space != teacher.space
    steer("short")
    assert len(teacher.label(["x", "y"])) == 1
    steer("hang", hang=0.3)
    started = time.monotonic()
    assert teacher.label(["x"]) == [answer("x")] and time.monotonic() - started >= 0.3


def test_a_fault_ends_with_its_time(steer):
    steer("raise", seconds=-1.0)
    assert SteeredTeacher().label(["x"]) == [answer("x")]
