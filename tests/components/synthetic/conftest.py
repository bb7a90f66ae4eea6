"""Workloads whose inputs can be made up: words, rows of a table, and images for a network of PyTorch."""

import pytest
import yaml

from components.contracts.spec import load_spec

TEXTS = {
    "name": "words",
    "teacher": {"factory": "tests.components.synthetic.teachers:Words"},
    "payload": {"decoder": "text"},
    "features": {"factory": "components.student.text:TextNgrams", "options": {"buckets": 4096}},
    "student": {"learning_rate": 0.01, "epochs": 8, "data_free": {"rows": 240}},
    "limits": {"min_rows": 30, "confidence": 0.9, "min_agreement": 0.8},
    "label": {"linger_seconds": 0.0, "audit_share": 0.3},
}
TABLES = {
    "name": "rows",
    "teacher": {"factory": "tests.components.synthetic.teachers:Rare"},
    "payload": {"decoder": "json"},
    "features": {
        "factory": "components.student.columns:MixedColumns",
        "options": {
            "numbers": [{"name": "age", "mean": 40, "scale": 12}, {"name": "income", "mean": 3000, "scale": 900}],
            "categories": [{"name": "region", "values": ["north", "south"]}],
        },
    },
    "student": {"network": {"factory": "components.distill.networks.table:TableNetwork"}},
}
IMAGES = {
    "name": "digits",
    "teacher": {"factory": "tests.components.synthetic.teachers:Digits"},
    "payload": {"decoder": "components.student.image:image_bytes"},
    "features": {
        "factory": "components.student.image:Image",
        "options": {"height": 8, "width": 8, "colour": "grey"},
    },
    "student": {"network": {"factory": "components.distill.networks.image_convolution:ImageConvolution"}},
}


@pytest.fixture
def write(tmp_path):
    """Writes a spec with some of its sections changed; returns its path."""

    def make(document, **sections):
        merged = {**document, **{n: {**document.get(n, {}), **s} for n, s in sections.items()}}
        path = tmp_path / f"{document['name']}.yaml"
        path.write_text(yaml.safe_dump(merged))
        return path

    return make


@pytest.fixture
def spec_of(write):
    def make(document, **sections):
        return load_spec(write(document, **sections))

    return make
