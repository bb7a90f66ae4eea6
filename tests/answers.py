"""An answer of each task: what a workload of another one is to pass over."""

from components.contracts.records import SoftLabel, Token

ANSWERS = {
    soft.task: soft
    for soft in (
        SoftLabel.of("any@1", ("a", "b"), [0.9, 0.1]),
        SoftLabel(task="regression", space="any@1", value=1.0, scale=1.0),
        SoftLabel(task="multilabel", space="any@1", distribution={"a": 0.9}),
        SoftLabel(task="tagging", space="any@1", tokens=(Token(start=0, end=1, distribution={"O": 1.0}),)),
        SoftLabel(task="embedding", space="any@1", vector=(1.0, 0.0), scale=0.1),
    )
}
"""By task."""

NO_CLASSES = [soft for task, soft in ANSWERS.items() if task != "classification"]
"""What a classification passes over."""
