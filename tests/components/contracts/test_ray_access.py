"""Which token Ray gets, for a cluster of its own and for one that runs already."""

import stat

import pytest

from components.contracts.errors import ConfigError
from components.contracts.ray_access import access
from components.contracts.settings import Settings


def test_a_ray_of_our_own_gets_a_token_that_nobody_else_reads(tmp_path):
    settings = Settings(home=tmp_path / "home")
    given = access(settings, {})
    path = tmp_path / "home" / "ray-token"
    assert given == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
    token = path.read_text()
    assert len(token) == 64 and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert access(settings, {}) == given and path.read_text() == token, "it is the same after a restart"
    assert access(Settings(home=tmp_path / "other"), {}) and (tmp_path / "other" / "ray-token").read_text() != token


def test_a_token_that_is_given_is_the_clusters(tmp_path):
    theirs = {"ray_address": "head:6379"}
    assert access(Settings(ray_token="t", **theirs), {}) == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t"}  # noqa: S106
    path = tmp_path / "token"
    path.write_text("t")
    assert access(Settings(ray_token_file=path, **theirs), {}) == {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)
    }  # fmt: skip
    with pytest.raises(ConfigError, match="COHOBATE_RAY_TOKEN is set too"):
        access(Settings(ray_token="t", ray_token_file=path), {})  # noqa: S106
    path.write_text("")
    with pytest.raises(ConfigError, match="the file is empty"):
        access(Settings(ray_token_file=path), {})


def test_rays_own_variables_stand_where_no_token_is_given(tmp_path):
    assert access(Settings(ray_address="head:6379"), {}) == {}
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        assert access(Settings(home=tmp_path), {name: "disabled"}) == {}
    assert not (tmp_path / "ray-token").exists()
