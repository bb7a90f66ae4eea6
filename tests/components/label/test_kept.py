"""What was kept of inputs before masking was turned on."""

import msgspec
import pytest

from components.contracts.errors import ArtifactError, FinderError
from components.contracts.records import Input, content_hash, decode, encode
from components.contracts.spec import Factory, Masking, Payload, Spec
from components.contracts.storage import get_bytes, put_bytes
from components.control.tables import IncidentRow, ReviewRow, TeacherRow
from components.control.teachers import TeacherState, probes_of, teacher_state
from components.label import kept
from components.label.kept import mask_kept
from components.review import reviews

MAIL, PLAIN, BAD = b"write to ada@example.com", b"nothing here", b"\xff\xfe"


def spec_of(tmp_path, **masking):
    return Spec(
        name="w", teacher=Factory(factory="t:T"), features=Factory(factory="f:F"), payload=Payload(decoder="text"),
        source=str(tmp_path / "w.yaml"), masking=Masking(**({"entities": ("EMAIL",)} | masking)),
    )  # fmt: skip


@pytest.fixture
def artifacts(store, tmp_path):
    """Three questions, and three probes of which an incident offers one."""
    root = f"file://{tmp_path}/artifacts"
    probes = [{"content": content_hash(payload), "answers": [], "anchor": False} for payload in (MAIL, PLAIN, BAD)]
    for payload in (MAIL, PLAIN, BAD):
        put_bytes(f"{root}/w/probes/{content_hash(payload)}", payload)
    with store.transaction() as s:
        for n, payload in enumerate((MAIL, PLAIN, BAD)):
            entry = Input(workload="w", id=f"i{n}", key="k", time=1.0, payload=payload)
            s.add(
                ReviewRow(
                    workload="w", key=str(n), teacher="t@1", space="s@1", classes=["a", "b"], input=encode(entry),
                    draft=None, why="", policy="all", probability=1.0, audit=False, asked_at=1.0,
                    answered_at=2.0 if n == 0 else None,
                )
            )  # fmt: skip
        state = msgspec.to_builtins(TeacherState(space="s@1", classes=("a", "b"), probes=tuple(probes)))
        s.add(TeacherRow(workload="w", teacher="t@1", revision=1, state=state))
        s.add(
            IncidentRow(workload="w", teacher="t@1", epoch=0, suspect_from=1.0, opened_at=1.0, mixed=False,
                        candidate=probes[:2], detail={})
        )  # fmt: skip
    return root


def asked(store):
    with store.session() as s:
        return {row.key: decode(Input, row.input).payload for row in s.query(ReviewRow)}


def test_questions_are_masked_and_probes_in_which_something_is_found_are_deleted(store, artifacts, tmp_path):
    mask_kept(spec_of(tmp_path), store, artifacts)
    assert asked(store) == {"0": b"write to [EMAIL]", "1": PLAIN}  # what cannot be searched is kept nowhere
    assert probes_of(store, "w") == {content_hash(PLAIN)}
    assert teacher_state(store, "w", "t@1")[0] == 2
    assert get_bytes(f"{artifacts}/w/probes/{content_hash(PLAIN)}") == PLAIN
    for payload in (MAIL, BAD):
        with pytest.raises(ArtifactError):
            get_bytes(f"{artifacts}/w/probes/{content_hash(payload)}")
    mask_kept(spec_of(tmp_path), store, artifacts)
    assert teacher_state(store, "w", "t@1")[0] == 2, "a second start changes nothing"


def payload_of(artifacts, payload):
    return get_bytes(f"{artifacts}/w/probes/{content_hash(payload)}")


def test_payloads_that_no_state_names_any_more_are_searched_too(store, artifacts, tmp_path):
    with store.transaction() as s:
        s.query(TeacherRow).one().state = msgspec.to_builtins(TeacherState(space="s@1", classes=("a", "b")))
        s.query(IncidentRow).one().candidate = []
    mask_kept(spec_of(tmp_path), store, artifacts)
    assert payload_of(artifacts, PLAIN) == PLAIN
    for payload in (MAIL, BAD):
        with pytest.raises(ArtifactError):
            payload_of(artifacts, payload)


def test_a_start_that_was_killed_before_it_deleted_is_made_up_for(store, artifacts, tmp_path, monkeypatch):
    def killed(uri):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(kept, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            mask_kept(spec_of(tmp_path), store, artifacts)
    assert probes_of(store, "w") == {content_hash(PLAIN)} and payload_of(artifacts, MAIL) == MAIL
    mask_kept(spec_of(tmp_path), store, artifacts)
    with pytest.raises(ArtifactError):
        payload_of(artifacts, MAIL)


@pytest.mark.parametrize(
    ("payload", "stays"),
    [
        (b'{"b": 1.50,  "text": "nothing\\u0020here", "a": [1e2, {}]}', True),
        (b'{"text":"ada@example.com"}', False),
        (b'{"text":"ada@example.com","text":"nothing here"}', False),  # what stands there first is not searched
    ],
)
def test_a_probe_of_json_is_kept_where_nothing_is_found_however_it_is_written(store, tmp_path, payload, stays):
    spec = msgspec.structs.replace(spec_of(tmp_path), payload=Payload(decoder="json"))
    root, content = f"file://{tmp_path}/artifacts", content_hash(payload)
    put_bytes(f"{root}/w/probes/{content}", payload)
    probe = {"content": content, "answers": [], "anchor": True}
    state = msgspec.to_builtins(TeacherState(space="s@1", classes=("a", "b"), probes=(probe,)))
    with store.transaction() as s:
        s.add(TeacherRow(workload="w", teacher="t@1", revision=1, state=state))
    mask_kept(spec, store, root)
    assert probes_of(store, "w") == ({content} if stays else set())


def searched_at(spec, store, artifacts, monkeypatch):
    """The payloads of the questions that a start searches."""
    found, real = [], reviews.masked_input

    def noting(spec, entry):
        found.append(entry.payload)
        return real(spec, entry)

    with monkeypatch.context() as patched:
        patched.setattr(reviews, "masked_input", noting)
        mask_kept(spec, store, artifacts)
    return sorted(found)


def test_a_question_is_searched_once_by_the_same_masking(store, artifacts, tmp_path, monkeypatch):
    now = store.clock()
    monkeypatch.setattr(store, "clock", lambda: now)
    spec = spec_of(tmp_path)
    assert searched_at(spec, store, artifacts, monkeypatch) == sorted((MAIL, PLAIN, BAD))
    assert searched_at(spec, store, artifacts, monkeypatch) == []
    # one that another labeler, without masking yet, asked meanwhile: it may have begun before the first start
    entry = encode(Input(workload="w", id="i", key="k", time=1.0, payload=b"from bob@example.com"))
    with store.transaction() as s:
        s.merge(
            ReviewRow(workload="w", key="9", teacher="t@1", space="s@1", classes=["a", "b"], input=entry, draft=None,
                      why="", policy="all", probability=1.0, audit=False, asked_at=now - 60.0, published_at=now)
        )  # fmt: skip
    assert searched_at(spec, store, artifacts, monkeypatch) == [b"from bob@example.com"]
    assert asked(store)["9"] == b"from [EMAIL]"
    # another masking searches all of them
    more = spec_of(tmp_path, entities=("EMAIL", "PHONE"))
    assert len(searched_at(more, store, artifacts, monkeypatch)) == 3
    assert len(searched_at(spec, store, artifacts, monkeypatch)) == 3


def test_a_start_that_the_finder_failed_notes_nothing(store, artifacts, tmp_path, monkeypatch):
    def failed(spec, search):
        raise FinderError("finder", "is away")

    spec = spec_of(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(reviews, "searched", failed)
        with pytest.raises(FinderError):
            mask_kept(spec, store, artifacts)
    assert len(searched_at(spec, store, artifacts, monkeypatch)) == 3


def test_by_a_finder_whose_code_may_be_another_all_questions_are_searched_again(
    store, artifacts, tmp_path, monkeypatch
):
    code = (
        "def made():\n    return lambda text: [('NAME', i, i + 3) for i in range(len(text)) if text[i:i + 3] == {!r}]\n"
    )
    (tmp_path / "finder.py").write_text(code.format("zzz"))
    spec = spec_of(tmp_path, entities=("NAME",), finder=Factory(factory="finder.py:made"))
    assert len(searched_at(spec, store, artifacts, monkeypatch)) == 3
    assert len(searched_at(spec, store, artifacts, monkeypatch)) == 2


def test_without_masking_all_stays(store, artifacts, tmp_path):
    mask_kept(msgspec.structs.replace(spec_of(tmp_path), masking=None), store, artifacts)
    assert asked(store)["0"] == MAIL and len(probes_of(store, "w")) == 3


def test_while_the_finder_is_away_all_stays_and_the_labeler_does_not_start(store, artifacts, tmp_path):
    (tmp_path / "finder.py").write_text("def made():\n    def find(text):\n        raise OSError\n    return find\n")
    spec = spec_of(tmp_path, entities=("NAME",), finder=Factory(factory="finder.py:made"))
    with pytest.raises(FinderError):
        mask_kept(spec, store, artifacts)
    assert asked(store)["0"] == MAIL and len(probes_of(store, "w")) == 3
