"""Windows whose artifacts are on S3 and whose newest features are on PostgreSQL: no file of one machine is needed."""

import gc
import json

import msgspec
import pandas as pd
import pytest
from sqlalchemy.engine import make_url

from components.contracts.errors import ConfigError, UnavailableError
from components.contracts.spec import Entity, EntityFeature, Features
from components.contracts.storage import get_bytes, put_bytes
from components.snapshot import feature_repo, freeze, known_truths, read
from components.snapshot.entity_store import at_time, entity_store
from components.snapshot.features import FeatureRepo
from components.snapshot.table import known_of
from components.student.entity import values

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""Feast closes neither its connection to PostgreSQL nor the file that it reads its registry from S3 into."""

BASE = 1_700_000_000.0
NOW = BASE + 10_000


@pytest.fixture(autouse=True)
def left_open_by_feast():
    """Closed here, and not in the middle of another test."""
    yield
    gc.collect()


@pytest.fixture
def online(postgres, monkeypatch):
    url = make_url(postgres.database())
    store = {
        "type": "postgres", "host": url.host, "port": url.port, "database": url.database, "user": url.username,
        "password": "", "sslmode": "disable",
    }  # fmt: skip
    monkeypatch.setenv("COHOBATE_FEAST_ONLINE", json.dumps(store))


def test_windows_freeze_join_and_push_without_a_disk(spec, tape, put, make_label, make_truth, store, s3, online):
    put(*(make_label(i) for i in range(4)), make_truth(1, BASE + 5))
    first = freeze(spec, tape, store, s3, now=NOW)
    put(make_label(9), make_truth(0, BASE + 6), make_truth(9, BASE + 7, "b"))
    second = freeze(spec, tape, store, s3, now=NOW)
    assert (first.rows, second.rows) == (4, 1) and second.uri.startswith(s3)
    assert read(first.uri, first.digest)["truth_label"].to_pylist() == [None, "a", None, None]
    assert read(second.uri, second.digest)["truth_label"].to_pylist() == ["b"]
    assert sorted(known_truths(spec.name, s3)["input_id"].to_pylist()) == ["i0000", "i0001", "i0009"]
    repo = feature_repo(spec, s3)
    label = make_label(9)
    assert repo.latest([label.input.key], NOW)[label.input.key]["seen_at"] == label.input.time
    assert repo.truth(["i0000"], NOW)["i0000"]["truth_label"] == "a"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "COHOBATE_FEAST_ONLINE is None: must name an online store, because s3://"),
        ("redis", "must be JSON"),
        ('["redis"]', "must be a JSON object with a type"),
    ],
)
def test_a_root_that_is_not_here_needs_an_online_store(given, says, monkeypatch):
    if given is not None:
        monkeypatch.setenv("COHOBATE_FEAST_ONLINE", given)
    with pytest.raises(ConfigError, match=says) as caught:
        FeatureRepo("s3://bucket/files/feast", "files").latest(["k"], BASE)
    assert "hush" not in str(caught.value)


def test_a_store_that_does_not_answer_or_lets_nobody_in_is_unavailable(s3, monkeypatch):
    put_bytes(f"{s3}/a", b"1")
    assert get_bytes(f"{s3}/a") == b"1"
    with pytest.raises(UnavailableError, match="artifact store at s3://no-such-bucket-here/"):
        put_bytes("s3://no-such-bucket-here/a/b", b"1")


def test_a_scheme_without_its_package_says_what_to_install():
    with pytest.raises(ConfigError, match=r"COHOBATE_ARTIFACT_ROOT is 'abfs://.*package of their fsspec filesystem"):
        get_bytes("abfs://container/a")


SENDERS = """
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

who = Entity(name="who", join_keys=["who_id"], value_type=ValueType.STRING)
rows = FileSource(name="rows", path=str(Path(__file__).resolve().parent / "senders.parquet"), timestamp_field="at")
FEAST = [
    who,
    FeatureView(
        name="senders", entities=[who], ttl=timedelta(0), schema=[Field(name="age", dtype=Float64)], source=rows,
    ),
]
"""


def test_features_of_the_entity_are_joined_and_read_without_a_disk(
    spec, tape, put, make_label, store, s3, online, tmp_path
):
    (tmp_path / "senders.py").write_text(SENDERS)
    stamp = pd.to_datetime([BASE], unit="s", utc=True)
    rows = pd.DataFrame({"who_id": ["k"], "age": [31.0], "at": stamp})
    rows.to_parquet(tmp_path / "senders.parquet")
    entity = Entity(objects="senders.py:FEAST", features=(
        EntityFeature(name="seen", of="count", seconds=1_000.0, default=0.0),
        EntityFeature(name="age", view="senders", default=0.0),
    ))  # fmt: skip
    features = Features(factory=spec.features.factory, options=spec.features.options, entity=entity)
    spec = msgspec.structs.replace(spec, features=features)
    put(*(make_label(i) for i in range(3)))
    freeze(spec, tape, store, s3, now=NOW)
    put(make_label(9))
    second = freeze(spec, tape, store, s3, now=NOW)
    assert [known_of(text) for text in read(second.uri, second.digest)["entity"].to_pylist()] == [
        {"seen": 3.0, "age": 31.0}
    ]
    held = entity_store(spec, s3).online(["k"])["k"]
    assert values(entity, at_time(held, BASE + 10), BASE + 10) == {"seen": 4.0, "age": 31.0}
