"""Jevstiller 0.5.3 behind pipes, by its documentation: ``route``, then ``complete`` with the teacher's answers.

Run by the Python of an environment of its own. Lines of JSON come on the standard input, and one answer to each goes
out. Inputs are named by their number; the encoder gives the embedding that the file has at it.
"""

import json
import sys

import numpy as np
from jevstiller import Config, Jevstiller, Task, TeacherOutput


class Kept:
    """An encoder by the library's protocol: embeddings that were made before."""

    id = "kept@1"

    def __init__(self, rows):
        self.rows, self.dim = rows, rows.shape[1]

    def encode(self, texts):
        return self.rows[[int(t) for t in texts]]


class Nobody:
    name = "recorded"

    def classify(self, texts, task):
        raise RuntimeError("the bench asks the teacher")


def main():
    start, engine, routed = json.loads(sys.stdin.readline()), None, None
    rows = np.load(start["embeddings"]).astype(np.float32)
    task = Task(
        name="bench", instructions="bench", classes=start["classes"], target_agreement=start["target_agreement"]
    )
    config = Config(**{"training": "inline", "seed": start["seed"]} | start["options"])
    engine = Jevstiller(task, Nobody(), start["folder"], encoder=Kept(rows), config=config)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "route":
            routed = engine.route([str(i) for i in order["inputs"]])
            answer = {"labels": [None if r is None else r.label for r in routed.results]}
        elif order["do"] == "complete":
            outs = []
            for i in routed.to_teacher:
                shares = order["answers"].get(str(i))
                if shares is None:
                    outs.append(RuntimeError("the budget is spent"))
                    continue
                every = {c: shares.get(c, 0.0) for c in task.labels}
                label = max(every, key=every.get)
                outs.append(TeacherOutput(label=label, probs=every, confidence=every[label]))
            engine.complete(routed, outs)
            answer = {"production": engine.status().production}
        else:
            report = engine.train_now()
            if report.accepted:
                engine.promote(report.version)
            answer = {"production": engine.status().production, "reason": report.reason}
        print(json.dumps(answer), flush=True)
    engine.close()


main()
