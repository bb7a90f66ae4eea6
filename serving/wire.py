"""What goes over HTTP: requests, answers and problems (RFC 9457), as pydantic models, and so the OpenAPI schema."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from components.contracts.errors import RecordError

PROBLEM = "application/problem+json"
"""Media type of an error's body."""


class Problem(BaseModel):
    """Why something was not answered (RFC 9457); ``title`` is a stable code, ``detail`` is for people."""

    title: str
    status: int
    detail: str


class Item(BaseModel):
    """One input: exactly one of ``payload`` (base64), ``text`` and ``json``."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    id: str | None = Field(default=None, min_length=1, max_length=256, description="Identity; made up when absent.")
    key: str | None = Field(default=None, max_length=256, description="Entity; decides the arm. Default: the id.")
    time: float | None = Field(default=None, gt=0, description="Event time, Unix seconds. Default: now.")
    consent: str | None = Field(
        default=None, min_length=1, max_length=64, description="Terms under which it may be labelled and trained on."
    )
    payload: str | None = Field(default=None, description="The bytes, in base64.")
    text: str | None = None
    json_: Any = Field(default=None, alias="json")

    @model_validator(mode="after")
    def _one_payload(self) -> Item:
        given = self.model_fields_set & {"payload", "text", "json_"}
        if len(given) != 1 or (getattr(self, next(iter(given))) is None and "json_" not in given):
            raise ValueError("give exactly one of payload (base64), text and json")
        return self

    def content(self) -> bytes:
        """The payload's bytes.

        Raises:
            RecordError: ``payload`` is not base64.

        """
        if self.text is not None:
            return self.text.encode(errors="surrogatepass")
        if self.payload is None:
            return json.dumps(self.json_, ensure_ascii=False).encode(errors="surrogatepass")
        try:
            return base64.b64decode(self.payload, validate=True)
        except (binascii.Error, ValueError) as error:
            raise RecordError("undecodable", f"payload is not base64: {error}") from error


class Batch(BaseModel):
    """Several inputs, each answered or refused on its own. ``allow_defer``: the teacher may be asked, which is slow."""

    model_config = ConfigDict(extra="forbid")

    inputs: list[Item] = Field(min_length=1)
    allow_defer: bool = False


class Single(Item):
    """One input alone; its answer comes alone, and a refusal as the response's own status."""

    allow_defer: bool = False


def _form(body: Any) -> str:
    return "batch" if isinstance(body, Batch) or (isinstance(body, dict) and "inputs" in body) else "single"


Body = Annotated[Annotated[Batch, Tag("batch")] | Annotated[Single, Tag("single")], Discriminator(_form)]


class Answered(BaseModel):
    """The answer to one input, or the ``error`` why there is none.

    ``soft_label``: probabilities by class, or ``value`` and ``scale`` for regression. ``defer``: the student is not
    sure enough; with ``answered_by`` teacher, label, confidence and soft label are the teacher's.
    """

    id: str
    request_id: str
    label: str | None = None
    confidence: float | None = None
    soft_label: dict[str, float] = {}
    model_version: str | None = None
    snapshot: str | None = None
    teacher: str | None = None
    arm: Literal["champion", "candidate"] | None = None
    defer: bool = False
    defer_reason: str | None = None
    answered_by: Literal["student", "teacher"] | None = None
    error: Problem | None = None


class Answers(BaseModel):
    """Answers in the order of the inputs."""

    predictions: list[Answered]


class Version(BaseModel):
    """A version that a replica has loaded."""

    version: str
    digest: str
    snapshot: str
    teacher: str
    space: str
    classes: list[str]
    precision: str


class Model(BaseModel):
    """What a replica serves. ``weight``: the candidate's share in force; ``failed``: artifacts that do not load."""

    workload: str
    replica: str
    revision: int
    champion: Version | None
    candidate: Version | None
    weight: float
    shadow: bool
    failed: dict[str, str]


class Health(BaseModel):
    """Whether the replica lives, or is ready."""

    status: str
