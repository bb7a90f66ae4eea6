import subprocess
import sys

import pytest

HEAVY = ("torch", "mlflow", "feast", "kfp", "evidently", "sklearn", "kafka")


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        (
            ("serving.gateway.app", "serving.replica.loaded_versions", "serving.gateway.telemetry", "serving.ray_app"),
            (*HEAVY, "ray", "onnxruntime"),
        ),
        (("serving.control.controller", "serving.cli", "serving.rollout"), (*HEAVY, "ray", "onnxruntime", "fastapi")),
    ],
)
def test_importing_serving_brings_in_nothing_heavy(modules, heavy):
    code = f"import sys, {', '.join(modules)}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
