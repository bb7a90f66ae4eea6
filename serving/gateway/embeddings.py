"""A workload of embeddings in the form of OpenAI's embeddings, so that whatever asks such a model can ask a student.

https://platform.openai.com/docs/api-reference/embeddings. ``input`` is a text or a list of them; ``model`` is the
workload, or ``workload@version`` for one loaded version past the split; ``user`` is the inputs' key. ``allow_defer`` is
a field of ours (SDKs send it as an extra one). Vectors have length 1, as numbers or, with ``encoding_format: base64``,
as float32 of little endian, which is what SDKs ask for. The whole answers as ``/v1/predict`` gives them are beside the
data, without their vectors, as ``cohobate``. Where one input is refused the request is, since a list of vectors has no
place for an error. What a student cannot do is refused: tokens for text, another dimension. ``usage`` counts no tokens.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from components.contracts.spec import Spec
from serving.gateway.chat import Usage
from serving.gateway.wire import Answered, Ask, Item, RequestError, decoded, encode, raise_for


class Wanted(msgspec.Struct, kw_only=True):
    """A request for embeddings."""

    model: str
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: Annotated[str, Meta(max_length=256)] | None = None
    allow_defer: bool = False


class Embedding(msgspec.Struct, kw_only=True):
    """One vector, of the input at ``index``."""

    object: str = "embedding"
    index: int
    embedding: list[float] | str


class Embeddings(msgspec.Struct, kw_only=True):
    """An answer. ``model``: workload and version that answered; ``cohobate``: the answers of ``/v1/predict``."""

    object: str = "list"
    data: list[Embedding]
    model: str
    usage: Usage = msgspec.field(default_factory=Usage)
    cohobate: list[Answered]


_wanted = msgspec.json.Decoder(Wanted)


def read(spec: Spec, body: bytes, dimension: int | None) -> tuple[Wanted, Ask, str | None]:
    """A request as it is, as the gateway answers it, and the version that is asked past the split.

    ``dimension``: of the champion's vectors, where there is a champion.

    Raises:
        RequestError: 404 for another model; 400 for no JSON, 413 for too many texts, 422 for what is no request that a
            student can answer, or a workload that gives no vectors.

    """
    request = decoded(_wanted.decode, body)
    name, _, version = request.model.partition("@")
    if name != spec.name:
        raise RequestError(404, "no_model", f"the model is {spec.name!r}, or {spec.name}@VERSION")
    if spec.task != "embedding":
        told = f"{spec.name} is a {spec.task}: ask /v1/predict, or /v1/chat/completions"
        raise RequestError(422, "not_supported", f"model: {told}")
    texts = [request.input] if isinstance(request.input, str) else request.input
    if not texts or not all(isinstance(text, str) for text in texts):
        raise RequestError(422, "not_supported", "input: give a text or a list of texts: a student reads no tokens")
    if len(texts) > spec.serve.max_batch:
        raise RequestError(413, "too_many_inputs", f"input: a request has at most {spec.serve.max_batch} texts")
    if request.dimensions is not None and dimension is not None and request.dimensions != dimension:
        raise RequestError(422, "not_supported", f"dimensions: the student's vectors have {dimension} numbers")
    items = [Item(key=request.user or None, text=text) for text in texts]
    return request, Ask(items, request.allow_defer, None, False), version or None


def write(spec: Spec, request: Wanted, answers: Sequence[Answered]) -> bytes:
    """The body of an answer.

    Raises:
        RequestError: an input was refused.

    """
    data = []
    for index, answer in enumerate(answers):
        raise_for(answer.error)
        vector = answer.soft_label["vector"]
        packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append(Embedding(index=index, embedding=packed if request.encoding_format == "base64" else vector))
    versions = {a.model_version for a in answers}
    model = f"{spec.name}@{versions.pop()}" if len(versions) == 1 else spec.name
    bare = [
        msgspec.structs.replace(a, label=None, soft_label={"scale": a.soft_label["scale"]}) for a in answers
    ]  # fmt: skip
    return encode(Embeddings(data=data, model=model, cohobate=bare))
