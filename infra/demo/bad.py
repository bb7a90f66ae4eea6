"""The demo's bad student: the champion with its class names permuted, pushed past the gate on purpose."""

from __future__ import annotations

import msgspec
import onnx

from components.contracts.settings import Settings
from components.contracts.spec import Spec
from components.contracts.storage import digest_of, get_bytes, put_bytes
from components.control.intent import ModelRef
from components.registry.registry import Registry
from components.student.card import CARD_KEY, StudentCard

REASON = "demo: a student with permuted classes, forced past the gate to show that the canary guard catches it"


def permuted(artifact: bytes) -> tuple[bytes, StudentCard]:
    """The same network answering with the wrong names: class *i* is called what class *i + 1* was."""
    model = onnx.load_from_string(artifact)
    (entry,) = [p for p in model.metadata_props if p.key == CARD_KEY]
    card = msgspec.json.decode(entry.value, type=StudentCard)
    card = msgspec.structs.replace(card, classes=(*card.classes[1:], card.classes[0]))
    entry.value = msgspec.json.encode(card).decode()
    return model.SerializeToString(), card


def register(spec: Spec, settings: Settings, registry: Registry, champion: ModelRef) -> ModelRef:
    """Register the bad student of ``champion``, its verdict saying that it was forced and not judged."""
    data, card = permuted(get_bytes(champion.uri, champion.digest))
    digest = digest_of(data)
    uri = f"{settings.artifacts}/{spec.name}/students/{digest}/model.onnx"
    put_bytes(uri, data)
    card = msgspec.structs.replace(card, parent=champion.version)
    verdict = {"decision": "reject", "forced": True, "reasons": [REASON]}
    return registry.register(spec, uri, digest, card, verdict=verdict, metrics={}, params={"forced": "true"})
