"""Keys that never leave their keeper: signed over the protocols of AWS KMS and of Vault's transit engine."""

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from components.contracts.attestation import DRIVERS, UnattestedError, sign, signer, statement, verifier, verify
from components.contracts.errors import ConfigError, UnavailableError
from tests.servers import serving

SAID = statement("https://example.com/p", {"a.txt": "0" * 64}, {"x": 1})


class Keeper(BaseHTTPRequestHandler):
    """Signs as AWS KMS does (API ``TrentService.Sign``) and as Vault (``PUT /v1/transit/sign/NAME``); asks a token."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers.get("x-amz-target"):
            status, body = self._aws(asked)
        else:
            status, body = self._vault(asked)
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_PUT = do_POST

    def _aws(self, asked):
        assert self.headers["x-amz-target"] == "TrentService.Sign" and asked["MessageType"] == "DIGEST"
        if asked["KeyId"] != "alias/artifacts":
            return 400, {"__type": "NotFoundException", "message": "no such key"}
        assert asked["SigningAlgorithm"] == "ECDSA_SHA_256"
        digest = base64.b64decode(asked["Message"])
        made = self.server.curve.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        return 200, {"KeyId": asked["KeyId"], "Signature": base64.b64encode(made).decode()}

    def _vault(self, asked):
        if self.headers.get("x-vault-token") != "t" or not self.path.startswith("/v1/transit/sign/artifacts"):
            return 403, {"errors": ["permission denied"]}
        made = self.server.edwards.sign(base64.b64decode(asked["input"]))
        return 200, {"data": {"signature": f"vault:v{asked['key_version']}:{base64.b64encode(made).decode()}"}}

    def log_message(self, *_):
        pass


@pytest.fixture
def keeper(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Keeper)
    server.curve, server.edwards = ec.generate_private_key(ec.SECP256R1()), Ed25519PrivateKey.generate()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    told = {
        "AWS_ENDPOINT_URL_KMS": address, "AWS_DEFAULT_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "s", "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true",
        "VAULT_ADDR": address, "VAULT_TOKEN": "t", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
    }  # fmt: skip
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it would keep what the environment said first
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with serving(server):
        yield server


def public_of(key, tmp_path):
    path = tmp_path / "key.pub"
    pem, info = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(key.public_key().public_bytes(pem, info))
    return path


@pytest.mark.parametrize(("uri", "key"), [("awskms:alias/artifacts", "curve"), ("hv:artifacts/1", "edwards")])
def test_a_statement_is_signed_by_a_key_that_its_keeper_holds(keeper, tmp_path, uri, key):
    public = public_of(getattr(keeper, key), tmp_path)
    envelope = sign(SAID, signer(uri, public))
    assert verify(envelope, verifier(public)) == SAID
    other = public_of(Ed25519PrivateKey.generate(), tmp_path)
    with pytest.raises(UnattestedError, match="did not sign it"):
        verify(envelope, verifier(other))


@pytest.mark.parametrize(("uri", "key"), [("awskms:alias/other", "curve"), ("hv:other/1", "edwards")])
def test_a_keeper_that_does_not_sign_is_unavailable(keeper, tmp_path, uri, key):
    by = signer(uri, public_of(getattr(keeper, key), tmp_path))
    with pytest.raises(UnavailableError, match="signer"):
        sign(SAID, by)


def test_a_uri_whose_client_is_missing_says_what_to_install(monkeypatch, tmp_path):
    import securesystemslib.signer._vault_signer as vault

    monkeypatch.setattr(vault, "VAULT_IMPORT_ERROR", "as where hvac is not installed")
    public = public_of(Ed25519PrivateKey.generate(), tmp_path)
    with pytest.raises(ConfigError, match=r"--key.*needs hvac: pip install 'cohobate\[vault\]'"):
        signer("hv:artifacts/1", public)
    with pytest.raises(ConfigError, match=r"--key.*needs google-cloud-kms"):
        signer("gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1", public)


def test_a_uri_of_nobody_and_one_without_a_public_key_are_refused(tmp_path):
    public = public_of(Ed25519PrivateKey.generate(), tmp_path)
    with pytest.raises(ConfigError, match="must be a PEM file that exists, or a URI of awskms, azurekms"):
        signer("pkms:alias/x", public)
    with pytest.raises(ConfigError, match="needs its public key"):
        signer("awskms:alias/x")


def test_every_scheme_is_one_of_the_library():
    from securesystemslib.signer import SIGNER_FOR_URI_SCHEME

    assert set(DRIVERS) <= set(SIGNER_FOR_URI_SCHEME)
