"""The budgets of lines."""

import subprocess
import sys

from conftest import TEMPLATE


def test_no_budget_is_exceeded() -> None:
    command = [sys.executable, "tests/benchmarks/run.py", "size"]
    result = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
