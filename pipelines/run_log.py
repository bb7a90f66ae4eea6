"""What a run's log keeps of all that Kubeflow's local runner and its components print: what a person reads.

Kubeflow's executor prints the whole input of each step as JSON, and where it found and wrote its own files; of all that
the step's parameters are kept, on one line. Colours, rules, empty lines and metadata of artefacts go, too. Everything
else, each line of a component and each traceback, is kept as it is. With ``COHOBATE_LOG_LEVEL=DEBUG`` nothing is left
out.
"""

from __future__ import annotations

import io
import json
import re
import threading
from typing import TextIO

COLOUR = re.compile(r"\x1b\[[0-9;]*m")

MACHINERY = re.compile(
    r"^\s*$|^-{20,}$"
    r"|\[KFP Executor [^]]*INFO\]: (?:Looking for component `|Loading KFP component \"|Wrote executor output file to )"
    r"|^\S+ - INFO - Streamed logs:$|^\s+metadata=\{.*\} \)$"
)
"""Lines that say what Kubeflow does, and not what the step does."""

INPUT = re.compile(r"\[KFP Executor [^]]*INFO\]: Got executor_input:$")
OF_JSON = re.compile(r'^\s+(?:["{}\[\]]|-?\d|true\b|false\b|null\b)')
END = re.compile(r"^ {0,4}\}$")
"""The end of the input's JSON: the runner indents what a component prints by four."""


class RunLog(io.TextIOBase):
    """A file that is written to in the place of stdout, line by line. Safe to use from several threads."""

    def __init__(self, file: TextIO, *, everything: bool = False) -> None:
        self._file, self._everything = file, everything
        self._lock = threading.RLock()
        self._line = ""
        self._input: list[str] | None = None

    def writable(self) -> bool:
        """Whether it can be written to: yes."""
        return True

    def write(self, text: str) -> int:
        """Take in text; what is of use goes on when its line is whole."""
        with self._lock:
            *lines, self._line = (self._line + text).split("\n")
            for line in lines:
                self._take(line)
            self._file.flush()
        return len(text)

    def flush(self) -> None:
        """Write what is there; half a line waits for its end."""
        self._file.flush()

    def finish(self) -> None:
        """Write what still waits."""
        with self._lock:
            if self._line:
                self._take(self._line)
            self._line = ""
            self._file.flush()

    def _take(self, line: str) -> None:
        if self._everything:
            self._file.write(f"{line}\n")
            return
        line = COLOUR.sub("", line)
        if self._input is not None and OF_JSON.match(line):
            self._input.append(line)
            if END.match(line):
                self._file.write(_parameters(self._input))
                self._input = None
        elif INPUT.search(line):
            self._input = []
        elif not MACHINERY.search(line):
            self._file.write(f"{line}\n")


def _parameters(lines: list[str]) -> str:
    """The parameters of a step, on one line; nothing where it has none, or where two steps printed at once."""
    try:
        values = json.loads("".join(lines))["inputs"]["parameterValues"]
    except (ValueError, KeyError, TypeError):
        return ""
    shown = ", ".join(f"{name}={value}" for name, value in values.items() if value != "")
    return f"    {shown}\n" if shown else ""
