"""The mail workload's teacher, with its encoder and the head that it trains: seconds of imports and of training."""

import pytest

from components.contracts.payload import decoder
from components.contracts.settings import Settings
from components.contracts.spec import build, load_spec
from infra.workloads import mail
from tests.infra import test_workloads

pytestmark = pytest.mark.integration
cache = test_workloads.cache


def test_the_workload_opens_and_its_spec_builds_the_teacher(cache, monkeypatch):
    monkeypatch.setenv("COHOBATE_CACHE", str(cache))
    opened = mail.source(Settings(), seed=3, history=20, per_phase=15)
    spec = load_spec(opened.spec)
    teacher = build(spec.teacher, spec.source)
    items = opened.phases[0].items
    labels = teacher.label([decoder(spec.payload)(i.payload) for i in items])
    assert {i.truth for i in items} <= set(teacher.classes) and teacher.space == mail.SPACE
    assert sum(s.label == i.truth for s, i in zip(labels, items, strict=True)) >= 13
    assert build(spec.teacher, spec.source).digest == teacher.digest
