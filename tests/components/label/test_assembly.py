"""A labeler as a platform starts it: with the teacher that its windows are of, or one that was declared."""

import contextlib

import msgspec
import pytest

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from components.contracts.spec import Factory, Label, Probe, Spec
from components.control.tables import WindowRow
from components.label.assembly import assemble
from components.stream.memory import MemoryBroker


class Newer:
    name, digest, task, space, classes, size_bytes = "letters", "2", "classification", "letters@1", ("a", "b"), 0


@pytest.fixture
def started(store, tmp_path):
    """Start a labeler whose teacher is ``letters@2``; says whose labels it makes."""
    spec = Spec(
        name="letters", teacher=Factory(factory=f"{__name__}:Newer"), features=Factory(factory="f:F"),
        label=Label(probe=Probe(size=0)),
    )  # fmt: skip

    def start(**changed):
        made = assemble(msgspec.structs.replace(spec, **changed), Settings(home=tmp_path), store, MemoryBroker())
        with contextlib.closing(made):
            return made.asking.reference

    return start


def window(store, number, teacher):
    made = {"digest": f"{number}" * 64, "workload": "letters", "number": number, "uri": "u", "rows": 9}
    store.add_window(WindowRow(**made, created_at=float(number), manifest={"teacher": teacher}))


def test_a_teacher_that_took_the_place_of_the_windows_is_refused_until_it_is_declared(started, store):
    assert started() == "letters@2", "before there is a window there is none to differ from"
    window(store, 1, "letters@1")
    with pytest.raises(ConfigError, match=r"teacher_digest.*windows so far are of letters@1.*letters@2.*on purpose"):
        started()
    assert started(teacher_digest="letters@2") == "letters@2"


def test_a_teacher_in_another_epoch_is_the_same(started, store):
    window(store, 1, "letters@2#3")
    assert started() == "letters@2"
    window(store, 2, "letters@1")
    with pytest.raises(ConfigError, match="letters@1"):
        started()
