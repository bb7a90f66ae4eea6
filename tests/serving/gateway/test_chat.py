"""A workload as a chat model, with OpenAI's own client and LangChain's chat model over a real socket."""

import base64
import json
import math

import pytest

from components.contracts.records import Input
from serving.gateway import chat
from serving.gateway.wire import Answered, RequestError

ASKED = [{"role": "system", "content": "Say the sign."}, {"role": "user", "content": '{"x": 0.2}'}]

LINKED = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}


@pytest.fixture
def openai():
    """The client's package, whose import takes longer than these tests do: only where they run."""
    import openai

    return openai


@pytest.fixture
def client(url, openai):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_openais_client_gets_the_class_and_its_probabilities(client, running):
    said = client.chat.completions.create(
        model="signs", messages=ASKED, logprobs=True, top_logprobs=2, temperature=0.0, safety_identifier="alice",
        metadata={"id": "a", "consent": "training"},
    )  # fmt: skip
    (choice,) = said.choices
    assert choice.message.content == "pos" and choice.finish_reason == "stop" and said.model == "signs@1"
    (one,) = choice.logprobs.content
    shares = {top.token: math.exp(top.logprob) for top in one.top_logprobs}
    assert [one.token] == ["pos"] and list(shares) == ["pos", "neg"] and sum(shares.values()) == pytest.approx(1.0)
    assert bytes(one.bytes) == b"pos" and said.usage.total_tokens == 0
    whole = said.model_extra["cohobate"]
    assert whole["soft_label"] == pytest.approx(shares) and whole["arm"] == "champion"
    (entry,) = running.published(Input)
    assert (entry.id, entry.key, entry.consent, entry.payload) == ("a", "alice", "training", b'{"x": 0.2}')


def test_a_streamed_answer_is_the_same(client):
    chunks = list(client.chat.completions.create(
        model="signs", messages=ASKED, stream=True, logprobs=True, stream_options={"include_usage": True}
    ))  # fmt: skip
    deltas = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(d.delta.content or "" for d in deltas) == "pos"
    assert [d.finish_reason for d in deltas] == [None, None, "stop"] and deltas[0].delta.role == "assistant"
    (one,) = deltas[1].logprobs.content
    assert bytes(one.bytes) == b"pos" and one.top_logprobs == []
    assert [chunk.usage is not None for chunk in chunks] == [False, False, False, True]
    assert len({chunk.id for chunk in chunks}) == 1 and deltas[2] is not None


def test_models_and_versions_can_be_asked_for(client, openai):
    assert [m.id for m in client.models.list()] == ["signs", "signs@1"]
    said = client.chat.completions.create(model="signs@1", messages=ASKED)
    assert said.choices[0].message.content == "pos" and said.choices[0].logprobs is None
    for name in ("other", "signs@9"):
        with pytest.raises(openai.NotFoundError, match=r"no_model|no_version"):
            client.chat.completions.create(model=name, messages=ASKED)


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({"n": 2}, "n:"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": [{"role": "system", "content": "hi"}]}, "role user"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}, "'file'"),
        ({"messages": [{"role": "user", "content": [LINKED]}]}, "none is fetched"),
        ({"messages": [{"role": "user", "content": "{"}]}, "undecodable"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"safety_identifier": "k" * 257}, "the key has at most 256"),
    ],
)  # fmt: skip
def test_what_a_student_cannot_do_is_refused_by_name(client, openai, more, names):
    with pytest.raises(openai.UnprocessableEntityError, match=names):
        client.chat.completions.create(**{"model": "signs", "messages": ASKED, **more})


def test_where_it_is_unsure_the_teacher_is_asked_if_the_client_allows_it(client):
    unsure = [{"role": "user", "content": '{"x": 0.01}'}]
    alone = client.chat.completions.create(model="signs", messages=unsure).model_extra["cohobate"]
    said = client.chat.completions.create(model="signs", messages=unsure, extra_body={"allow_defer": True})
    assert alone["defer"] and not alone["degraded"]
    assert said.model_extra["cohobate"]["degraded"], "there is nobody to ask here"


def test_langchains_chat_model_is_answered(url):
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model="signs", base_url=f"{url}/v1", api_key="none", logprobs=True, top_logprobs=2)
    said = model.invoke([("user", '{"x": -3}')])
    assert said.content == "neg"
    assert [one["token"] for one in said.response_metadata["logprobs"]["content"]] == ["neg"]
    assert "".join(part.content for part in model.stream([("user", '{"x": 3}')])) == "pos"


def request(**more):
    return json.dumps({"model": "signs", "messages": ASKED, **more}).encode()


def test_bytes_come_as_an_image_or_a_sound(spec):
    data = base64.b64encode(b"\x89PNG").decode()
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
    ]
    for part in parts:
        content = [{"type": "text", "text": "What is it?"}, part]
        _, ask, _ = chat.read(spec, request(messages=[{"role": "user", "content": content}]))
        assert ask.items[0].content() == b"\x89PNG"
    with pytest.raises(RequestError, match="2 images or sounds"):
        chat.read(spec, request(messages=[{"role": "user", "content": parts}]))


def test_a_number_is_said_as_text(spec):
    import msgspec

    lines = msgspec.structs.replace(spec, task="regression")
    asked, _, _ = chat.read(lines, request())
    body, _ = chat.write(lines, asked, Answered(id="a", request_id="r", soft_label={"value": 2.5, "scale": 1.0}), 1.0)
    assert json.loads(body)["choices"][0]["message"]["content"] == "2.5"
    with pytest.raises(RequestError, match="a number has no log probabilities"):
        chat.read(lines, request(logprobs=True))


def test_a_class_without_probability_has_a_finite_log_probability(spec):
    asked, _, _ = chat.read(spec, request(logprobs=True, top_logprobs=2))
    answer = Answered(id="a", request_id="r", label="pos", soft_label={"neg": 0.0, "pos": 1.0})
    body, _ = chat.write(spec, asked, answer, 1.0)
    tops = json.loads(body)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    assert {t["token"]: t["logprob"] for t in tops} == {"pos": 0.0, "neg": chat.LEAST}
