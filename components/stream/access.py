"""Whether a broker lets us in, asked before a client is opened.

kafka-python takes a wrong certificate or mechanism for a broker that is away, and tries again until its time is over;
this asks once, in plain sight, and says what is wrong.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from typing import Any, NoReturn

from components.contracts.errors import AccessError

CONNECT_SECONDS = 5.0
"""How long a broker may take for each step; a slower one counts as away, which the client finds out by itself."""

REMEDIES = {
    "hostname": "connect to a name that the certificate holds (COHOBATE_BOOTSTRAP_SERVERS and the broker's advertised "
    "listeners), or have one issued for this name",
    "authority": "set COHOBATE_SSL_CAFILE to the certificate of the authority that signed the broker's",
    "certificate": "set COHOBATE_SSL_CERTFILE and COHOBATE_SSL_KEYFILE to one that the broker's truststore accepts",
    "protocol": "does the listener at this port speak what COHOBATE_SECURITY_PROTOCOL says?",
    "mechanism": "set COHOBATE_SASL_MECHANISM to one that the broker has enabled",
    "password": "check COHOBATE_SASL_USERNAME and COHOBATE_SASL_PASSWORD (or its _FILE), and that the user exists",
    "token": "check the token's issuer, audience, scope and end (COHOBATE_SASL_OAUTH_TOKEN, its _FILE or _URL)",
    "permission": "give the user an ACL for it (kafka-acls --add)",
}
"""What to do about each cause of an :class:`~components.contracts.errors.AccessError`."""


def require_access(servers: str, config: Mapping[str, Any]) -> bool:
    """Authenticate once at a broker of ``servers``, as a client with ``config`` would; returns whether one was there.

    The steps are those of a connection: 1. connect, 2. TLS, 3. agree on a mechanism, 4. authenticate. A broker that is
    away or breaks off is passed over: that is for the client to wait for.

    Raises:
        AccessError: a broker refused.

    """
    for server in servers.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            # Step 1
            with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS) as plain:
                # Step 2
                context = config.get("ssl_context")
                with _secured(plain, context, host, server) if context else plain as connection:
                    if config.get("sasl_mechanism"):
                        _authenticate(connection, server, config)
                    else:
                        _require_open(connection, server)
        except OSError:
            continue
        return True
    return False


def refuse(server: str, cause: str, detail: str) -> NoReturn:
    """Raise the :class:`~components.contracts.errors.AccessError` of a cause, with its remedy."""
    raise AccessError("Kafka", server, cause, detail, REMEDIES[cause])


def _secured(plain: socket.socket, context: ssl.SSLContext, host: str, server: str) -> ssl.SSLSocket:
    from kafka.protocol.metadata import ApiVersionsRequest

    try:
        secured = context.wrap_socket(plain, server_hostname=host.strip("[]").rstrip("."))
    except ssl.SSLCertVerificationError as error:
        wrong_name = error.verify_code in HOSTNAME_CODES
        refuse(server, "hostname" if wrong_name else "authority", error.verify_message)
    except (ssl.SSLError, ConnectionError) as error:
        refuse(server, "protocol", f"no TLS there ({getattr(error, 'reason', None) or 'it broke off'})")
    try:
        _ask(secured, ApiVersionsRequest(version=0))
    except ssl.SSLError as error:  # with TLS 1.3 the broker judges our certificate after the handshake
        secured.close()
        refuse(server, "certificate", f"it does not take ours, or wants one ({error.reason})")
    except BaseException:
        secured.close()
        raise
    return secured


HOSTNAME_CODES = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""


def _require_open(connection: socket.socket, server: str) -> None:
    """Ask something that needs authentication where the listener has any."""
    from kafka.protocol.metadata import MetadataRequest

    try:
        _ask(connection, MetadataRequest(version=1, topics=[]))
    except ConnectionError:
        refuse(server, "protocol", "it broke off at a request without SASL")


def _authenticate(connection: socket.socket, server: str, config: Mapping[str, Any]) -> None:
    from kafka.errors import IllegalSaslStateError, NoError, for_code
    from kafka.net.sasl import get_sasl_mechanism
    from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

    # Step 3
    name = config["sasl_mechanism"]
    try:
        offered = _ask(connection, SaslHandshakeRequest(mechanism=name, version=1))
    except (ConnectionError, TimeoutError):
        if config.get("ssl_context"):
            raise
        refuse(server, "protocol", "no SASL without TLS there")
    if for_code(offered.error_code) is IllegalSaslStateError:
        refuse(server, "protocol", "no SASL there")
    if for_code(offered.error_code) is not NoError or name not in offered.mechanisms:
        refuse(server, "mechanism", f"{name} is not one of {', '.join(offered.mechanisms) or 'those enabled'}")
    # Step 4
    mechanism = get_sasl_mechanism(name)(host=server, **config)
    cause = "token" if name == "OAUTHBEARER" else "password"
    while not mechanism.is_done():
        answer = _ask(connection, SaslAuthenticateRequest(auth_bytes=mechanism.auth_bytes(), version=1))
        if for_code(answer.error_code) is not NoError:
            refuse(server, cause, answer.error_message or for_code(answer.error_code).__name__)
        try:
            mechanism.receive(answer.auth_bytes)
        except ValueError as error:  # the broker does not know the password that it should
            refuse(server, cause, str(error))
    if not mechanism.is_authenticated():
        refuse(server, cause, "not authenticated")


def _ask(connection: socket.socket, request: Any) -> Any:
    """Send one request and wait for its response.

    Raises:
        ConnectionError: the connection ended, or what came is not Kafka's protocol.

    """
    from kafka.errors import KafkaError
    from kafka.protocol.parser import KafkaProtocol

    protocol = KafkaProtocol(client_id="cohobate-access")
    protocol.send_request(request)
    connection.sendall(protocol.send_bytes())
    try:
        while not (responses := protocol.receive_bytes(_received(connection))):
            pass
    except KafkaError as error:
        raise ConnectionResetError(f"no answer of a Kafka: {error}") from error
    return responses[0][1]


def _received(connection: socket.socket) -> bytes:
    data = connection.recv(65_536)
    if not data:
        raise ConnectionResetError("the broker closed the connection")
    return data
