"""The same student behind other servers: ``python -m tests.bench._servers KIND ARTIFACT PORT WORKERS``.

Each answers label and confidence to one JSON object of columns, in the form that its server is used to. The modules
of the servers are imported where they are used: each may live in an environment of its own.
"""

import os
import sys
from pathlib import Path

KIND, ARTIFACT, PORT, WORKERS = "", "", 0, 1


def student():
    from components.student.runtime import Student

    return Student.load(Path(ARTIFACT).read_bytes())


def told(soft):
    return {"label": soft.label, "confidence": soft.confidence}


def mlflow():
    import tempfile

    import mlflow.pyfunc

    class Model(mlflow.pyfunc.PythonModel):
        def load_context(self, context):
            self.student = student()

        def predict(self, context, model_input, params=None):
            return [told(s) for s in self.student.predict_decoded(list(model_input))]

    folder = tempfile.mkdtemp()
    mlflow.pyfunc.save_model(f"{folder}/model", python_model=Model(), pip_requirements=[])
    command = [
        sys.executable, "-m", "mlflow", "models", "serve", "-m", f"{folder}/model", "--env-manager", "local", "-p",
        str(PORT), "--workers", str(WORKERS), "-h", "127.0.0.1",
    ]  # fmt: skip
    os.execv(sys.executable, command)  # noqa: S606


def bentoml():
    import bentoml

    @bentoml.service(workers=WORKERS, traffic={"timeout": 30}, logging={"access": {"enabled": False}})
    class Bento:
        def __init__(self):
            self.student = student()

        @bentoml.api
        def predict(self, columns: dict) -> dict:
            return told(self.student.predict_decoded([columns])[0])

    return Bento


if __name__ == "__main__":
    KIND, ARTIFACT, PORT, WORKERS = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    if KIND == "bentoml":
        os.environ |= {"BENCH_ARTIFACT": ARTIFACT, "BENCH_WORKERS": str(WORKERS)}
        os.execv(  # noqa: S606
            sys.executable,
            [
                sys.executable,
                "-m",
                "bentoml",
                "serve",
                "tests.bench._servers:Bento",
                "-p",
                str(PORT),
                "--host",
                "127.0.0.1",
            ],
        )
    mlflow()
elif "BENCH_ARTIFACT" in os.environ:
    ARTIFACT, WORKERS = os.environ["BENCH_ARTIFACT"], int(os.environ["BENCH_WORKERS"])
    Bento = bentoml()
