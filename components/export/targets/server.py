"""Managed services and KServe: a container that runs the bundle's own HTTP server."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import yaml

from components.export.manifest import Manifest, Precision
from components.export.package import PACKAGE
from components.export.targets.contract import Built, Target, Version, soft_field, write

CONTAINERFILE = """FROM docker.io/library/python:{python}-slim
COPY requirements.txt /opt/ml/student/requirements.txt
RUN pip install --no-cache-dir -r /opt/ml/student/requirements.txt
COPY . /opt/ml/student
WORKDIR /opt/ml/student
ENV PYTHONDONTWRITEBYTECODE=1
USER 10001:0
EXPOSE 8080
ENTRYPOINT ["python", "-m", "{package}.server"]
"""


class Served(Target):
    """What all of them have: the judged artefact, the server, and what builds a container of both."""

    def build(self, version: Version, folder: Path, precision: Precision) -> Built:
        """The judged artefact, and the server that answers for it."""
        built = super().build(version, folder, precision)
        return replace(built, modules=(*built.modules, "server"))

    def finish(self, manifest: Manifest, folder: Path, output: Path) -> None:
        """Write the Containerfile."""
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        write(folder, "Containerfile", CONTAINERFILE.format(python=python, package=PACKAGE))


class SageMaker(Served):
    """``--to sagemaker``."""

    name = "sagemaker"

    def readme(self, manifest: Manifest) -> str:
        """How it is used."""
        return f"""
The container answers SageMaker's `GET /ping` and `POST /invocations` on port 8080: build and push it, and name it as
the model's image; it takes no model data. A body is one input, `application/json` with `instances` several, and
`application/jsonlines` one a line, as batch transform sends them.

```
buildah bud --file Containerfile --tag {manifest.workload}:{manifest.version} .
python -m {PACKAGE}.server serve               # the same without a container
curl --data-binary @an-input -H 'Content-Type: {manifest.input.media_type}' http://127.0.0.1:8080/invocations
```
"""


class Vertex(Served):
    """``--to vertex``."""

    name = "vertex"

    def readme(self, manifest: Manifest) -> str:
        """How it is used."""
        return f"""
The container answers Vertex AI's predictions: it listens where `AIP_HTTP_PORT` says, is healthy at `AIP_HEALTH_ROUTE`
and predicts at `AIP_PREDICT_ROUTE`. Build and push it, and upload the model with its image as
`--container-image-uri`. An instance is a text, `{{"b64": "..."}}`, or any other JSON, which is the input.

```
buildah bud --file Containerfile --tag {manifest.workload}:{manifest.version} .
AIP_HTTP_PORT=8080 AIP_HEALTH_ROUTE=/health AIP_PREDICT_ROUTE=/predict python -m {PACKAGE}.server
curl --json '{{"instances": ["an input"]}}' http://127.0.0.1:8080/predict
```
"""


class KServe(Served):
    """``--to kserve``."""

    name = "kserve"

    def finish(self, manifest: Manifest, folder: Path, output: Path) -> None:
        """Write the Containerfile and the InferenceService."""
        super().finish(manifest, folder, output)
        probe = {"httpGet": {"path": "/v2/health/ready", "port": 8080}}
        container = {
            "name": "kserve-container",
            "image": f"{manifest.workload}:{manifest.version}",
            "args": ["--name", manifest.workload, "--port", "8080"],
            "ports": [{"containerPort": 8080, "protocol": "TCP"}],
            "readinessProbe": probe,
            "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        }
        service = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {
                "name": manifest.workload,
                "annotations": {"cohobate/student": manifest.lineage.student, "cohobate/version": manifest.version},
            },
            "spec": {"predictor": {"containers": [container]}},
        }
        write(folder, "inferenceservice.yaml", yaml.safe_dump(service, sort_keys=False))

    def readme(self, manifest: Manifest) -> str:
        """How it is used."""
        return f"""
The container speaks the Open Inference Protocol over HTTP, as KServe's own runtimes do. Build and push it, put the
image's place into `inferenceservice.yaml`, and apply that. Its tensor `payload` (BYTES, [N]) gives `label`,
`confidence`, `defer`, `{soft_field(manifest)}` (JSON) and `novelty`.

```
buildah bud --file Containerfile --tag {manifest.workload}:{manifest.version} .
kubectl apply -f inferenceservice.yaml
python -m {PACKAGE}.server --port 8080         # the same without a cluster
curl --json '{{"inputs": [{{"name": "payload", "datatype": "BYTES", "shape": [1], "data": ["an input"]}}]}}' \\
  http://127.0.0.1:8080/v2/models/{manifest.workload}/infer
```
"""
