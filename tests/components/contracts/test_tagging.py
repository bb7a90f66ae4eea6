import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.errors import RecordError
from components.contracts.records import SoftLabel, Span, Token, spans_of, spans_text
from components.contracts.tagging import (
    NONE,
    aligned,
    kind_of,
    names_of,
    span_counts,
    spans_from,
    spans_in,
    tagged,
    tagging,
    tags_of,
)

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def one(start, end, **shares):
    return Token(start=start, end=end, distribution={name.replace("_", "-"): p for name, p in shares.items()})


def soft(*tokens):
    return SoftLabel(task="tagging", space="s@1", tokens=tokens)


def test_names_are_all_tags_with_a_probability_and_tags_those_that_are_the_most_probable():
    said = soft(one(0, 3, B_PER=0.6, O=0.4), one(4, 5, O=1.0))
    assert names_of(said) == {"B-PER", "O"} and tags_of(said) == {"B-PER", "O"}
    assert tags_of(soft(one(0, 3, B_PER=0.4, O=0.6))) == {"O"}
    assert names_of(SoftLabel.of("s@1", ("a", "b"), [1.0, 0.0])) == {"a"}
    assert [kind_of(t) for t in ("B-PER", "I-PER", "PER", "B-", "O")] == ["PER", "PER", "PER", "B-", "O"]


def test_a_soft_label_is_made_of_places_and_probabilities():
    made = tagging("s@1", ("O", "PER"), [(0, 3), (4, 6)], [[0.25, 0.75], [1.0, 1e-9]])
    assert made == soft(one(0, 3, O=0.25, PER=0.75), one(4, 6, O=1.0))
    with pytest.raises(ValueError, match="sum to one"):
        tagging("s@1", ("O", "PER"), [(0, 3)], [[0.2, 0.2]])
    with pytest.raises(ValueError):
        tagging("s@1", ("O", "PER"), [(0, 3)], [])


def test_spans_are_counted_by_every_kind_that_there_is():
    said = soft(one(0, 3, B_PER=1.0), one(4, 6, I_PER=1.0), one(7, 8, B_PER=1.0))
    assert span_counts(said, TAGS) == {"answer_spans[LOC]": 0.0, "answer_spans[PER]": 2.0}


class TestAligned:
    """How a teacher's distributions go over to the student's tokens."""

    def test_of_a_word_s_pieces_the_first_counts(self):
        said = soft(one(0, 4, B_LOC=0.9, O=0.1), one(4, 10, I_LOC=1.0), one(11, 13, O=1.0))
        assert aligned(said, [(0, 10), (11, 13)]) == [{"B-LOC": 0.9, "O": 0.1}, {"O": 1.0}]

    def test_of_a_token_s_parts_the_first_alone_begins_a_span(self):
        said = soft(one(0, 8, B_LOC=0.7, I_LOC=0.1, O=0.2))
        first, second = aligned(said, [(0, 3), (4, 8)])
        assert first == {"B-LOC": 0.7, "I-LOC": 0.1, "O": 0.2}
        assert second == pytest.approx({"I-LOC": 0.8, "O": 0.2})

    def test_what_no_token_covers_is_in_no_span(self):
        said = soft(one(2, 5, PER=1.0))
        assert aligned(said, [(0, 2), (2, 3), (5, 6), (7, 9)]) == [NONE, {"PER": 1.0}, NONE, NONE]
        assert aligned(soft(), [(0, 2)]) == [NONE]

    def test_a_plain_tag_goes_on(self):
        assert aligned(soft(one(0, 8, PER=1.0)), [(0, 3), (4, 8)]) == [{"PER": 1.0}, {"PER": 1.0}]

    @given(st.lists(st.sampled_from(TAGS), max_size=8), st.integers(1, 3))
    def test_parts_of_whole_tokens_make_the_same_spans(self, tags, parts):
        """Spans of tokens that begin and end where the student's do are the teacher's."""
        said = soft(*(Token(start=6 * i, end=6 * i + 6, distribution={t: 1.0}) for i, t in enumerate(tags)))
        size = 6 // parts
        places = [(6 * i + j, 6 * i + j + size) for i in range(len(tags)) for j in range(0, 6, size)]
        found = aligned(said, places)
        assert spans_of((s, e, max(d, key=d.get)) for (s, e), d in zip(places, found, strict=True)) == said.spans

    @given(st.lists(st.sampled_from(TAGS), max_size=8))
    def test_the_same_tokens_stay_as_they_are(self, tags):
        said = soft(*(Token(start=2 * i, end=2 * i + 1, distribution={t: 1.0}) for i, t in enumerate(tags)))
        assert aligned(said, [(t.start, t.end) for t in said.tokens]) == [t.distribution for t in said.tokens]


class TestTagged:
    """How true spans become tags of the student's tokens."""

    SPANS = (Span(start=0, end=8, label="LOC"), Span(start=9, end=12, label="LOC"))
    PLACES = ((0, 3), (4, 8), (9, 12), (13, 14))

    @pytest.mark.parametrize(
        ("tags", "expected"),
        [
            (TAGS, ["B-LOC", "I-LOC", "B-LOC", "O"]),
            (("O", "LOC"), ["LOC", "LOC", "LOC", "O"]),
            (("O", "I-LOC"), ["I-LOC", "I-LOC", "I-LOC", "O"]),
            (("O", "B-LOC"), ["B-LOC", None, "B-LOC", "O"]),
            (("O", "B-PER"), [None, None, None, "O"]),
        ],
    )
    def test_they_are_written_as_the_student_s_tags_are(self, tags, expected):
        assert tagged(self.SPANS, self.PLACES, tags) == expected

    def test_a_token_is_of_the_first_span_that_it_shares_a_character_with(self):
        spans = (Span(start=0, end=2, label="PER"), Span(start=2, end=9, label="LOC"))
        assert tagged(spans, [(0, 5), (6, 9)], TAGS) == ["B-PER", "B-LOC"]

    @given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3), st.sampled_from(["PER", "LOC", ""])), max_size=6))
    def test_spans_of_whole_tokens_come_back(self, parts):
        at, spans, places = 0, [], []
        for size, gap, kind in parts:
            places += [(at + i, at + i + 1) for i in range(size)]
            if kind:
                spans.append(Span(start=at, end=at + size, label=kind))
            at += size + gap
        found = tagged(spans, places, TAGS)
        assert spans_of((s, e, tag) for (s, e), tag in zip(places, found, strict=True)) == tuple(spans)


class TestSpans:
    """Spans as text, and as people write them."""

    @given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9), st.sampled_from("ab")), max_size=5))
    def test_text_comes_back(self, parts):
        spans = sorted({Span(start=s, end=s + n, label=k) for s, n, k in parts})
        assert list(spans_in(spans_text(spans))) == spans

    @pytest.mark.parametrize("text", ["spam", "[1]", "[[0, 1]]", '[[3, 1, "a"]]', '[["a", 1, "a"]]'])
    def test_what_is_no_text_of_spans_is_refused(self, text):
        with pytest.raises(RecordError, match="not_spans"):
            spans_in(text)

    def test_two_forms_are_taken_and_come_in_order(self):
        expected = (Span(start=0, end=3, label="PER"), Span(start=4, end=6, label="LOC"))
        assert spans_from([[4, 6, "LOC"], {"start": 0, "end": 3, "label": "PER"}]) == expected
        assert spans_from([]) == ()

    @pytest.mark.parametrize(
        "given_", ["PER", [[0, 3]], [[3, 0, "PER"]], [{"start": 0, "label": "PER"}], [[0, 3, "O"]], None]
    )
    def test_what_are_no_spans_is_refused_with_the_remedy(self, given_):
        with pytest.raises(RecordError, match=r"write .*start: 0"):
            spans_from(given_)

    def test_overlapping_spans_are_refused(self):
        with pytest.raises(RecordError, match="overlap"):
            spans_from([[0, 5, "PER"], [4, 6, "LOC"]])
