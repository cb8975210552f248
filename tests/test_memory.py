"""Memory and connections of a process that serves."""

import shutil
import sys

import pytest
from conftest import TEMPLATE, Project

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("wrk"), reason="needs Debian's package wrk")
def test_memory_and_connections_do_not_grow(copied: Project) -> None:
    """The benchmark `memory` with 10,000 requests."""
    script = str(TEMPLATE / "tests" / "benchmarks" / "run.py")
    output = copied.uv("dev", sys.executable, script, "memory", "--in", str(copied.path), "10000")
    assert "failed: 0.00 (at most 0) ok" in output
    assert "TOO MUCH" not in output, output
