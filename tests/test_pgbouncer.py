"""PgBouncer in transaction mode, where each transaction may run on another connection."""

import pytest
from conftest import Project, short_directory
from load import stage
from survival import pooled

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "prepared",
    [pytest.param(0, marks=pytest.mark.exhaustive), 200],
    ids=["without", "with prepared statements"],
)
def test_no_request_fails(installed: Project, prepared: int) -> None:
    with stage(installed.path, short_directory()) as prepared_stage:
        counts, faults = pooled(prepared_stage, 1500, prepared)
    assert faults == [], counts
