"""What each pipeline is given to run with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.contracts.errors import ConfigError, NotFoundError
from components.contracts.reference import Reference, parse
from components.contracts.settings import Settings
from components.contracts.spec import Spec, load_spec

PARAMETERS = {
    "bootstrap": ("history_uri", "first_variant", "second_variant", "reason", "with_run"),
    "continual": ("force", "reason", "with_run"),
    "data-free": ("method", "rows", "steps", "seed", "reason", "with_run"),
    "promote": ("version", "reason", "force", "with_key"),
    "rollback": ("reason", "to", "with_key"),
}
"""The parameters of each pipeline besides ``spec``."""

REQUIRED = {"bootstrap": "history_uri", "promote": "version"}
"""The parameter that has neither a default nor comes from the spec."""

RENAMED = {"key": "with_key"}
"""What a parameter was called before, by which it still may be given."""

NUMBERS = ("rows", "steps", "seed")
"""Parameters that are whole numbers."""

TRUTHS = {"true": True, "false": False}


def check_name(name: str) -> None:
    """Check that there is a pipeline of this name.

    Raises:
        NotFoundError: there is none.

    """
    if name not in PARAMETERS:
        raise NotFoundError("pipeline", name, f"there are {', '.join(PARAMETERS)}")


def arguments(name: str, spec_path: str, given: Mapping[str, str], reason: str) -> dict[str, Any]:
    """A pipeline's arguments: what was given, and the variants of the spec and the reason where they are its.

    Raises:
        NotFoundError: there is no such pipeline.
        ConfigError: a parameter is missing, has no value of its type, or is not the pipeline's.

    """
    check_name(name)
    given = {new if (new := RENAMED.get(key)) in PARAMETERS[name] else key: value for key, value in given.items()}
    if unknown := sorted(set(given) - {"spec", *PARAMETERS[name]}):
        raise ConfigError("param", unknown, f"pipeline {name} takes {', '.join(PARAMETERS[name]) or 'none'}")
    if name in REQUIRED and not given.get(REQUIRED[name]):
        raise ConfigError("param", REQUIRED[name], f"pipeline {name} needs it: --param {REQUIRED[name]}=VALUE")
    spec = load_spec(spec_path)
    made: dict[str, Any] = {"spec": spec.source, **given}
    if name == "bootstrap":
        variants = [v.name for v in spec.student.variants]
        made = {"first_variant": variants[0], "second_variant": variants[-1], **made}
        if "://" not in made["history_uri"]:  # the components run in folders of their own
            made["history_uri"] = Path(made["history_uri"]).resolve().as_uri()
    if "reason" in PARAMETERS[name]:
        made.setdefault("reason", reason)
    for number in NUMBERS:
        if number in made and not str(made[number]).lstrip("-").isdecimal():
            raise ConfigError(f"param {number}", made[number], "must be a whole number")
        made |= {number: int(made[number])} if number in made else {}
    if "force" in made:
        if str(made["force"]).lower() not in TRUTHS:
            raise ConfigError("param force", made["force"], "must be true or false")
        made["force"] = TRUTHS[str(made["force"]).lower()]
    return made


def place_in_image(spec: Spec, settings: Settings, given: str = "") -> str:
    """What the steps read the spec by that an installed pipeline has as its default.

    That is the workload's name where the spec is a version of the registry and the steps reach the artifact root, for
    then they take what is in force; else where their image has the file.

    Raises:
        ConfigError: nothing tells.

    """
    if not given and parse(spec.source) is not None and not settings.artifacts.startswith("file://"):
        return str(Reference(spec.name, None))
    place = given or settings.kfp_spec.replace("{workload}", spec.name)
    if not place:
        raise ConfigError(
            "COHOBATE_KFP_SPEC", "", "set it to the place of the spec in the steps' image: /specs/{workload}.yaml"
        )
    return place
