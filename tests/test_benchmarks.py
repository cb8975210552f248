"""The program that runs the benchmarks tells whether a limit was missed."""

import subprocess
import sys

import pytest
from conftest import TEMPLATE

DIRECTORY = TEMPLATE / "tests" / "benchmarks"
BENCHMARKS = """
import sys
import measure, run


def much(work): measure.report("much", 2, 1)
def little(work): measure.report_ratio("little", 1, 2)
def enough(work): measure.report("enough", 1, 1)


run.ALONE, run.INSIDE = [much, little, enough], []
sys.exit(run.main())
"""


def run_benchmarks(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", BENCHMARKS, *arguments]
    return subprocess.run(command, cwd=DIRECTORY, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("names", "status"),
    [
        (["enough"], 0),
        (["much", "enough"], 1),
        (["little", "enough"], 1),
        (["much", "--in", "project"], 1),
        (["enough", "--in", "project"], 0),
    ],
)
def test_missed_limit_fails_the_run_after_the_last_one(names: list[str], status: int) -> None:
    """Also in the process that run.py starts inside `uv run dev`."""
    result = run_benchmarks(*names)
    assert (result.returncode, result.stderr) == (status, "")
    assert ("enough: 1.00 (at most 1) ok" in result.stdout) == ("enough" in names)


def test_unknown_name_is_one_line() -> None:
    result = run_benchmarks("enough", "enuogh")
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("no benchmark is called enuogh; ")
