"""Settings to client options, without a broker. What a broker says to them is in test_access.py."""

import logging
import ssl

import pytest

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from components.stream.security import TALKATIVE, security_options, tls_context
from tests.secured_kafka import PASSWORD, write_certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    write_certificates(folder)
    return folder


def sasl(**changed):
    given = {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_username": "me",
        "sasl_password": "hush",
    }
    return Settings(**given | changed)


def test_a_user_and_a_password_become_options():
    options = security_options(sasl())
    assert options["sasl_mechanism"] == "SCRAM-SHA-512" and options["security_protocol"] == "SASL_SSL"
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("me", "hush")
    assert "hush" not in repr(options)


def test_plain_text_has_no_options_of_security():
    assert security_options(Settings()) == {"security_protocol": "PLAINTEXT"}


def test_the_password_comes_from_a_file(tmp_path):
    (tmp_path / "password").write_text("from a file\n")
    options = security_options(sasl(sasl_password=None, sasl_password_file=tmp_path / "password"))
    assert options["sasl_plain_password"] == "from a file"  # noqa: S105


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"sasl_mechanism": None}, "COHOBATE_SASL_MECHANISM"),
        ({"security_protocol": "PLAINTEXT"}, "COHOBATE_SASL_MECHANISM"),
        ({"sasl_username": None}, "COHOBATE_SASL_USERNAME"),
        ({"sasl_password": None}, "COHOBATE_SASL_PASSWORD"),
        ({"sasl_mechanism": "OAUTHBEARER"}, "COHOBATE_SASL_OAUTH_TOKEN"),
        ({"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_url": "http://in.the.clear/token"}, "must be https"),
        ({"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_url": "https://idp/token"}, "CLIENT_ID"),
        ({"ssl_keyfile": "key.pem"}, "COHOBATE_SSL_CERTFILE"),
        ({"ssl_cafile": "/nowhere/ca.pem"}, "COHOBATE_SSL_CAFILE"),
        ({"ssl_certfile": "/nowhere/me.pem"}, "/nowhere/me.pem"),
    ],
)
def test_what_is_missing_is_named_and_no_secret_is(changed, named):
    with pytest.raises(ConfigError) as error:
        security_options(sasl(**changed))
    assert named in str(error.value) and "hush" not in str(error.value)


def test_tls_checks_the_authority_and_the_name(certificates):
    context = tls_context(Settings(ssl_cafile=certificates / "ca.pem"))
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    loose = tls_context(Settings(ssl_cafile=certificates / "ca.pem", ssl_check_hostname=False))
    assert loose.verify_mode is ssl.CERT_REQUIRED and not loose.check_hostname


def own(certificates, **changed):
    given = {"ssl_certfile": certificates / "client.pem", "ssl_keyfile": certificates / "client.key"}
    return Settings(**given | changed)


def test_an_encrypted_key_needs_its_password_and_never_asks_for_it(certificates):
    tls_context(own(certificates, ssl_password=PASSWORD))
    with pytest.raises(ConfigError, match="is encrypted"):
        tls_context(own(certificates))
    with pytest.raises(ConfigError, match="not its password") as error:
        tls_context(own(certificates, ssl_password="hunter2"))  # noqa: S106
    assert "hunter2" not in str(error.value)


def test_a_key_of_another_certificate_is_named(certificates):
    with pytest.raises(ConfigError, match="does not belong"):
        tls_context(own(certificates, ssl_keyfile=certificates / "server.pem"))


def test_requests_are_not_logged_whatever_the_level(caplog):
    security_options(sasl())
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, logger="kafka"):
        for name in TALKATIVE:
            logging.getLogger(name).debug("Send: %r", b"\0me\0hush")
            logging.getLogger(name).info("connected")
    assert "hush" not in caplog.text and caplog.text.count("connected") == 2
