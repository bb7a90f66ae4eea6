"""What a cluster gives the pipelines' steps: one description of the installation, in a YAML file.

It says for all steps where environment, secrets and volumes come from, and for each what it needs of a node. What it
makes of a compiled pipeline is what ``kfp-kubernetes`` makes of it (a test compares them), without importing that.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings

STEPS = (
    "begin", "choose", "distill", "evaluate", "finish", "label-history", "promote", "register", "report", "rollback",
    "snapshot", "synthesise",
)  # fmt: skip
"""The steps of all pipelines, by which their needs are named."""

DEFAULT = "default"
"""In place of a step's name: what those need that say nothing of it."""

QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGTPE]i?|Ki)?")
"""A quantity of Kubernetes: ``500m``, ``2``, ``1.5``, ``4Gi``."""

AGAIN = {"backoffDuration": "30s", "backoffFactor": 2.0, "backoffMaxDuration": "3600s"}
"""How long a step that failed is waited for before it is tried again: what broke it may be mended by then."""

Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[int, msgspec.Meta(gt=0)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
Place = Annotated[str, msgspec.Meta(pattern=r"^/.")]


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Secret or a ConfigMap.

    ``variables``: environment variables, each with the key whose value it has; ``path``: the folder where all of it is
    mounted as files.
    """

    name: Name
    variables: dict[str, str] = {}
    path: Place | None = None

    def __post_init__(self) -> None:
        """Check that it serves anything."""
        if not self.variables and self.path is None:
            raise ValueError("needs variables (NAME: key) or the path where it is mounted")


class Volume(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A volume at ``path``: a PersistentVolumeClaim of that name, or an ``empty`` one of the pod's own.

    ``size``, ``memory``: of an empty one, how large it may be, and whether it is kept in memory.
    """

    path: Place
    claim: Name | None = None
    empty: Name | None = None
    size: str | None = None
    memory: bool = False

    def __post_init__(self) -> None:
        """Check that it is one kind of volume."""
        if (self.claim is None) == (self.empty is None):
            raise ValueError("needs either claim (the name of a PersistentVolumeClaim) or empty (a name of its own)")
        if self.claim is not None and (self.size is not None or self.memory):
            raise ValueError("size and memory go with empty: a claim has its own")
        _check_quantity("size", self.size)


class Toleration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A taint of nodes that a step tolerates."""

    key: str | None = None
    operator: Literal["Equal", "Exists"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Needs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a step needs; None: what ``default`` says, or else nothing.

    ``image``: its container image; ``cpu``, ``memory``: what it asks for, and ``…_limit`` the most that it gets (as
    Kubernetes writes quantities); ``gpu``: how many of ``gpu_type``; ``retries``: how often it is tried again where it
    failed; ``timeout_seconds``: how long its pod may run.
    """

    image: str | None = None
    cpu: str | None = None
    cpu_limit: str | None = None
    memory: str | None = None
    memory_limit: str | None = None
    gpu: Count | None = None
    gpu_type: str | None = None
    retries: Count | None = None
    timeout_seconds: Seconds | None = None
    node_selector: dict[str, str] | None = None
    tolerations: tuple[Toleration, ...] | None = None

    def __post_init__(self) -> None:
        """Check the quantities."""
        for name in ("cpu", "cpu_limit", "memory", "memory_limit"):
            _check_quantity(name, getattr(self, name))

    def over(self, default: Needs) -> Needs:
        """These needs, and of what they do not say the default's."""
        said = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        return msgspec.structs.replace(default, **said)


class Installation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The description. ``image``, ``namespace`` and ``service_account`` hold where no setting or option says otherwise.

    ``environment``: variables that stand in the pipeline for everybody to read; ``steps``: needs by the step's name,
    and ``default``.
    """

    image: str = ""
    namespace: str = ""
    service_account: str = ""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: tuple[Name, ...] = ()
    environment: dict[str, str] = {}
    secrets: tuple[Source, ...] = ()
    config_maps: tuple[Source, ...] = ()
    volumes: tuple[Volume, ...] = ()
    steps: dict[str, Needs] = {}

    def __post_init__(self) -> None:
        """Check that every step that is named exists, and that no variable comes from two places."""
        if unknown := sorted(set(self.steps) - {DEFAULT, *STEPS}):
            raise ValueError(f"steps has {', '.join(unknown)}: there are {DEFAULT}, {', '.join(STEPS)}")
        named = [*self.environment, *(n for source in (*self.secrets, *self.config_maps) for n in source.variables)]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} comes from two places: keep one")

    def needs(self, step: str) -> Needs:
        """What a step needs."""
        return self.steps.get(step, Needs()).over(self.steps.get(DEFAULT, Needs()))


def _check_quantity(name: str, value: str | None) -> None:
    if value is not None and not QUANTITY.fullmatch(value):
        raise ValueError(f"{name} is {value!r}: must be a quantity of Kubernetes, as 500m, 2 or 4Gi")


def read_installation(path: Path) -> Installation:
    """The description in a file.

    Raises:
        ConfigError: it cannot be read, or a field of it is wrong: the message names the field.

    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise ConfigError("COHOBATE_KFP_INSTALLATION", str(path), f"must be a readable YAML file ({said})") from error
    try:
        return msgspec.convert(found, Installation)
    except msgspec.ValidationError as error:
        detail = f"correct the file: {_of_step(found) or error}"
        raise ConfigError("COHOBATE_KFP_INSTALLATION", str(path), detail) from error


def _of_step(found: Any) -> str:
    """What is wrong with the needs of a step, by its name, which msgspec does not tell; empty: nothing."""
    steps = found.get("steps") if isinstance(found, dict) else None
    for name, needs in steps.items() if isinstance(steps, dict) else ():
        try:
            msgspec.convert(needs, Needs)
        except msgspec.ValidationError as error:
            return f"{error}, in steps.{name}"
    return ""


def completed(settings: Settings, found: Installation | None = None) -> Settings:
    """The settings, with what the description of the installation says where they say nothing.

    ``found``: that description, where it was read before.

    Raises:
        ConfigError: see :func:`read_installation`.

    """
    if settings.kfp_installation is None:
        return settings
    found = read_installation(settings.kfp_installation) if found is None else found
    said = {"image": found.image, "namespace": found.namespace, "service_account": found.service_account}
    return settings.model_copy(
        update={f"kfp_{n}": value for n, value in said.items() if value and not getattr(settings, f"kfp_{n}")}
    )


def fitted(pipeline: Mapping[str, Any], installation: Installation) -> tuple[dict[str, Any], ...]:
    """The documents of a compiled pipeline whose steps get what the installation gives them, but the environment.

    The second one is what is special to Kubernetes, where there is any.
    """
    made: dict[str, Any] = copy.deepcopy(dict(pipeline))
    executors, pods = made["deploymentSpec"]["executors"], {}
    for label, executor in executors.items():
        needs = installation.needs(_step(label))
        container = executor["container"]
        if needs.image is not None:
            container["image"] = needs.image
        if resources := _resources(needs):
            container["resources"] = resources
        if pod := _pod(installation, needs):
            pods[label] = pod
    for task in _tasks(made):
        component = made["components"][task["componentRef"]["name"]]
        retries = installation.needs(_step(component["executorLabel"])).retries if "executorLabel" in component else 0
        if retries:
            task["retryPolicy"] = {**AGAIN, "maxRetryCount": retries}
    return (made, {"platforms": {"kubernetes": {"deploymentSpec": {"executors": pods}}}}) if pods else (made,)


def _step(label: str) -> str:
    """The step of an executor: two tasks of one step have ``exec-distill`` and ``exec-distill-2``."""
    return re.sub(r"-\d+$", "", label.removeprefix("exec-"))


def _tasks(document: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    dags = [document["root"]["dag"], *(c["dag"] for c in document["components"].values() if "dag" in c)]
    return [task for dag in dags for task in dag["tasks"].values()]


def _resources(needs: Needs) -> dict[str, Any]:
    said: dict[str, Any] = {
        "resourceCpuRequest": needs.cpu, "resourceCpuLimit": needs.cpu_limit,
        "resourceMemoryRequest": needs.memory, "resourceMemoryLimit": needs.memory_limit,
    }  # fmt: skip
    if needs.gpu:
        kind = needs.gpu_type or "nvidia.com/gpu"
        said["accelerator"] = {"resourceCount": str(needs.gpu), "resourceType": kind}
    return {name: value for name, value in said.items() if value is not None}


def _pod(installation: Installation, needs: Needs) -> dict[str, Any]:
    """The message ``KubernetesExecutorConfig`` of kfp-kubernetes, as JSON."""
    made: dict[str, Any] = {
        "secretAsEnv": [_as_env(s, "secret") for s in installation.secrets if s.variables],
        "secretAsVolume": [_as_volume(s, "secret") for s in installation.secrets if s.path is not None],
        "configMapAsEnv": [_as_env(s, "configMap") for s in installation.config_maps if s.variables],
        "configMapAsVolume": [_as_volume(s, "configMap") for s in installation.config_maps if s.path is not None],
        "pvcMount": [
            {"constant": v.claim, "mountPath": v.path, "pvcNameParameter": _constant(v.claim)}
            for v in installation.volumes if v.claim is not None
        ],
        "emptyDirMounts": [
            {"volumeName": v.empty, "mountPath": v.path}
            | ({"medium": "Memory"} if v.memory else {}) | ({"sizeLimit": v.size} if v.size is not None else {})
            for v in installation.volumes if v.empty is not None
        ],
        "imagePullPolicy": installation.image_pull_policy,
        "imagePullSecret": [
            {"secretName": name, "secretNameParameter": _constant(name)} for name in installation.image_pull_secrets
        ],
        "activeDeadlineSeconds": None if needs.timeout_seconds is None else str(needs.timeout_seconds),
        "nodeSelector": {"labels": needs.node_selector} if needs.node_selector else None,
        "tolerations": [msgspec.to_builtins(one) for one in needs.tolerations or ()],
    }  # fmt: skip
    return {name: value for name, value in made.items() if value}


def _constant(value: str | None) -> dict[str, Any]:
    return {"runtimeValue": {"constant": value}}


def _as_env(source: Source, kind: Literal["secret", "configMap"]) -> dict[str, Any]:
    pairs = [{f"{kind}Key": key, "envVar": variable} for variable, key in source.variables.items()]
    return {**_named(source, kind), "keyToEnv": pairs}


def _as_volume(source: Source, kind: Literal["secret", "configMap"]) -> dict[str, Any]:
    return {**_named(source, kind), "mountPath": source.path}


def _named(source: Source, kind: str) -> dict[str, Any]:
    return {f"{kind}Name": source.name, f"{kind}NameParameter": _constant(source.name), "optional": False}
