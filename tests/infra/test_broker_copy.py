"""What a new broker says to the positions of a copy."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from kafka.errors import NoError, UnknownMemberIdError

from components.contracts.errors import UnavailableError
from components.stream.contract import TopicPartition
from infra.broker_copy import BrokerCopy

PLACES = {TopicPartition("w.inputs", 0): 7, TopicPartition("w.inputs", 1): 9}


@pytest.fixture
def answered(monkeypatch):
    def answered(*said):
        admin = SimpleNamespace(alter_group_offsets=lambda group, offsets: dict(zip(offsets, said, strict=True)))
        monkeypatch.setattr(BrokerCopy, "_admin", lambda self: nullcontext(admin))
        BrokerCopy(SimpleNamespace(groups={"w.labeler": PLACES}), "127.0.0.1:9092")._commit()

    return answered


def test_a_position_that_is_refused_is_told_of_and_not_lost_in_silence(answered):
    answered(NoError, NoError)
    with pytest.raises(UnavailableError, match=r"w\.labeler.*partition=1.*UnknownMemberIdError"):
        answered(NoError, UnknownMemberIdError)
