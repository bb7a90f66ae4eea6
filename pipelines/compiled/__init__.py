"""The pipelines as Kubeflow's compiler wrote them: ``cohobate pipeline compile --output pipelines/compiled`` does.

They are kept, and a test compares them with what the compiler makes, because its import takes a second: who rolls back
at night need not wait for that. Here they are given what a workload, an image and a namespace make of them.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import yaml

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings

FOLDER = Path(__file__).parent

DIGITS = 12
"""Hexadecimal digits of a content's digest in the name of a version: 48 bits."""

NAMED_BY_CONTENT = re.compile(rf".+-[0-9a-f]{{{DIGITS}}}")
"""What the name of a version looks like (:attr:`Package.version`)."""


class Package(msgspec.Struct, frozen=True, dict=True):
    """A pipeline in the compiler's intermediate representation.

    ``documents``: the pipeline's, and what is special to Kubernetes where there is any.
    """

    documents: tuple[dict[str, Any], ...]

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return str(self.documents[0]["pipelineInfo"]["name"])

    @property
    def description(self) -> str:
        """What it does, for a person."""
        return str(self.documents[0]["pipelineInfo"].get("description", ""))

    @cached_property
    def version(self) -> str:
        """The package's version and a digest of the content: what differs in anything has another name."""
        from importlib.metadata import version

        content = json.dumps(self.documents, sort_keys=True).encode()
        release = version("cohobate").replace("+", "-")
        return f"{release}-{hashlib.sha256(content).hexdigest()[:DIGITS]}"

    @property
    def text(self) -> str:
        """As YAML: what is uploaded."""
        return yaml.dump_all(self.documents, Dumper=yaml.CSafeDumper, sort_keys=False)

    @property
    def body(self) -> dict[str, Any]:
        """As a run's ``pipeline_spec``."""
        if len(self.documents) == 1:
            return self.documents[0]
        return {"pipeline_spec": self.documents[0], "platform_spec": self.documents[1]}

    def with_image(self, image: str) -> Package:
        """The same, whose steps run in another container image."""
        documents = copy.deepcopy(self.documents)
        for executor in documents[0]["deploymentSpec"]["executors"].values():
            executor["container"]["image"] = image
        return Package(documents)

    def with_environment(self, variables: Mapping[str, str]) -> Package:
        """The same, whose steps declare these variables."""
        documents = copy.deepcopy(self.documents)
        for executor in documents[0]["deploymentSpec"]["executors"].values():
            declared = {pair["name"]: pair["value"] for pair in executor["container"].get("env", ())}
            pairs = (declared | dict(variables)).items()
            executor["container"]["env"] = [{"name": name, "value": value} for name, value in pairs]
        return Package(documents)

    def for_workload(self, workload: str, defaults: Mapping[str, Any]) -> Package:
        """One workload's own, named ``<workload>-<pipeline>``; ``defaults``: of parameters that get one.

        What Kubeflow's compiler makes of ``pipeline_name`` and of a pipeline's function with these defaults.
        """
        documents = copy.deepcopy(self.documents)
        documents[0]["pipelineInfo"]["name"] = f"{workload}-{self.name}"
        parameters = documents[0]["root"]["inputDefinitions"]["parameters"]
        for name, value in defaults.items():
            parameters[name] |= {"defaultValue": value, "isOptional": True}
        return Package(documents)


def read(path: Path) -> Package:
    """A compiled pipeline from its file."""
    with path.open("rb") as file:
        found = tuple(document for document in yaml.load_all(file, yaml.CSafeLoader) if document)
    if not found or "pipelineInfo" not in found[0]:
        raise ConfigError("pipeline", str(path), "must be a file that 'cohobate pipeline compile' wrote")
    return Package(found)


def compiled(name: str, settings: Settings) -> Package:
    """The pipeline of this name, with the image, the environment and the installation that the settings name.

    Raises:
        ConfigError: the environment is no JSON object of texts, or the description of the installation is wrong.

    """
    return dressed(read(FOLDER / f"{name}.yaml"), settings)


def dressed(package: Package, settings: Settings) -> Package:
    """A pipeline as :func:`compiled` gives it."""
    from pipelines.installation import completed, fitted, read_installation

    installation = read_installation(settings.kfp_installation) if settings.kfp_installation is not None else None
    settings = completed(settings, installation)
    variables: dict[str, str] = {}
    if settings.kfp_image:
        package = package.with_image(settings.kfp_image)
    if installation is not None:
        package = Package(fitted(package.documents[0], installation))
        variables = installation.environment
    variables = {**variables, **_environment(settings.kfp_env)}
    return package.with_environment(variables) if variables else package


def _environment(text: str) -> dict[str, str]:
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, str])
    except msgspec.MsgspecError as error:
        raise ConfigError(
            "COHOBATE_KFP_ENV", text, f'must be a JSON object of texts, {{"NAME": "value"}} ({error})'
        ) from error
