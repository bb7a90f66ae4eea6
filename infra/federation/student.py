"""The student of a federation on its way to the sites: an archive of the artifact and its trainable weights, signed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.contracts.errors import ArtifactError
from components.contracts.settings import Settings
from components.contracts.spec import Spec
from components.contracts.spec.declared import check_training
from components.contracts.storage import get_bytes
from components.control.store import ControlStore
from components.federation.given import Given, write
from components.ledger import signatures
from components.student.runtime import Student
from infra.federation.site import GIVEN, ancestors, promised, record, told_of

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

    from components.registry.registry import Registry


def give(
    settings: Settings,
    registry: Registry,
    store: ControlStore,
    spec: Spec,
    version: str,
    *,
    federation: str,
    number: int,
    by: Signer,
) -> bytes:
    """The archive of a registered version, for the sites of a federation's round; the ledger has that it was made.

    In private it counts as answers do, and together with them.

    Raises:
        ConfigError: the terms of its teacher or its data forbid it, or it would tell more than ``student.privacy``
            allows.
        NotFoundError: there is no such version.
        UntrustedError: the policy asks for signatures, and the version's does not count.
        ArtifactError: the artifact or its weights are missing or were changed.

    """
    from components.distill.artifact import weights_uri

    check_training(spec, settings.licence_policy)
    info = registry.info(spec.name, version)
    signatures.require(settings, store, spec.name, [(info.ref.uri, info.ref.digest)], signatures.PROVENANCE)
    model = get_bytes(info.ref.uri, info.ref.digest)
    card = Student.load(model, source=spec.source).card
    if card.weights is None:
        raise ArtifactError(info.ref.uri, "names no trainable weights: nothing can begin from it")
    account, lineage = promised(spec, card, model), ancestors(registry, spec.name, info)
    weights = get_bytes(weights_uri(info.ref.uri), card.weights)
    said = Given(
        federation=federation, workload=spec.name, version=info.version, round=number, space=card.space,
        teacher=card.teacher,
    )  # fmt: skip
    made = write(said, model, weights, by)
    detail = {
        "federation": federation, "round": number, "version": info.version, "student": info.ref.digest,
        "statement": made.statement, "privacy": told_of(account),
    }  # fmt: skip
    record(settings, store, spec, GIVEN, detail, account, lineage, again=("statement",))
    return made.data
