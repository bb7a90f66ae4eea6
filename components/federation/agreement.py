"""What the sites of a federation agreed on: a YAML file that each of them, and who mixes, has a copy of."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from components.contracts.attestation import verifier
from components.contracts.errors import ConfigError
from components.contracts.spec.fields import Count, Name, Positive, Section, class_names

Rule = Literal["mean", "log_mean", "geometric_median"]

FEWEST = 2
"""Sites below which a mixture would be what one of them said."""

FEWEST_MASKED = 3
"""Sites below which each of them would know, from the sum and its own answers, what the other said."""


class Site(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A site. ``key``: the PEM file of its public key, beside the agreement; ``weight``: against the other sites'.

    ``classes``: those that it may know; empty: all of the agreement. What a site says of a class that few others know
    weighs much, so that none takes a class by claiming it.
    """

    key: str
    weight: Positive = 1.0
    classes: tuple[str, ...] = ()


class Agreement(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the answers of the ``sites`` become one.

    ``name``: the federation's, which stands in all that is signed in it: sites may be in several, by the same keys.
    ``space`` and ``classes``: the label space, with its version; a site may know some of the classes alone.
    ``rule``: see :mod:`components.federation.mixture`. ``min_sites``: how many have to answer, of a round and of each
    input of it. ``most_distance``: sites further from the others than this (mean total variation over the classes that
    they share, 0 to 1) are left out of a round; None: none is. ``masked``: answers are summed under masks
    (:mod:`components.federation.masked`), so that nobody sees a single one. ``temperature``: of the mixture
    (:func:`components.federation.mixture.sharpened`); 1 leaves it as the rule makes it.
    """

    name: Name
    space: Annotated[str, Meta(min_length=1)]
    classes: tuple[str, ...]
    sites: dict[Name, Site]
    rule: Rule = "mean"
    min_sites: Count = 2
    most_distance: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None
    masked: bool = False
    temperature: Annotated[float, Meta(gt=0.0, le=1.0)] = 1.0


def read_agreement(path: Path) -> Agreement:
    """The agreement in a YAML file, the keys of its sites made paths that can be opened.

    Raises:
        ConfigError: it is missing, is not YAML, or has a field that is unknown or out of range.

    """
    try:
        found = msgspec.yaml.decode(path.read_bytes(), type=Agreement)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(
            "agreement", str(path), f"must be the YAML file of a federation: {' '.join(str(error).split())}"
        ) from error
    classes = class_names(found.classes)
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise ConfigError("classes", list(classes), "must name two or more classes, each once")
    if not FEWEST <= found.min_sites <= len(found.sites):
        allowed = f"must be {FEWEST} to the {len(found.sites)} sites of the agreement: one alone is no mixture"
        raise ConfigError("min_sites", found.min_sites, allowed)
    for name, site in found.sites.items():
        if not math.isfinite(site.weight):
            raise ConfigError(f"sites.{name}.weight", site.weight, "must be a finite number")
        if not set(site.classes) <= set(classes) or len(set(site.classes)) != len(site.classes):
            allowed = f"must be some of the agreement's, each once: {', '.join(classes)}"
            raise ConfigError(f"sites.{name}.classes", list(site.classes), allowed)
    if found.masked:
        _check_masked(found)
    sites = {n: msgspec.structs.replace(s, key=str(path.parent / s.key)) for n, s in found.sites.items()}
    agreed = msgspec.structs.replace(found, sites=sites)
    site_of_key(agreed)
    return agreed


def _check_masked(found: Agreement) -> None:
    """Refuse what needs single answers, where they are to be summed under masks."""
    if found.rule != "mean":
        raise ConfigError("rule", found.rule, "must be mean where masked is true: others need the single answers")
    if found.most_distance is not None:
        allowed = "goes with masked: false alone: under masks nobody can tell how far a site is from the others"
        raise ConfigError("most_distance", found.most_distance, allowed)
    if found.min_sites < FEWEST_MASKED:
        allowed = f"must be {FEWEST_MASKED} or more where masked is true: of two, each would know what the other said"
        raise ConfigError("min_sites", found.min_sites, allowed)
    for name, site in found.sites.items():
        if site.classes and set(site.classes) != set(found.classes):
            allowed = "must be all where masked is true: what a site says nothing about is filled from single answers"
            raise ConfigError(f"sites.{name}.classes", list(site.classes), allowed)


def site_of_key(agreement: Agreement) -> dict[str, str]:
    """The sites by the ids of their keys.

    Raises:
        ConfigError: a file holds no public key, or two sites have the same.

    """
    found: dict[str, str] = {}
    for name, site in agreement.sites.items():
        try:
            key = str(verifier(Path(site.key)).keyid)
        except ConfigError as error:
            raise ConfigError(f"sites.{name}.key", site.key, error.allowed) from error
        if key in found:
            raise ConfigError(f"sites.{name}.key", site.key, f"is the key of {found[key]} too: one key, one voice")
        found[key] = name
    return found
