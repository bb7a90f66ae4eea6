"""The teacher sections of the documentation, as specs that are loaded and built."""

from string import Template

import pytest

from components.contracts.errors import ConfigError
from components.contracts.spec import build, load_spec
from components.teachers.contract import Deferred, outcomes

SECTIONS = {
    "oip": """
teacher:
  factory: components.teachers.oip:OipTeacher
  options:
    url: $oip                       # up to what stands before /v2
    model: mailer
    version: "3"
    space: mail@1
    classes: [ham, spam]            # in the order of the model's output
    output_kind: probabilities      # or logits
    http: {timeout_seconds: 10, concurrency: 4, api_key_env: MAILER_KEY}
""",
    "chat": """
teacher:
  factory: components.teachers.openai_chat:ChatTeacher
  options:
    url: $chat/v1
    model: mail-llm
    space: mail@1
    classes: [ham, spam]
    prompt: "Is this mail spam or ham?\\n\\n{text}"
    max_outside: 0.1
    on_outside: letter
    price_per_million_prompt_tokens: 0.15
    price_per_million_answer_tokens: 0.60
    http: {requests_per_minute: 500, tokens_per_minute: 200000, concurrency: 8, api_key_file: $key}
""",
    "transformers": """
teacher:
  factory: components.teachers.torch_module:TransformersTeacher
  options: {folder: $folder, space: mail@1, max_tokens: 256, batch: 16, device: cpu}
""",
    "human": """
teacher:
  factory: components.review.human:HumanTeacher
  options:
    space: mail@1
    guidelines: "Spam is what nobody asked for."
    below: 0.7                      # what the model is less sure of waits for a person
    primary:
      factory: components.teachers.oip:OipTeacher
      options: {url: $oip, model: mailer, space: mail@1, classes: [ham, spam]}
""",
}


@pytest.fixture
def spec(request, tmp_path, monkeypatch, oip_server, chat_server, transformer):
    key = tmp_path / "key"
    key.write_text("sk-1")
    monkeypatch.setenv("MAILER_KEY", "sk-2")
    values = {"oip": oip_server.url, "chat": chat_server.url, "key": str(key), "folder": str(transformer)}
    path = tmp_path / "spec.yaml"
    section = Template(SECTIONS[request.param]).substitute(values)
    path.write_text("name: mail\npayload: {decoder: text}\nfeatures: {factory: 'f:F'}\n" + section)
    return load_spec(path)


@pytest.mark.parametrize("spec", SECTIONS, indirect=True)
def test_the_documented_sections_work(spec):
    teacher = build(spec.teacher, spec.source)
    sure, unsure = outcomes(teacher, ["win win money !", "what!"])
    assert sure.space == "mail@1"
    assert isinstance(unsure, Deferred) == (teacher.name == "mailer-human")
    getattr(teacher, "close", lambda: None)()


@pytest.mark.parametrize("spec", ["chat"], indirect=True)
def test_a_key_in_the_spec_is_refused_and_not_repeated(spec):
    import msgspec

    wrong = msgspec.structs.replace(spec.teacher, options=spec.teacher.options | {"api_key": "hunter2"})
    with pytest.raises(ConfigError, match="api_key") as caught:
        build(wrong)
    assert "hunter2" not in str(caught.value)
