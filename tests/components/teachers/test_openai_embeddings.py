"""Vectors of a server in OpenAI's form: order, refusals, identity, tokens, and MiniLM's own."""

import pytest
from starlette.responses import JSONResponse
from starlette.routing import Route

from components.contracts.errors import ConfigError, RecordError, TeacherError, UnavailableError
from components.teachers.contract import TeacherChangedError, outcomes
from components.teachers.openai_embeddings import EmbeddingTeacher
from tests.components.teachers.conftest import Served, spamminess

TEXTS = ["win money !", "the kernel patch", "win win !"]


class EmbeddingServer(Served):
    """A model of three numbers, which refuses texts with ``poison`` in them and answers in another order."""

    def __init__(self):
        self.model, self.dimension, self.usage = "encoder-1", 3, True
        super().__init__(lambda me: [Route("/v1/embeddings", me.embed, methods=["POST"])])

    async def embed(self, request):
        return await self.answer(request, self.right)

    def right(self, body):
        if any("poison" in text for text in body["input"]):
            return JSONResponse({"error": "filtered"}, 400)
        rows = [
            {"object": "embedding", "index": i, "embedding": [1.0, spamminess(t), *[0.5] * (self.dimension - 2)]}
            for i, t in enumerate(body["input"])
        ]
        made = {"object": "list", "data": rows[::-1], "model": self.model}
        return made | ({"usage": {"prompt_tokens": 7 * len(rows)}} if self.usage else {})


@pytest.fixture
def server():
    made = EmbeddingServer()
    yield made
    made.close()


@pytest.fixture
def teacher(server):
    made = []

    def make(**options):
        http = {"attempts": 1, "backoff_seconds": 0.01, "timeout_seconds": 20.0}
        made.append(
            EmbeddingTeacher(**{"url": f"{server.url}/v1", "model": "enc", "space": "v@1", "http": http, **options})
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_texts_become_vectors_in_order(teacher, server):
    softs = teacher(scale=0.2, prefix="query: ").label(TEXTS)
    assert [s.vector for s in softs] == [(1.0, pytest.approx(spamminess(t)), 0.5) for t in TEXTS]
    assert {(s.task, s.space, s.scale) for s in softs} == {("embedding", "v@1", 0.2)}
    sent = server.bodies[-1]
    assert sent == {"model": "enc", "encoding_format": "float", "input": [f"query: {t}" for t in TEXTS]}


def test_a_large_batch_becomes_several_requests_and_texts_are_cut(teacher, server):
    asked = teacher(max_batch=2, max_characters=5)
    before = len(server.bodies)
    assert len(asked.label([f"{t} {i}" for i, t in enumerate(TEXTS)])) == 3
    assert sorted(len(b["input"]) for b in server.bodies[before:]) == [1, 2]
    assert {len(t) for b in server.bodies[before:] for t in b["input"]} == {5}


def test_an_input_that_the_server_refuses_is_a_dead_letter_and_no_other_is(teacher):
    found = outcomes(teacher(), ["fine", "poison", "win"])
    assert isinstance(found[1], RecordError) and found[1].reason == "teacher_refused"
    assert [found[i].vector[0] for i in (0, 2)] == [1.0, 1.0]


def test_another_model_or_dimension_is_another_teacher(teacher, server):
    first, told = teacher(), teacher(on_change="report")
    server.model = "encoder-2"
    with pytest.raises(TeacherChangedError, match="model was 'encoder-1' and is 'encoder-2'"):
        first.label(TEXTS)
    assert len(told.label(TEXTS)) == 3 and told.changed["model"] == "encoder-2"
    server.dimension = 4
    with pytest.raises(TeacherChangedError, match="dimension was 3 and is 4"):
        told.label(TEXTS)


def test_the_digest_covers_what_decides_an_answer_and_not_the_url(teacher, server):
    first = teacher()
    assert first.digest == teacher(url=f"{server.url.replace('127.0.0.1', 'localhost')}/v1", max_batch=3).digest
    others = [
        teacher(**o).digest for o in ({"scale": 0.2}, {"prefix": "q"}, {"space": "v@2"}, {"body": {"dimensions": 3}})
    ]
    assert len({first.digest, *others}) == 5


def test_tokens_are_counted_and_priced(teacher, server):
    asked = teacher(price_per_million_tokens=2.0)
    asked.label(TEXTS)
    assert asked.state()["prompt_tokens_total"] == 28 and asked.state()["spent_total"] == pytest.approx(28 * 2e-6)
    assert asked.cost(TEXTS) > 0.0
    server.usage = False
    asked.label(TEXTS)
    assert asked.state()["prompt_tokens_total"] > 28


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda a: a | {"data": a["data"][:2]}, "2 embeddings for 3 texts"),
        (lambda a: {"object": "list"}, "no embeddings"),
        (lambda a: a | {"data": [{"index": i, "embedding": [0.0] * 3} for i in range(3)]}, "a vector that is none"),
        (lambda a: a | {"data": [{"index": i, "embedding": [1.0] * (i + 1)} for i in range(3)]}, "several dimensions"),
    ],
)
def test_what_is_no_vector_is_the_teacher_s_fault(teacher, server, change, told):
    asked = teacher()
    server.faults += [change]
    with pytest.raises(TeacherError, match=told):
        asked.label(TEXTS)


def test_a_server_that_is_away_is_an_outage(teacher, server):
    asked = teacher()
    server.faults += [503]
    with pytest.raises(UnavailableError):
        asked.label(TEXTS)
    with pytest.raises(TeacherError, match="reads texts"):
        asked.label([b"bytes"])


@pytest.mark.parametrize(
    ("options", "field"),
    [({"scale": 0.0}, "scale"), ({"max_batch": 0}, "max_batch"), ({"on_change": "x"}, "on_change")],
)
def test_options_that_are_wrong_are_named(teacher, options, field):
    with pytest.raises(ConfigError, match=field):
        teacher(**options)
