import math

import pytest
from starlette.responses import Response

from components.contracts.errors import ConfigError, TeacherError, UnavailableError
from components.teachers.contract import TeacherChangedError
from tests.components.teachers.conftest import spamminess

TEXTS = ["win money !", "the kernel patch", "win win !", "a", "b"]


def test_texts_become_soft_labels_in_order(oip, oip_server):
    for text, soft in zip(TEXTS, oip().label(TEXTS), strict=True):
        assert soft.distribution["spam"] == pytest.approx(spamminess(text))
    (tensor,) = oip_server.bodies[-1]["inputs"]
    assert tensor == {"name": "text", "shape": [5, 1], "datatype": "BYTES", "data": TEXTS}
    assert oip_server.bodies[-1]["outputs"] == [{"name": "scores"}]


def test_logits(oip, oip_server):
    oip_server.kind = "logits"
    assert oip(output_kind="logits").label(TEXTS)[0].distribution["spam"] == pytest.approx(spamminess(TEXTS[0]))
    with pytest.raises(TeacherError, match="output_kind: logits"):
        oip().label(TEXTS)


def test_numbers(oip, oip_server):
    oip_server.inputs = [{"name": "x", "datatype": "FP64", "shape": [-1, 3]}]
    teacher = oip(model="table")
    assert teacher.label([[0.25, 1, 2], [0.75, 3, 4]])[1].distribution["spam"] == pytest.approx(0.75)
    assert oip_server.bodies[-1]["inputs"][0]["data"] == [0.25, 1.0, 2.0, 0.75, 3.0, 4.0]
    assert oip_server.bodies[-1]["inputs"][0]["shape"] == [2, 3]
    for payload in ([0.25, 1], ["a", 1, 2], "text"):
        with pytest.raises(TeacherError, match="rows of"):
            teacher.label([payload])


def test_a_large_batch_becomes_several_requests(oip, oip_server):
    texts = [f"win {i} {'!' * (i % 5)}" for i in range(23)]
    assert [s.distribution for s in oip(max_batch=5).label(texts)] == [s.distribution for s in oip().label(texts)]
    assert sorted(len(b["inputs"][0]["data"]) for b in oip_server.bodies) == [3, 5, 5, 5, 5, 23]
    oip_server.inputs[0]["shape"] = [1, 1]
    oip_server.bodies.clear()
    assert len(oip().label(TEXTS)) == 5 and len(oip_server.bodies) == 5


def test_parameters_version_and_names(oip, oip_server):
    oip_server.versions = ["2", "3"]
    teacher = oip(parameters={"content_type": "str"}, version="3", input="text", output="scores")
    teacher.label(TEXTS)
    assert oip_server.bodies[-1]["inputs"][0]["parameters"] == {"content_type": "str"}
    assert teacher.reported["version"] == "3"


def test_the_digest_covers_what_decides_an_answer_and_not_the_url(oip, oip_server):
    first = oip()
    assert first.digest == oip(url=oip_server.url.replace("127.0.0.1", "localhost")).digest
    assert first.digest == oip(max_batch=1, price_per_input=3.0, name="mailer").digest
    others = [
        oip(space="mail@2").digest, oip(classes=("spam", "ham")).digest, oip(output_kind="logits").digest,
        oip(parameters={"a": 1}).digest, oip(model="other").digest,
    ]  # fmt: skip
    oip_server.versions = [oip_server.version] = ["4"]
    others.append(oip().digest)
    oip_server.outputs[0]["shape"] = [-1, -1]
    others.append(oip().digest)
    assert len({first.digest, *others}) == 8


def test_another_version_or_model_is_an_error(oip, oip_server):
    teacher = oip()
    teacher.verify()
    oip_server.version = "4"
    with pytest.raises(TeacherChangedError, match="version was '3' and is '4'"):
        teacher.label(TEXTS)
    oip_server.version = "3"
    oip_server.faults += [lambda answer: answer | {"model_name": "other"}]
    with pytest.raises(TeacherChangedError, match="name was 'mailer' and is 'other'"):
        teacher.label(TEXTS)
    oip_server.outputs[0]["datatype"] = "FP64"
    with pytest.raises(TeacherChangedError, match="outputs was"):
        teacher.verify()


def output(**fields):
    return lambda answer: answer | {"outputs": [answer["outputs"][0] | fields]}


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (output(data=[0.5] * 9, shape=[5, 2]), "9 numbers, not 5 rows of 2 classes"),
        (output(data=[1 / 3] * 15, shape=[5, 3]), "15 numbers, not 5 rows of 2 classes"),
        (output(data=[0.5] * 8, shape=[4, 2]), "shape \\[4, 2\\] for 5 inputs"),
        (output(data=[0.5] * 9 + [None]), "NaN|no number"),
        (output(data=[0.5] * 9 + [0.7]), "sum to 1.2"),
        (output(data=["spam"] * 10), "no number"),
        (output(name="other"), "answered the outputs other, not scores"),
        (output(data="x"), "no inference"),
        (lambda answer: answer | {"outputs": []}, "outputs none"),
        (lambda answer: {"error": "x"}, "no inference"),
        (Response(b'{"model_name": "mailer", "outp', media_type="application/json"), "not JSON"),
        (Response(b'{"model_name": "mailer", "outputs": [NaN]}', media_type="application/json"), "not JSON"),
        (400, "HTTP 400"),
    ],
)
def test_answers_that_are_none_are_the_teachers_fault(oip, oip_server, fault, says):
    teacher = oip()
    oip_server.faults += [fault]
    with pytest.raises(TeacherError, match=says):
        teacher.label(TEXTS)
    assert len(teacher.label(TEXTS)) == 5


def test_faults_that_pass_do_not_show(oip, oip_server):
    oip_server.faults += [500, 0.05, Response(status_code=429, headers={"retry-after": "0"})]
    assert len(oip(http={"attempts": 4}).label(TEXTS)) == 5


def test_a_server_that_is_away_at_start_or_later(oip, oip_server):
    teacher = oip(http={"attempts": 1})
    oip_server.close()
    with pytest.raises(UnavailableError, match="mailer"):
        teacher.label(TEXTS)
    with pytest.raises(UnavailableError, match="mailer"):
        oip(http={"attempts": 1})


def tensor(**fields):
    return {"name": "text", "datatype": "BYTES", "shape": [-1, 1]} | fields


@pytest.mark.parametrize(
    ("inputs", "options", "says"),
    [
        ([], {}, "declares no input"),
        ([tensor(), tensor(name="b")], {}, "must be one of text, b"),
        ([tensor()], {"input": "b"}, "must be one of text"),
        ([tensor(datatype="JSON")], {}, "BYTES or numbers"),
        ([tensor(shape=[])], {}, "BYTES or numbers"),
        ([tensor(shape=[-1, 7])], {}, r"texts need \[-1\]"),
        ([tensor(shape=[8, 1])], {}, "first dimension must be -1 or 1"),
        ([tensor(datatype="FP32", shape=[-1, 3, 3])], {}, "rows of numbers"),
        ([tensor()], {"classes": ("a", "b", "c")}, r"classes is 3: the output scores has shape \[-1, 2\]"),
        ([tensor()], {"classes": ("a", "a")}, "different names"),
        ([tensor()], {"classes": ()}, "at least one"),
        ([tensor()], {"output": "x"}, "must be one of scores"),
        ([tensor()], {"output_kind": "scores"}, "probabilities or logits"),
        ([tensor()], {"max_batch": 0}, "max_batch"),
        ([tensor()], {"http": {"attempts": 0}}, "attempts"),
    ],
)
def test_models_and_options_that_do_not_fit_are_refused_at_start(oip, oip_server, inputs, options, says):
    oip_server.inputs = inputs
    with pytest.raises(ConfigError, match=says):
        oip(**options)


def test_outputs_and_versions_that_do_not_fit_are_refused_at_start(oip, oip_server):
    oip_server.versions = ["2", "3"]
    with pytest.raises(ConfigError, match="version is '': must be one of 2, 3"):
        oip()
    oip_server.versions = ["3"]
    oip_server.outputs[0]["datatype"] = "BYTES"
    with pytest.raises(ConfigError, match="is BYTES: must be one of FP16"):
        oip()


def test_wrong_payloads(oip):
    with pytest.raises(TeacherError, match=r"payload\.decoder to text"):
        oip().label([b"bytes"])
    assert oip(price_per_input=0.5).cost(TEXTS) == 2.5


@pytest.mark.parametrize("kind", ["probabilities", "logits"])
def test_each_class_of_a_set_has_a_number_of_its_own(oip, oip_server, kind):
    rows = [[0.9, 0.8], [0.2, 0.6]]
    data = [x if kind == "probabilities" else math.log(x / (1 - x)) for row in rows for x in row]
    oip_server.faults += [lambda answer: answer | {"outputs": [answer["outputs"][0] | {"data": data}]}]
    teacher = oip(task="multilabel", output_kind=kind)
    found = teacher.label(TEXTS[:2])
    assert teacher.task == "multilabel" and [s.label for s in found] == ['["ham", "spam"]', '["spam"]']
    assert [list(s.distribution.values()) for s in found] == [pytest.approx(row) for row in rows]
    assert teacher.digest != oip(output_kind=kind).digest


def test_numbers_that_are_no_chances_are_an_error_that_names_the_option(oip, oip_server):
    oip_server.faults += [lambda answer: answer | {"outputs": [answer["outputs"][0] | {"data": [0.5, 1.5]}]}]
    with pytest.raises(TeacherError, match=r"not in \[0, 1\].*output_kind: logits"):
        oip(task="multilabel").label(TEXTS[:1])
    with pytest.raises(ConfigError, match="must be classification or multilabel"):
        oip(task="regression")
