"""Servers on real sockets: OIP v2 and OpenAI form, each with a queue of faults that its next requests meet."""

import asyncio
import contextlib
import inspect
import json
import math
import socket
import struct
import threading
from time import monotonic, sleep

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.clock import Time
from tests.ports import free_port

CLASSES = ("ham", "spam")
SPACE = "mail@1"


def spamminess(text):
    """The models' one thought: how spammy a text is, in (0, 1)."""
    return 1 / (1 + math.exp(-(text.count("win") * 2 + text.count("!") - 1)))


def p(x):
    return math.log(x) if x > 0 else -9999.0


class Served:
    """An ASGI app on a free port. ``faults`` are met by the next POSTs, one each, in order.

    ``fatal``: texts and the fault that every request with one of them meets, for good.
    """

    def __init__(self, routes):
        self.faults, self.bodies, self.headers, self.times = [], [], [], []
        self.fatal = {}
        self.under_way = self.most_under_way = 0
        self.app = Starlette(routes=routes(self))
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", free_port()))  # nobody else is given it once this one is closed
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        config = uvicorn.Config(self.app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()
        while not self.server.started:
            sleep(0.005)

    async def answer(self, request, right):
        """``right(body)``, or what the next fault makes of it."""
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            body = await request.json() if request.method == "POST" else None
            self.bodies.append(body)
            self.headers.append(dict(request.headers))
            self.times.append(monotonic())
            sent = "" if body is None else json.dumps(body, ensure_ascii=False)
            fault = next((f for text, f in self.fatal.items() if text in sent), None)
            fault = self.faults.pop(0) if self.faults else fault
            if isinstance(fault, Response):
                return fault
            if isinstance(fault, int):
                return JSONResponse({"error": f"fault {fault}"}, fault)
            if isinstance(fault, float):
                await asyncio.sleep(fault)
            if inspect.iscoroutinefunction(fault):
                await fault()
                fault = None
            answer = right(body)
            if isinstance(answer, Response):
                return answer
            return JSONResponse(fault(answer) if callable(fault) else answer)
        finally:
            self.under_way -= 1

    def close(self):
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()


class BreaksOff(Response):
    """Promises more than it sends: the server closes the connection in the middle of the answer."""

    def init_headers(self, headers=None):
        super().init_headers({"content-length": "100"})


class OipServer(Served):
    """A text model ``mailer`` of version 3 and a numeric one ``table``."""

    def __init__(self):
        self.version, self.kind, self.versions = "3", "probabilities", ["3"]
        self.inputs = [{"name": "text", "datatype": "BYTES", "shape": [-1, 1]}]
        self.outputs = [{"name": "scores", "datatype": "FP32", "shape": [-1, 2]}]
        super().__init__(lambda me: [
            Route("/v2/models/{model}", me.metadata),
            Route("/v2/models/{model}/versions/{version}", me.metadata),
            Route("/v2/models/{model}/infer", me.infer, methods=["POST"]),
            Route("/v2/models/{model}/versions/{version}/infer", me.infer, methods=["POST"]),
        ])  # fmt: skip

    async def metadata(self, request):
        return JSONResponse({
            "name": request.path_params["model"], "versions": self.versions, "platform": "test_v1",
            "inputs": self.inputs, "outputs": self.outputs,
        })  # fmt: skip

    async def infer(self, request):
        return await self.answer(request, lambda body: self.right(request.path_params["model"], body))

    def right(self, model, body):
        (tensor,) = body["inputs"]
        rows, data = tensor["shape"][0], tensor["data"]
        width = len(data) // rows
        items = [data[i * width : (i + 1) * width] for i in range(rows)]
        scores = [spamminess(i[0]) if tensor["datatype"] == "BYTES" else i[0] for i in items]
        pairs = [[1 - s, s] if self.kind == "probabilities" else [p(1 - s), p(s)] for s in scores]
        flat = [x for pair in pairs for x in pair]
        output = {"name": "scores", "datatype": "FP32", "shape": [rows, 2], "data": flat}
        return {"model_name": model, "model_version": self.version, "outputs": [output]}


class ChatServer(Served):
    """A model whose tokens are ``s`` + ``pam`` and ``ham``, and which says something else with 2 %."""

    def __init__(self):
        self.fingerprint, self.model, self.outside, self.writes = "fp_1", "mail-llm-2026-01", 0.02, None
        super().__init__(lambda me: [Route("/v1/chat/completions", me.complete, methods=["POST"])])

    async def complete(self, request):
        return await self.answer(request, self.right)

    def right(self, body):
        text = body["messages"][-1]["content"]
        if text.startswith("Write "):
            return self.written(body)
        spam = spamminess(text) * (1 - self.outside)
        first = {"ham": 1 - self.outside - spam, "s": spam, "The": self.outside / 2}
        taken = max(first, key=first.get)
        positions = [(taken, first)] + ([("pam", {"pam": 1.0})] if taken == "s" else [])
        content = [
            {
                "token": token, "logprob": p(top[token]), "bytes": list(token.encode()),
                "top_logprobs": [{"token": t, "logprob": p(q), "bytes": list(t.encode())} for t, q in top.items()],
            }
            for token, top in positions
        ]  # fmt: skip
        return {
            "id": "c1", "object": "chat.completion", "model": self.model, "system_fingerprint": self.fingerprint,
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": taken},
                         "logprobs": {"content": content}}],
            "usage": {"prompt_tokens": len(text.split()) + 20, "completion_tokens": len(positions), "total_tokens": 0},
        }  # fmt: skip

    def written(self, body):
        """Examples, as a chat model writes them: each request's are others, unless it shall write something else."""
        kind = body["messages"][-1]["content"].partition("of the class ")[2].partition(",")[0]
        text = self.writes or json.dumps([f"{kind} {body['seed']} {i}" for i in range(4)])
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return {"id": "c2", "object": "chat.completion", "model": self.model, "choices": [choice]}


class Resetting:
    """Answers the first ``times`` connections with half an answer and a TCP reset, and the others whole."""

    WHOLE = b'HTTP/1.1 200 OK\r\ncontent-length: 12\r\nconnection: close\r\n\r\n{"ok": true}'

    def __init__(self, times):
        self.times, self.seen = times, 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                self.seen += 1
                connection.recv(65536)
                if self.seen <= self.times:
                    connection.sendall(self.WHOLE[:-6])
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    connection.sendall(self.WHOLE)
                connection.close()

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


@pytest.fixture
def time(monkeypatch):
    """The time of rate limits, retries, pauses and breakers: what waits has waited at once."""
    made = Time()
    for module in (
        "components.teachers.http", "components.teachers.rate", "limits.storage.memory", "limits.strategies",
        "purgatory.domain.model", "tenacity.nap",
    ):  # fmt: skip
        monkeypatch.setattr(f"{module}.time", made)
    return made


@pytest.fixture
def oip_server():
    server = OipServer()
    yield server
    server.close()


@pytest.fixture
def chat_server():
    server = ChatServer()
    yield server
    server.close()


@pytest.fixture
def resetting():
    made = []

    def make(times):
        made.append(Resetting(times))
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture
def quick():
    """Options under which no test waits longer than it must."""
    return {
        "timeout_seconds": 300.0, "connect_seconds": 300.0, "attempts": 3, "backoff_seconds": 0.01,
        "max_backoff_seconds": 0.05, "breaker_failures": 50, "breaker_seconds": 0.2,
    }  # fmt: skip


@pytest.fixture
def oip(oip_server, quick):
    from components.teachers.oip import OipTeacher

    made = []

    def make(**options):
        http = quick | options.pop("http", {})
        given = {"url": oip_server.url, "model": "mailer", "space": SPACE, "classes": CLASSES} | options
        made.append(OipTeacher(**given, http=http))
        return made[-1]

    yield make
    for teacher in made:
        teacher.close()


@pytest.fixture
def chat(chat_server, quick):
    from components.teachers.openai_chat import ChatTeacher

    made = []

    def make(**options):
        http = quick | options.pop("http", {})
        given = {"url": chat_server.url + "/v1", "model": "mail-llm", "space": SPACE, "classes": CLASSES} | options
        made.append(ChatTeacher(**given, http=http))
        chat_server.bodies.clear()
        chat_server.times.clear()
        return made[-1]

    yield make
    for teacher in made:
        teacher.close()


@pytest.fixture(scope="session")
def transformer(tmp_path_factory):
    """A folder with a tiny BERT of random weights and its tokenizer, as ``save_pretrained`` writes it."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "win", "money", "kernel", "patch", "a", "the", "!"]
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, num_labels=2, id2label={0: "ham", 1: "spam"}, label2id={"ham": 0, "spam": 1},
        initializer_range=0.5,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    BertForSequenceClassification(config).eval().save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
