"""Students of the example that the overlays are written with."""

from pathlib import Path

from components.contracts.spec import load_spec
from components.student.card import StudentCard
from tests.students import bag, exported

WORKLOAD = "files"
EXAMPLE = Path("infra/deploy/example/files.yaml")


def artifact(code, teacher="magika@1"):
    """A student's file and its card; another ``code`` is another student."""
    spec = load_spec(EXAMPLE)
    card = StudentCard(
        workload=WORKLOAD, task="classification", space="magika@1", classes=("elf", "shell"), features=spec.features,
        payload=spec.payload, **bag(32_768, 4, 8), variant="base", snapshots=("s" * 64,), teacher=teacher,
        parent=None, code=code,
    )  # fmt: skip
    return exported(card), card
