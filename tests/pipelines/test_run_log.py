"""What a run's log keeps of what Kubeflow's runner and the components print."""

import io
import json
import logging
import sys

import kfp.dsl.executor_main
import pytest
from kfp import dsl
from kfp.local import logging_utils

from pipelines.run_log import RunLog

EXECUTOR = "    [KFP Executor 2026-11-29 12:06:16,381 INFO]: "
PRINTED = f"""\
12:06:16.313 - INFO - Executing task \x1b[96m'distill'\x1b[0m
12:06:16.313 - INFO - Streamed logs:

{EXECUTOR}Looking for component `distill` in --component_module_path `/tmp/tmp.x/ephemeral_component.py`
{EXECUTOR}Loading KFP component "distill" from /tmp/tmp.x/ephemeral_component.py (directory "/tmp/tmp.x" and module …)
{EXECUTOR}Got executor_input:
    {{
        "inputs": {{
            "parameterValues": {{
                "start": "champion",
                "variant": "",
                "most": 3
            }}
        }},
        "outputs": {{
            "outputFile": "/tmp/executor_output.json"
        }}
    }}
{EXECUTOR}files: candidate 3a8d359753c5: promote
    Traceback (most recent call last):
      File "x.py", line 1, in <module>
        "a line of code"
    ValueError: it is {{broken}}
{EXECUTOR}Wrote executor output file to /tmp/executor_output.json.


12:06:28.777 - INFO - Task \x1b[96m'distill'\x1b[0m finished with status \x1b[92mSUCCESS\x1b[0m
12:06:28.779 - INFO - Task 'distill' outputs:
    Output: 'promote'
    metrics: Metrics( name='metrics',
                      uri='/tmp/metrics',
                      metadata={{'rows': 185}} )
--------------------------------------------------------------------------------
"""
KEPT = f"""\
12:06:16.313 - INFO - Executing task 'distill'
    start=champion, most=3
{EXECUTOR}files: candidate 3a8d359753c5: promote
    Traceback (most recent call last):
      File "x.py", line 1, in <module>
        "a line of code"
    ValueError: it is {{broken}}
12:06:28.777 - INFO - Task 'distill' finished with status SUCCESS
12:06:28.779 - INFO - Task 'distill' outputs:
    Output: 'promote'
    metrics: Metrics( name='metrics',
                      uri='/tmp/metrics',
"""


def kept(*pieces, everything=False):
    file = io.StringIO()
    log = RunLog(file, everything=everything)
    for piece in pieces:
        log.write(piece)
    log.finish()
    return file.getvalue()


def test_steps_parameters_and_what_components_say_are_kept():
    assert kept(PRINTED) == KEPT


@pytest.mark.parametrize("size", [1, 7, 100])
def test_it_does_not_matter_in_which_pieces_it_comes(size):
    assert kept(*(PRINTED[i : i + size] for i in range(0, len(PRINTED), size))) == KEPT


def test_at_debug_all_of_it_is_there():
    assert kept(PRINTED, everything=True) == PRINTED


def test_a_line_is_there_as_soon_as_it_is_whole_and_half_a_one_at_the_end():
    file = io.StringIO()
    log = RunLog(file)
    log.write("one\nhal")
    assert file.getvalue() == "one\n"
    log.finish()
    assert file.getvalue() == "one\nhal\n"


def test_another_step_that_speaks_in_between_loses_nothing():
    head, rest = PRINTED.split('        "inputs"', 1)
    other = "    it speaks\n"
    assert other in kept(head + other + '        "inputs"' + rest)


def test_kubeflow_still_prints_in_this_form(tmp_path, capfd, monkeypatch):
    """What is left out is what this version of its executor and its runner really write."""
    (tmp_path / "ephemeral_component.py").write_text(
        "def step(spec: str) -> str:\n    print('at work')\n    return spec\n"
    )
    files = {"parameters": {"Output": {"outputFile": str(tmp_path / "Output")}}}
    files["outputFile"] = str(tmp_path / "executor_output.json")
    given = json.dumps({"inputs": {"parameterValues": {"spec": "s.yaml"}}, "outputs": files})
    argv = ["x", "--component_module_path", str(tmp_path / "ephemeral_component.py"), "--function_to_execute", "step"]
    monkeypatch.setattr("sys.argv", [*argv, "--executor_input", given])
    monkeypatch.setattr("sys.path", sys.path[:])  # the executor puts the step's folder there
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        kfp.dsl.executor_main.executor_main()
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    printed = capfd.readouterr().out
    artifact = dsl.Model(name="student", uri="gs://student", metadata={"digest": "d"})
    shown = logging_utils.make_log_lines_for_outputs({"Output": "s.yaml", "student": artifact})
    text = "".join(f"    {line}\n" for line in printed.splitlines()) + "\n".join(shown) + "\n"
    assert "Got executor_input" in text and "metadata=" in text
    lines = [line.strip() for line in kept(text).splitlines()]
    assert lines[:3] == ["spec=s.yaml", "at work", "Output: 's.yaml'"]
    assert lines[3:] == ["student: Model( name='student',", "uri='gs://student',"]
