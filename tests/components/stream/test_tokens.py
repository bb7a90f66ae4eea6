"""When tokens are fetched; an endpoint and a broker that take them are in test_access.py."""

import pytest

from components.contracts.errors import UnavailableError
from components.contracts.settings import Settings
from components.stream.tokens import ClientCredentials, _Issued, token_provider
from tests.clock import Clock


class Endpoint(ClientCredentials):
    """Issues ``t1``, ``t2``, ... that live 100 s; or fails."""

    def __init__(self, clock):
        super().__init__(Settings(), clock)
        self.n, self.down = 0, False

    def _fetch(self, now):
        if self.down:
            raise UnavailableError("token endpoint", "x", "down")
        self.n += 1
        return _Issued(f"t{self.n}", now + 80, now + 100)


def test_a_token_is_kept_until_a_fifth_of_its_life_is_left():
    clock = Clock(1000.0)
    tokens = Endpoint(clock)
    assert [tokens(), tokens()] == ["t1", "t1"]
    clock.now += 79
    assert tokens() == "t1"
    clock.now += 2
    assert tokens() == "t2"


def test_an_endpoint_that_is_away_is_borne_while_the_token_lives():
    clock = Clock(1000.0)
    tokens = Endpoint(clock)
    tokens()
    tokens.down = True
    clock.now += 99
    assert tokens() == "t1"
    clock.now += 2
    with pytest.raises(UnavailableError):
        tokens()


def test_an_endpoint_that_does_not_answer_is_named_without_the_secret():
    settings = Settings(
        sasl_oauth_token_url="https://127.0.0.1:9/token",  # noqa: S106
        sasl_oauth_client_id="me",
        sasl_oauth_client_secret="hunter2",  # noqa: S106
    )
    with pytest.raises(UnavailableError, match="COHOBATE_SASL_OAUTH_TOKEN_URL") as error:
        token_provider(settings).token()
    assert "hunter2" not in str(error.value)


def test_a_token_from_a_file_is_read_whenever_one_is_needed(tmp_path):
    path = tmp_path / "token"
    path.write_text("first")
    tokens = token_provider(Settings(sasl_oauth_token_file=path))
    assert tokens.token() == "first"
    path.write_text("second")
    assert tokens.token() == "second" and "second" not in repr(tokens)
