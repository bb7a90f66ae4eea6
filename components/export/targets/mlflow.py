"""A pyfunc model of MLflow: the bundle's folder is the model's, with ``MLmodel`` in it."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

import msgspec
import yaml

from components.export.manifest import Manifest, Precision
from components.export.notices import version_of
from components.export.package import PACKAGE
from components.export.parity import Ask, in_a_process
from components.export.targets.contract import Built, Target, Version, write

COLUMNS = {"text": ("text", "string"), "json": ("json", "string")}
"""The column that holds an input whole, and its type, by the decoder; of any other it is bytes."""

OPENED = """
import mlflow.pyfunc, pandas
column, model = {column!r}, mlflow.pyfunc.load_model(folder)
def answer(payloads):
    rows = payloads if column == "payload" else [p.decode() for p in payloads]
    said = model.predict(pandas.DataFrame({column: rows}))
    told = said.astype(object).where(said.notna(), None).to_dict("records")
    return [one if one["error"] is None else {"error": one["error"]} for one in told]
"""


class Mlflow(Target):
    """``--to mlflow``."""

    name = "mlflow"

    def build(self, version: Version, folder: Path, precision: Precision) -> Built:
        """The judged artefact, with what MLflow calls it by."""
        built = super().build(version, folder, precision)
        return replace(built, needs=("mlflow", "pandas"), modules=(*built.modules, "mlflow_model"))

    def finish(self, manifest: Manifest, folder: Path, output: Path) -> None:
        """Write ``MLmodel`` and the environment's file."""
        python = platform.python_version()
        column, kind = column_of(manifest)
        described = {
            "flavors": {
                "python_function": {
                    "code": ".",
                    "env": {"virtualenv": "python_env.yaml"},
                    "loader_module": f"{PACKAGE}.mlflow_model",
                    "python_version": python,
                }
            },
            "metadata": {"student": manifest.lineage.student, "version": manifest.version},
            "mlflow_version": version_of("mlflow"),
            "model_uuid": manifest.lineage.student[:32],
        }
        if manifest.input.decoder != "json":  # an object's own columns are taken too
            said = msgspec.json.encode([{"type": kind, "name": column, "required": True}]).decode()
            described["signature"] = {"inputs": said, "outputs": None, "params": None}
        write(folder, "MLmodel", yaml.safe_dump(described))
        environment = {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
        write(folder, "python_env.yaml", yaml.safe_dump(environment))

    def ask(self, folder: Path) -> Ask:
        """By ``mlflow.pyfunc.load_model``."""
        from components.export.manifest import read

        return in_a_process(folder, OPENED.replace("{column!r}", repr(column_of(read(folder))[0])))

    def readme(self, manifest: Manifest) -> str:
        """How it is used."""
        column, kind = column_of(manifest)
        example = '"aGVsbG8="' if kind == "binary" else '"an input"'
        return f"""
```
mlflow models serve --model-uri . --env-manager local --port 5000
curl --json '{{"dataframe_records": [{{"{column}": {example}}}]}}' http://127.0.0.1:5000/invocations
```

`mlflow.pyfunc.load_model(".")` gives the same model in Python; `mlflow models build-docker --model-uri .` an image.
"""


def column_of(manifest: Manifest) -> tuple[str, str]:
    """The column that holds an input whole, and its type."""
    return COLUMNS.get(manifest.input.decoder, ("payload", "binary"))
