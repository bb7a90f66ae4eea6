"""KEDA's metrics adapter in small: the HPA asks the API server, which asks here, and here the KEDA operator is asked.

What it answers is the operator's own measure, by the service through which KEDA's adapter gets it.
"""

import contextlib
import json
import ssl
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import grpc
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

GROUP = "external.metrics.k8s.io"
PATH = f"/apis/{GROUP}/v1beta1"
OF_OBJECT = "scaledobject.keda.sh/name"
METRICS_PORT = 10
"""How far behind the API server's port that of the operator's service is."""


def _fields(data):
    """The fields of a message of Protocol Buffers that are messages and strings, as ``(number, bytes)``."""
    at = 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(data):
        tag = number()
        if tag & 7 == 2:
            size = number()
            yield tag >> 3, data[at : at + size]
            at += size
        else:
            assert tag & 7 == 0, "a varint"
            number()


def _asked(name, namespace, metric):
    """``api.ScaledObjectRef`` of KEDA's metrics.proto."""
    texts = (text.encode() for text in (name, namespace, metric))
    return b"".join(bytes([number << 3 | 2, len(text)]) + text for number, text in enumerate(texts, 1))


def _told(data):
    """The quantities of an ``ExternalMetricValueList`` (k8s.io/metrics, v1beta1)."""
    for item in (value for number, value in _fields(data) if number == 2):
        (quantity,) = (value for number, value in _fields(item) if number == 5)
        yield next((text.decode() for number, text in _fields(quantity) if number == 1), "0")


class Adapter(BaseHTTPRequestHandler):
    """What the API server asks for external metrics."""

    operator = None

    def do_GET(self):
        url = urlsplit(self.path)
        if not url.path.startswith(PATH):  # a description of it, of which there is none
            self.send_error(404)
            return
        parts = [unquote(part) for part in url.path.removeprefix(PATH).split("/") if part]
        if not parts:
            kinds = {
                "name": "externalmetrics",
                "singularName": "",
                "namespaced": True,
                "kind": "ExternalMetricValueList",
            }
            told = {
                "kind": "APIResourceList",
                "groupVersion": f"{GROUP}/v1beta1",
                "resources": [kinds | {"verbs": ["get"]}],
            }
        else:
            _, namespace, metric = parts
            (selector,) = parse_qs(url.query)["labelSelector"]
            try:
                found = self.operator(_asked(selector.removeprefix(f"{OF_OBJECT}="), namespace, metric), timeout=30)
            except grpc.RpcError as error:
                self.send_error(503, explain=error.details())
                return
            now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            items = [{"metricName": metric, "metricLabels": {}, "timestamp": now, "value": v} for v in _told(found)]
            told = {"kind": "ExternalMetricValueList", "apiVersion": f"{GROUP}/v1beta1", "metadata": {}, "items": items}
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing is said."""


def _client(ca, authority):
    """A key, and the certificate of a client that the cluster's authority signs."""
    key, issuer = ec.generate_private_key(ec.SECP256R1()), x509.load_pem_x509_certificate(ca)
    now, name = datetime.now(UTC), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "adapter")])
    made = (
        x509.CertificateBuilder(subject_name=name, issuer_name=issuer.subject, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(pem.load_pem_private_key(authority, None), hashes.SHA256())
    )
    secret = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    return secret, made.public_bytes(pem.Encoding.PEM)


@contextlib.contextmanager
def adapter(cluster):
    """Answers for a cluster with KEDA while the block runs."""
    (server,) = (one["cluster"]["server"] for one in yaml.safe_load(cluster.kubeconfig.read_text())["clusters"])
    keys = cluster.folder / "pki"
    ca, authority = (keys / "ca.crt").read_bytes(), (keys / "ca.key").read_bytes()
    place = f"localhost:{urlsplit(server).port + METRICS_PORT}"
    with grpc.secure_channel(place, grpc.ssl_channel_credentials(ca, *_client(ca, authority))) as channel:
        operator = channel.unary_unary("/api.MetricsService/GetMetrics")
        made = type("Bound", (Adapter,), {"operator": staticmethod(operator)})
        with ThreadingHTTPServer(("127.0.0.1", 0), made) as listening:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(keys / "apiserver.crt", keys / "apiserver.key")
            listening.socket = context.wrap_socket(listening.socket, server_side=True)
            thread = threading.Thread(target=listening.serve_forever)
            thread.start()
            try:
                cluster(
                    "apply", "--server-side", "-f", "-", input=yaml.safe_dump_all(_registered(listening.server_port))
                )
                yield
            finally:
                listening.shutdown()
                thread.join()


def _registered(port):
    """The API of the metrics, and the service by which the API server finds it: a name, as no address is here."""
    meta = {"name": "adapter", "namespace": "keda"}
    yield {
        "apiVersion": "v1", "kind": "Service", "metadata": meta,
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
    }  # fmt: skip
    yield {
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": f"v1beta1.{GROUP}"},
        "spec": {
            "group": GROUP, "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": True, "service": meta | {"port": port},
        },
    }  # fmt: skip
