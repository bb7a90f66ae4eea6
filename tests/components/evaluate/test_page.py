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
    assert "<link" not in text.split("<script>")[0] and "cdn.plot.ly" not in text.split("</script>")[-1]  # one file
    for said in ("size", "kind", "entropy of answers", "labels on the new holdout", "loss against the champion",
                 "accuracy on older regimes", "forgetting[window 1]", "confidence and what came true"):  # fmt: skip
        assert said in text, said
    assert text.split("</script>", 1)[1].count("Plotly.newPlot") == 7
    assert "more labels" in text and "at 90 %" in text


class Links(HTMLParser):
    """Every attribute that would fetch something."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [(tag, value) for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def test_a_page_of_evidence_alone_fetches_nothing_and_has_the_plots():
    made = [*rows("new", 40, 3), *rows("regime window 1-window 3", 40, 1), *rows("regime window 4", 40, 1)]
    judgement = Judgement(workload="w", task="classification", champion="c")
    evidence = demanded(Evidence(judgement=judgement, rows=tuple(made)), Limits(min_rows=5, min_agreement=0.8))
    text = evidence_page(evidence, {}, {"size": np.array([1.0, 2.0])}).decode()
    links = Links()
    links.feed(text)
    assert links.found == [] and text.split("</script>", 1)[1].count("Plotly.newPlot") == 6
    drawn = re.search(r'"name":"teacher, mean","x":(.*?),"y":(\[[^]]*\])', text)
    assert drawn is not None and drawn[1] == '["window 3","window 4","new"]' and drawn[2] == "[0.4,0.4,0.4]"


def test_what_is_not_there_is_left_out():
    text = page(made=rows("new", 3), before={}, now={"size": [1.0]})
    assert "Nothing to show." in text and "hold" in text
    one = Row(set="new", truth=1.0, teacher=Answer(value=1.0, scale=1.0), candidate=Answer(value=1.1, scale=1.0))
    assert "Nothing to show." in page("regression", [one] * 20)


def test_the_page_of_a_student_is_made_from_its_windows(letter_spec, letters, freeze_rows, tmp_path):
    from components.contracts.storage import put_bytes
    from components.evaluate.evaluate import evidence_folder
    from components.evaluate.evidence import encode

    windows = [freeze_rows(letter_spec, letters("ab", 20), f"file://{tmp_path}", i) for i in (1, 2)]
    evidence = Evidence(judgement=Judgement(workload="letters", task="classification"), rows=tuple(rows("new", 20)))
    put_bytes(f"{evidence_folder(windows[-1])}/abc.jsonl", encode(evidence))
    text = quality_page(letter_spec, windows, "abc").decode()
    assert "byte_entropy" in text and "teacher_label" in text and "window 2" in text
