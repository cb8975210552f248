"""What a process holds on to while it serves."""

import shutil
import sys

import pytest
from conftest import TEMPLATE, Project

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]


@pytest.mark.skipif(not shutil.which("wrk"), reason="needs Debian's package wrk")
def test_memory_and_connections_stay_as_they_are(copied: Project) -> None:
    """The benchmark `memory` with 10,000 requests."""
    script = str(TEMPLATE / "tests" / "benchmarks" / "living.py")
    output = copied.uv("dev", sys.executable, script, "memory", str(copied.path), "10000")
    assert "failed: 0.00 (at most 0) ok" in output
    assert "TOO MUCH" not in output, output
