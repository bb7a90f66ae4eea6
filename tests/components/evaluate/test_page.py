import math
import re
from html.parser import HTMLParser

import numpy as np

from components.contracts.spec import Limits
from components.evaluate.evidence import Answer, Evidence, Judgement, Row
from components.evaluate.judge import demanded, judge
from components.evaluate.page import evidence_page, quality_page, render


def rows(name, n, wrong=0):
    a, b = (Answer(label=x, confidence=0.8, entropy=0.4) for x in "ab")
    return [
        Row(set=name, truth="a", teacher=a, candidate=b if i < wrong else a, champion=a) for i in range(n)
    ]  # fmt: skip


def page(task="classification", made=(), before=None, now=None):
    limits = Limits(min_rows=5, confidence=0.9, min_agreement=0.8, max_loss=0.1, max_forgetting=0.1)
    judgement = Judgement(workload="<w>", task=task, digest="d" * 64, champion="c")
    evidence = demanded(Evidence(judgement=judgement, rows=tuple(made)), limits)
    columns = {"size": [1.0, 2.0, math.nan, 3.0], "kind": ["x", "y", "x", "x"]}
    entropies = [("window 1", [0.1, 0.4]), ("window 2", [0.2, 0.9])]
    text = render(evidence, judge(evidence), before if before is not None else columns, now or columns, entropies)
    return text.decode()


def test_a_page_is_one_file_with_every_plot():
    made = [*rows("new", 40, 3), *rows("regime window 1", 40, 1)]
    text = page(made=made)
    assert text.startswith("<!doctype html>") and "&lt;w&gt;" in text and "<w>" not in text
    assert fetched(text) == [] and "<script" not in text  # one file, that runs nothing
    for said in ("size", "kind", "entropy of answers", "labels on the new holdout", "loss against the champion",
                 "accuracy on older regimes", "forgetting[window 1]", "confidence and what came true"):  # fmt: skip
        assert said in text, said
    assert text.count("<figure>") == text.count("<svg role") == 7
    assert "more labels" in text and "at 90 %" in text and "<th></th>" not in text


class Links(HTMLParser):
    """Every attribute that would fetch something, and every name that is defined twice or referred to and not there."""

    def __init__(self):
        super().__init__()
        self.found, self.names, self.used = [], [], set()

    def handle_starttag(self, tag, attrs):
        links = ("src", "href", "xlink:href", "srcset", "data", "action")
        self.found += [(tag, value) for name, value in attrs if name in links and not value.startswith("#")]
        self.names += [value for name, value in attrs if name == "id"]
        self.used |= {value[1:] for name, value in attrs if name in links and value.startswith("#")}


def fetched(text):
    links = Links()
    links.feed(text)
    assert links.used <= set(links.names)
    return links.found


def test_a_page_of_evidence_alone_fetches_nothing_and_has_the_charts():
    made = [*rows("new", 40, 3), *rows("regime window 1-window 3", 40, 1), *rows("regime window 4", 40, 1)]
    judgement = Judgement(workload="w", task="classification", champion="c")
    evidence = demanded(Evidence(judgement=judgement, rows=tuple(made)), Limits(min_rows=5, min_agreement=0.8))
    text = evidence_page(evidence, {}, {"size": np.array([1.0, 2.0])}).decode()
    assert fetched(text) == [] and text.count("<figure>") == 6
    entropy = text[text.index("entropy of answers (nats)") : text.index("<h2>Reliability")]
    assert re.findall(r">(window 3|window 4|new)<", entropy) == ["window 3", "window 4", "new"]


def chart(text, title):
    """The chart of this title, which stands above it in the page and not in it."""
    after = text.split(f"<figcaption>{title}</figcaption>", 1)[1]
    drawn = after[: after.index("</svg>")]
    assert after.startswith("<svg ") and f">{title}<" not in drawn
    return drawn


def confused(names):
    """The page of a student that takes the last of these classes for the first, and is right about the others."""
    answers = {name: Answer(label=name, confidence=0.8, entropy=0.4) for name in names}
    made = [Row(set="new", truth=n, teacher=answers[n], candidate=answers[n]) for n in names[:-1] for _ in range(7)]
    made += [Row(set="new", truth=names[-1], teacher=answers[names[-1]], candidate=answers[names[0]])] * 7
    return page(made=made)


def test_classes_have_their_whole_names_and_a_pair_that_never_came_has_no_number():
    names = [f"a class with a long name {n:02}" for n in range(12)]
    drawn = chart(confused(names), "labels on the new holdout")
    assert [drawn.count(f">{name}<") for name in names] == [2] * 12, "on both axes"
    assert drawn.count(">7<") == 12 and ">0<" not in drawn
    assert ">teacher<" in drawn and ">student<" in drawn


def test_markup_and_dollars_in_names_are_text_and_a_name_without_end_is_shortened():
    names = ["<script>alert(1)</script>", "a $frac$ \\frac{ $", 'a"b&c', "n" * 300]
    text = confused(names)
    drawn = chart(text, "labels on the new holdout")
    assert "<script" not in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in drawn
    assert "a $frac$ \\frac{ $" in drawn and "n" * 41 not in drawn and "n…n" in drawn
    named = page(made=rows("new", 40), now={"<b>size": [1.0, 2.0], "$x^{": ["<i>", "$$"]})
    assert "<b>" not in named and "<i>" not in named and "&lt;i&gt;" in named


def test_a_column_without_numbers_or_with_infinite_ones_is_drawn_from_what_there_is():
    columns = {
        "none": [math.nan, math.nan],
        "far": [1.0, math.inf, -math.inf, 2.0],
        "same": [3.0, 3.0],
        "nearly": [0.1 + 0.2, 0.3],
        "large": [1e12, math.nextafter(1e12, 0.0)],
        "wide": [-1e300, 1e300],
    }
    text = page(made=rows("new", 40), before={}, now=columns)
    drawn = re.findall("<figcaption>([a-z]+)</figcaption>", text)
    assert [name for name in columns if name in drawn] == ["far", "same", "nearly", "large", "wide"]


def test_the_densest_confusion_and_some_columns_weigh_less_than_a_megabyte_and_a_half():
    names = [f"class {n}" for n in range(60)]
    answers = [Answer(label=name, confidence=0.8, entropy=0.4) for name in names]
    made = [Row(set="new", truth=names[i], teacher=answers[i], candidate=answers[j]) for i in range(60)
            for j in range(60)]  # fmt: skip
    now = {"n": [float(i % 97) for i in range(500)], "t": [f"value {i % 50}" for i in range(500)]}
    assert len(page(made=made, before=now, now=now)) < 1_500_000


def test_what_is_not_there_is_left_out():
    text = page(made=rows("new", 3), before={}, now={"size": [1.0]})
    assert "Nothing to show." in text and "hold" in text
    one = Row(set="new", truth=1.0, teacher=Answer(value=1.0, scale=1.0), candidate=Answer(value=1.1, scale=1.0))
    assert "Nothing to show." in page("regression", [one] * 20)


def test_the_page_of_a_student_is_made_from_its_windows(letter_spec, letters, freeze_rows, tmp_path):
    from components.contracts.storage import put_bytes
    from components.evaluate.evidence import encode
    from components.steps import evidence_folder

    windows = [freeze_rows(letter_spec, letters("ab", 20), f"file://{tmp_path}", i) for i in (1, 2)]
    evidence = Evidence(judgement=Judgement(workload="letters", task="classification"), rows=tuple(rows("new", 20)))
    put_bytes(f"{evidence_folder(windows[-1])}/abc.jsonl", encode(evidence))
    text = quality_page(letter_spec, windows, "abc").decode()
    assert "byte_entropy" in text and "teacher_label" in text and "window 2" in text
