import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.pressure import Pressure, room, urgency_of
from serving.gateway.wire import RequestError


@given(st.integers(1, 1_000))
def test_the_more_urgent_never_has_less_room(most):
    rooms = [room(urgency, most) for urgency in range(8)]
    assert rooms == sorted(rooms, reverse=True) and rooms[0] == most and rooms[-1] >= 1


@given(st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=200), st.integers(1, 20))
def test_no_more_are_under_way_than_may_be_and_all_are_counted(events, most):
    pressure, inside, refused = Pressure(most), 0, 0
    for urgency, leaves in events:
        if leaves and inside:
            pressure.leave()
            inside -= 1
            continue
        try:
            pressure.enter(urgency)
            inside += 1
        except RequestError as error:
            refused += 1
            assert error.problem.status == (503 if inside >= most else 429)
        assert pressure.under_way == inside <= most
    assert sum(pressure.shed.values()) == refused


@pytest.mark.parametrize(
    ("header", "urgency"),
    [(b"u=0", 0), (b"i, u=7", 7), (b"", 3), (b"u=", 3), (b"u=-1", 3), (b"u=12", 3), (b"u=\xb2", 3), (None, 3)],
)
def test_a_header_that_cannot_be_understood_is_the_default(header, urgency):
    assert urgency_of(header) == urgency
