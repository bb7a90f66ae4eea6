"""A teacher behind the Open Inference Protocol v2 over REST (KServe, Triton, MLServer, TorchServe, OpenVINO, ...).

Source: Open Inference Protocol, ``inference_rest.yaml`` (kserve/open-inference-protocol).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

import msgspec
import numpy as np

from components.contracts.errors import ConfigError, TeacherError
from components.contracts.records import SoftLabel, Task
from components.contracts.spec import class_names
from components.teachers.answers import Kind, distributions
from components.teachers.contract import TeacherChangedError, identity_digest
from components.teachers.http import Endpoint, Http, Remote

NUMBERS = ("FP16", "FP32", "FP64", "BF16")
"""Data types that hold probabilities or logits."""

INTEGERS = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "BOOL")


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]


class _Metadata(msgspec.Struct):
    name: str
    versions: list[str] | None = None
    platform: str = ""
    inputs: list[_Tensor] = []
    outputs: list[_Tensor] = []


class _Output(msgspec.Struct):
    name: str
    shape: list[int]
    data: list[Any]


class _Inference(msgspec.Struct):
    model_name: str
    outputs: list[_Output]
    model_version: str | None = None


class OipTeacher(Remote):
    """A classifier served by the Open Inference Protocol, of one class of an input or (``task``) of a set of them.

    ``url`` up to what stands before ``/v2``. ``input`` and ``output`` name the tensors; empty where the model has one.
    Payloads are texts for a ``BYTES`` input of shape [-1] or [-1, 1], and rows of numbers for a numeric one of shape
    [-1, n]; the output has a row with a number for each of ``classes``, in their order: ``output_kind`` says whether
    these are ``probabilities`` or ``logits``. ``task``: ``classification``, or ``multilabel``, where each number is a
    class's own. ``version`` may be empty where the server has only one. ``max_batch``:
    inputs per request; larger batches become several requests. ``parameters`` of the input tensor, such as MLServer's
    ``content_type: str``. ``price_per_input`` in any one currency. ``http``: see
    :class:`components.teachers.http.Http`.

    The digest covers what the server reports of the model (name, version, platform, tensors) and every option that
    decides an answer; the URL is not part of it. Weights that are replaced under the same version do not show in it.

    Raises:
        ConfigError: an option is wrong, or does not fit the model's tensors.
        UnavailableError: the server does not answer.

    """

    def __init__(
        self,
        url: str,
        model: str,
        space: str,
        classes: Sequence[str],
        *,
        version: str = "",
        input: str = "",
        output: str = "",
        output_kind: Kind = "probabilities",
        task: Literal["classification", "multilabel"] = "classification",
        max_batch: int = 64,
        parameters: Mapping[str, Any] | None = None,
        name: str = "",
        size_bytes: int = 0,
        price_per_input: float = 0.0,
        http: dict[str, Any] | None = None,
    ) -> None:
        self.name, self.space, self.classes, self.size_bytes = name or model, space, class_names(classes), size_bytes
        if len(set(self.classes)) != len(self.classes) or not self.classes:
            raise ConfigError("classes", self.classes, "must be different names, at least one")
        if task not in ("classification", "multilabel"):
            raise ConfigError("task", task, "must be classification or multilabel")
        self.task: Task = task
        if output_kind not in ("probabilities", "logits"):
            raise ConfigError("output_kind", output_kind, "must be probabilities or logits")
        if max_batch < 1:
            raise ConfigError("max_batch", max_batch, "must be at least 1")
        self._model, self._kind, self._price = model, output_kind, price_per_input
        self._parameters = dict(parameters or {})
        self._endpoint = Endpoint(self.name, url, Http.of(http))
        self._path = f"v2/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")
        with self._endpoint.closed_on_error():
            metadata = self._metadata()
            self._version = self._one_version(metadata, version)
            self._input = self._tensor("input", input, metadata.inputs)
            self._output = self._tensor("output", output, metadata.outputs)
            self._max_batch = min(max_batch, self._check_tensors())
        self.reported = self._reported(metadata)
        self.digest = identity_digest(
            {
                "kind": "oip", "reported": self.reported, "input": self._input.name, "output": self._output.name,
                "output_kind": output_kind, "parameters": self._parameters, "space": space,
                "classes": list(self.classes), **({} if task == "classification" else {"task": task}),
            }
        )  # fmt: skip

    def label(self, payloads: Sequence[Any]) -> list[SoftLabel]:
        """Soft labels of texts or rows of numbers.

        Raises:
            TeacherError: an answer is not a distribution over the classes, or the server refuses the request.
            TeacherChangedError: the server answers with another model or version.
            UnavailableError: the server does not answer.

        """
        if not payloads:
            return []
        chunks = [list(payloads[i : i + self._max_batch]) for i in range(0, len(payloads), self._max_batch)]
        for chunk in chunks:
            self._check_payloads(chunk)
        return [soft for answered in self._endpoint.each(self._infer, chunks, payloads=tuple) for soft in answered]

    def verify(self) -> None:
        """Read the model's metadata again.

        Raises:
            TeacherChangedError: it is not what it was at start.

        """
        found = self._reported(self._metadata())
        if found != self.reported:
            raise TeacherChangedError(self.name, self.reported, found)

    def cost(self, payloads: Sequence[Any]) -> float:
        """What labelling these costs."""
        return len(payloads) * self._price

    def state(self) -> dict[str, Any]:
        """The endpoint's state, with the identity that the server reported at start."""
        return self._endpoint.state() | {"reported": dict(self.reported)}

    def _metadata(self) -> _Metadata:
        answer = self._endpoint.get(self._path)
        try:
            return msgspec.convert(answer, _Metadata)
        except msgspec.ValidationError as error:
            raise TeacherError(
                self.name, f"answered no model metadata: {error}; is url what stands before /v2?"
            ) from error

    def _one_version(self, metadata: _Metadata, version: str) -> str:
        versions = metadata.versions or []
        if version or len(versions) <= 1:
            return version or "".join(versions)
        raise ConfigError("version", version, f"must be one of {', '.join(versions)}: the server has several")

    def _tensor(self, field: Literal["input", "output"], name: str, tensors: list[_Tensor]) -> _Tensor:
        names = [t.name for t in tensors]
        if not names:
            raise ConfigError(field, name, f"the server declares no {field} of {self._model}: declare it there")
        if (name and name not in names) or (not name and len(names) > 1):
            raise ConfigError(field, name, f"must be one of {', '.join(names)}")
        return next(t for t in tensors if t.name == (name or names[0]))

    def _check_tensors(self) -> int:
        """The largest batch that the tensors' shapes allow."""
        taken, given = self._input, self._output
        rest = [n for n in taken.shape[1:] if n != 1]
        if taken.datatype not in ("BYTES", *NUMBERS, *INTEGERS) or not taken.shape:
            raise ConfigError("input", taken.name, f"is {taken.datatype}{taken.shape}: must be BYTES or numbers")
        if taken.datatype == "BYTES" and rest not in ([], [-1]):
            raise ConfigError("input", taken.name, f"has shape {taken.shape}: texts need [-1] or [-1, 1]")
        if taken.datatype != "BYTES" and len(taken.shape) != 2:
            raise ConfigError("input", taken.name, f"has shape {taken.shape}: rows of numbers need [-1, n]")
        if given.datatype not in NUMBERS:
            raise ConfigError("output", given.name, f"is {given.datatype}: must be one of {', '.join(NUMBERS)}")
        if len(given.shape) < 2 or given.shape[-1] not in (-1, len(self.classes)):
            raise ConfigError("classes", len(self.classes), f"the output {given.name} has shape {given.shape}")
        fixed = taken.shape[0]
        if fixed not in (-1, 1):
            raise ConfigError("input", taken.name, f"has shape {taken.shape}: its first dimension must be -1 or 1")
        return 1 if fixed == 1 else 1_000_000

    def _check_payloads(self, chunk: list[Any]) -> None:
        if self._input.datatype == "BYTES":
            if not all(isinstance(p, str) for p in chunk):
                raise TeacherError(self.name, "reads texts: set payload.decoder to text")
            return
        width = self._input.shape[1]
        try:
            shape = np.asarray(chunk, dtype=np.float64).shape
        except (TypeError, ValueError) as error:
            raise TeacherError(self.name, f"reads rows of numbers: set payload.decoder to json ({error})") from error
        if len(shape) != 2 or width not in (-1, shape[1]):
            raise TeacherError(self.name, f"reads rows of {width} numbers, not of shape {shape[1:]}")

    def _infer(self, chunk: list[Any]) -> list[SoftLabel]:
        text = self._input.datatype == "BYTES"
        shape = [len(chunk)] + ([1] * (len(self._input.shape) - 1) if text else [len(chunk[0])])
        tensor: dict[str, Any] = {
            "name": self._input.name, "shape": shape, "datatype": self._input.datatype,
            "data": chunk if text else [float(n) if self._input.datatype in NUMBERS else n for r in chunk for n in r],
        }  # fmt: skip
        if self._parameters:
            tensor["parameters"] = self._parameters
        body = {"inputs": [tensor], "outputs": [{"name": self._output.name}]}
        answer = self._endpoint.post(f"{self._path}/infer", body, inputs=len(chunk))
        try:
            found = msgspec.convert(answer, _Inference)
        except msgspec.ValidationError as error:
            raise TeacherError(self.name, f"answered no inference: {error}; does the server speak v2?") from error
        self._compare(found)
        return self._soft(found, len(chunk))

    def _compare(self, found: _Inference) -> None:
        version = found.model_version or self._version
        if found.model_name != self.reported["name"] or (self._version and version != self._version):
            now = self.reported | {"name": found.model_name, "version": version}
            raise TeacherChangedError(self.name, self.reported, now)

    def _soft(self, found: _Inference, asked: int) -> list[SoftLabel]:
        outputs = [o for o in found.outputs if o.name == self._output.name]
        if not outputs:
            names = ", ".join(o.name for o in found.outputs) or "none"
            raise TeacherError(self.name, f"answered the outputs {names}, not {self._output.name}: check output")
        shape = outputs[0].shape
        if not shape or shape[0] != asked:
            raise TeacherError(self.name, f"answered shape {shape} for {asked} inputs: check the model's batching")
        return distributions(self.name, self.space, self.classes, outputs[0].data, asked, self._kind, self.task)

    def _reported(self, metadata: _Metadata) -> dict[str, Any]:
        return {
            "name": metadata.name,
            "version": self._version if self._version in (metadata.versions or [self._version]) else "(gone)",
            "platform": metadata.platform,
            "inputs": [msgspec.to_builtins(t) for t in metadata.inputs],
            "outputs": [msgspec.to_builtins(t) for t in metadata.outputs],
        }
