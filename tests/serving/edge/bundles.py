"""Bundles as ``cohobate export --to onnx`` writes them, with a package as small as the contract allows."""

import base64
import hashlib
import json

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner

from components.contracts.attestation import sign, statement

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))

PACKAGE = """
import json
from pathlib import Path

from .inputs import RecordError, decoded


class Answer:
    def __init__(self, **fields):
        self.__dict__.update(fields)


class Student:
    def __init__(self, folder):
        import onnxruntime

        self.manifest = json.loads((folder / "manifest.json").read_bytes())
        self._session = onnxruntime.InferenceSession(str(folder / self.manifest["model"]["path"]))

    def predict(self, payloads):
        import numpy as np

        xs = [decoded(p) for p in payloads]
        if self.manifest.get("fails"):
            raise RuntimeError("a student that fails")
        fed = {"ids": np.zeros((len(xs), 1), np.int64), "weights": np.array([[x] for x in xs], np.float32)}
        return [self._answer(row.tolist()) for row in self._session.run(["probabilities"], fed)[0]]

    def _answer(self, shares):
        soft = dict(zip(self.manifest["classes"], shares))
        label = max(soft, key=soft.get)
        below = self.manifest["defer"]["below"]
        defer = soft[label] < below
        reason = f"confidence {soft[label]:.3f} is below {below:g}" if defer else None
        return Answer(
            label=label, confidence=soft[label], soft_label=soft, defer=defer, defer_reason=reason, novelty=None
        )


def load(folder=None, *, threads=1, verify=True):
    return Student(Path(folder))
"""

INPUTS = """
import json


class RecordError(Exception):
    def __init__(self, reason, detail):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def decoded(payload):
    try:
        return float(json.loads(payload)["x"])
    except (ValueError, LookupError, TypeError) as error:
        raise RecordError("undecodable", f"not JSON: {error}") from error
"""


def public(key=KEY):
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def make(folder, model, version, *, key=KEY, below=0.7, classes=("neg", "pos"), package=PACKAGE, **more):
    """Write a bundle; ``model``: an artefact's bytes, whose digest names it."""
    files = {
        "model.onnx": model,
        "cohobate_student/__init__.py": package.encode(),
        "cohobate_student/inputs.py": INPUTS.encode(),
        "README.md": b"a bundle\n",
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    manifest = {
        "schema": "1.0", "workload": "signs", "version": version, "target": "onnx", "task": "classification",
        "space": "signs@1", "classes": list(classes), "model": {"path": "model.onnx", "format": "onnx"},
        "defer": {"below": below, "novelty": None, "known": []},
        "lineage": {"student": hashlib.sha256(model).hexdigest()},
        "files": {n: {"sha256": hashlib.sha256(d).hexdigest(), "bytes": len(d)} for n, d in files.items()},
        **more,
    }  # fmt: skip
    data = json.dumps(manifest, indent=1).encode()
    (folder / "manifest.json").write_bytes(data)
    if key is not None:
        attest(folder, key)
    return manifest["lineage"]["student"]


def attest(folder, key=KEY, predicate="urn:cohobate:bundle:v1"):
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    said = statement(predicate, {"manifest.json": digest}, {"workload": "signs"})
    (folder / "attestation.json").write_bytes(sign(said, CryptoSigner(key)))
