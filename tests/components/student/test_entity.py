import pickle

import msgspec
import numpy as np
import pytest

from components.contracts.errors import ConfigError
from components.contracts.payload import Carrying, Known, bare, carrying, decoder, knowing
from components.contracts.records import content_hash
from components.contracts.spec import Entity, EntityFeature, Factory, Features, Payload
from components.student.entity import EntityColumns, Event, events_of, text_of, values
from components.student.features import WithEntity, featuriser

EVENTS = (
    Event(10.0, "spam", 11.0, "a"), Event(20.0, "ham", 21.0, "b"), Event(30.0, "spam", 99.0, "c"),
)  # fmt: skip
OWN = Entity(
    features=(
        EntityFeature(name="seen", of="count", seconds=15.0, default=0.0),
        EntityFeature(name="since", of="since_last", default=1e6),
        EntityFeature(name="last", of="last_label", type="category", values=("spam", "ham"), default="none"),
        EntityFeature(name="spam", of="label_share", label="spam", default=0.5),
    )
)
NOTHING = {"seen": 0.0, "since": 1e6, "last": "none", "spam": 0.5}


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (5.0, NOTHING),
        (10.0, NOTHING),  # the input itself is no news
        (10.5, {"seen": 1.0, "since": 0.5, "last": "none", "spam": 0.5}),  # its label is not known yet
        (25.0, {"seen": 2.0, "since": 5.0, "last": "ham", "spam": 0.5}),
        (40.0, {"seen": 1.0, "since": 10.0, "last": "ham", "spam": 0.5}),
        (99.0, {"seen": 0.0, "since": 69.0, "last": "spam", "spam": 2 / 3}),
    ],
)
def test_what_is_told_is_what_was_known_before_the_input_came(at, expected):
    assert values(OWN, {"recent:recent": text_of(EVENTS)}, at) == expected


def test_of_what_nothing_is_known_the_default_is_told():
    assert values(OWN, {}, 50.0) == values(OWN, {"recent:recent": None}, 50.0) == NOTHING
    assert events_of(text_of(EVENTS)) == EVENTS


@pytest.mark.parametrize(
    ("found", "told"), [(3, 3.0), (True, 1.0), (None, -1.0), ("x", -1.0), (float("nan"), -1.0), (float("inf"), -1.0)]
)
def test_a_value_that_is_no_number_is_the_default_s_case(found, told):
    entity = Entity(features=(EntityFeature(name="age", view="v", default=-1.0),), objects="f.py:F")
    assert values(entity, {"v:age": found}, 1.0) == {"age": told}


def test_numbers_are_scaled_and_cut_off_and_categories_have_a_place_for_what_is_unseen():
    columns = EntityColumns((
        EntityFeature(name="n", view="v", default=4.0, mean=2.0, scale=2.0),
        EntityFeature(name="c", view="v", type="category", values=("x", "y"), default="x"),
        EntityFeature(name="l", view="v", default=0.0, log=True),
    ))  # fmt: skip
    rows = columns.encode([{"n": 0.0, "c": "y", "l": np.e - 1}, {"n": 1e9, "c": "new", "l": 1 - np.e}, {}])
    assert rows.tolist() == [pytest.approx(r) for r in ([-1, 0, 1, 0, 1], [8, 0, 0, 1, -1], [1, 1, 0, 0, 0])]
    assert rows.dtype == np.float32 and columns.width == 5


FED = Features(
    factory="components.student.columns:MixedColumns", options={"numbers": [{"name": "x"}]},
    entity=Entity(features=(EntityFeature(name="seen", of="count", seconds=1.0, default=7.0),)),
)  # fmt: skip


def test_a_featuriser_has_the_entity_s_array_beside_its_own():
    made = featuriser(FED)
    found = made.encode([Known({"x": 1.0}, {"seen": 2.0}), {"x": 3.0}])
    assert found["numbers"].tolist() == [[1.0], [3.0]] and found["entity"].tolist() == [[2.0], [7.0]]
    assert made.describe(Known({"x": 1.0}, {"seen": 2.0})) == {"x": 1.0}
    assert {n: t.shape for n, t in made.signature.items()}["entity"] == ("batch", 1)


def test_an_array_of_that_name_is_refused():
    class Taken:
        signature = featuriser(FED).signature

    with pytest.raises(ConfigError, match="is the name of an array of the featuriser already"):
        WithEntity(Taken(), FED.entity.features)


def test_a_payload_that_carries_what_is_known_is_the_same_payload():
    payload = carrying(b'{"x": 1}', {"seen": 2.0})
    assert payload == b'{"x": 1}' and content_hash(payload) == content_hash(b'{"x": 1}')
    again = pickle.loads(pickle.dumps(payload))  # noqa: S301
    assert isinstance(again, Carrying) and again.entity == {"seen": 2.0}
    assert carrying(b"x", None) == b"x" and not isinstance(carrying(b"x", None), Carrying)
    plain = decoder(Payload(decoder="json"))
    assert plain(payload) == {"x": 1}  # what a teacher is asked
    assert knowing(plain)(payload) == Known({"x": 1}, {"seen": 2.0}) and bare(knowing(plain)(payload)) == {"x": 1}
    assert knowing(plain)(b'{"x": 1}') == {"x": 1}


def test_how_it_is_looked_up_is_not_what_is_learnt_from():
    other = msgspec.structs.replace(FED.entity, timeout_ms=1.0, max_skew=0.5, cache_seconds=0.0)
    assert msgspec.structs.replace(FED, entity=other).learnt_from == FED.learnt_from == FED
    assert Features.of(Factory(factory="a:B", options={"c": 1})) == Features(factory="a:B", options={"c": 1})
