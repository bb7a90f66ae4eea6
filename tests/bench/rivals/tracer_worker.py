"""tracer-llm 0.3.3 behind pipes, by its documentation: ``fit`` on traces, ``update`` with new ones, ``load_router``.

Run by the Python of an environment of its own. Lines of JSON come on the standard input, and one answer to each goes
out. Inputs are named by their number; their embeddings are in a file.
"""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import tracer


def main():
    start = json.loads(sys.stdin.readline())
    rows, folder = np.load(start["embeddings"]).astype(np.float32), Path(start["folder"])
    artifacts, traces, router = folder / ".tracer", folder / "traces.jsonl", None
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "route":
            inputs = order["inputs"]
            labels = [None] * len(inputs)
            if router is not None:
                labels = router.predict_batch(rows[inputs])["labels"]
            answer = {"labels": labels}
        else:
            made = [{"input": str(i), "teacher": label} for i, label in order["traces"]]
            traces.write_text("".join(json.dumps(t) + "\n" for t in made))
            embeddings = rows[[i for i, _ in order["traces"]]]
            config = tracer.FitConfig(target_teacher_agreement=start["target_agreement"], verbose=False)
            with contextlib.redirect_stdout(sys.stderr):
                if (artifacts / "manifest.json").is_file():
                    result = tracer.update(traces, artifacts, new_embeddings=embeddings, config=config)
                else:
                    result = tracer.fit(traces, artifacts, embeddings=embeddings, config=config)
                router = tracer.load_router(artifacts) if result.manifest.selected_method else None
            answer = {"method": result.manifest.selected_method, "coverage": result.manifest.coverage_cal}
        print(json.dumps(answer), flush=True)


main()
