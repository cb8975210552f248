"""Three hosts with the application, a pooler, a primary and a standby, in namespaces."""

import hosts
import pytest
from conftest import Project, bake_with, install, short_directory
from pytest_cookies.plugin import Cookies

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]


def test_rollout_partition_and_failover_break_no_promise(
    cookies_session: Cookies, installed: Project
) -> None:
    """One after the other, on the same hosts. The failover is last: there is no second standby."""
    project = bake_with(cookies_session, {"kubernetes": True}).copy(short_directory())
    (project.path / ".env").unlink()
    install(project, installed)
    with hosts.hosts(project.path, short_directory()) as service:
        for scenario in (hosts.rollout, hosts.partition, hosts.failover):
            counts, faults = scenario(*service)
            print(f"{scenario.__name__}: {counts}")
            assert faults == [], counts
