"""``python -m cohobate_student``: answer a file of inputs, or check the bundle.

predict [FILE] [--batch N] [--lines | --base64]
    Answers one input, the whole FILE (or standard input), as JSON. ``--lines``: each line is an input; ``--base64``:
    each line is one in base64. A line of JSON answers each.
check
    Compares every file with the manifest.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import sys
from pathlib import Path

from .errors import BundleError, RecordError
from .student import Answer, check, load, read_manifest

ROOT = Path(__file__).parents[1]


def _told(answer: Answer | RecordError) -> str:
    if isinstance(answer, Answer):
        return json.dumps(answer.as_dict())
    return json.dumps({"error": {"title": answer.reason, "detail": answer.detail}})


def main(arguments: list[str] | None = None) -> int:
    """Run a command; exit code 1 where an input was refused or the bundle is broken."""
    parser = argparse.ArgumentParser(prog="python -m cohobate_student", description="A student exported by Cohobate.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="compare every file with the manifest")
    predict = commands.add_parser("predict", help="answer inputs")
    predict.add_argument("file", nargs="?", help="of the input or inputs [standard input]")
    predict.add_argument("--batch", type=int, default=256, help="inputs at a time")
    predict.add_argument("--threads", type=int, default=1, help="of the runtime")
    forms = predict.add_mutually_exclusive_group()
    forms.add_argument("--lines", action="store_true", help="each line is an input")
    forms.add_argument("--base64", action="store_true", help="each line is an input in base64")
    given = parser.parse_args(arguments)
    try:
        if given.command == "check":
            check(ROOT, read_manifest(ROOT))
            print(f"{ROOT}: every file is what its manifest says")
            return 0
        return _predict(given)
    except (BundleError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _predict(given: argparse.Namespace) -> int:
    data = Path(given.file).read_bytes() if given.file else sys.stdin.buffer.read()
    payloads = data.splitlines() if given.lines or given.base64 else [data]
    if given.base64:
        try:
            payloads = [base64.b64decode(line, validate=True) for line in payloads]
        except binascii.Error as error:
            print(f"error: a line is not base64: {error}", file=sys.stderr)
            return 1
    student, refused = load(ROOT, threads=given.threads), False
    for first in range(0, len(payloads), given.batch):
        for answer in student.predict_each(payloads[first : first + given.batch]):
            print(_told(answer))
            refused = refused or isinstance(answer, RecordError)
    return int(refused)


if __name__ == "__main__":
    sys.exit(main())
