"""The OpenAPI document, compared with the running application."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Project, short_directory, tool
from load import stage

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

CASES = 2000
SECONDS = 40  # of one run, enough for twice as many cases here
SEEN = {"200", "201", "204", "404", "409", "422"}  # statuses that schemathesis always finds


@pytest.fixture(scope="module")
def address(installed: Project) -> Iterator[str]:
    """The address of a served project, whose log must show no bug at the end."""
    with stage(installed.path, short_directory()) as database, database.serve() as server:
        yield server.url
        assert "Traceback" not in server.log.read_text()


def schemathesis(address: str, seed: int, directory: Path) -> tuple[dict[str, Any], list[Any]]:
    """Run all checks in all phases. Returns the report and the requests of each scenario."""
    report, events = directory / f"{seed}.json", directory / f"{seed}.ndjson"
    command = tool(f"schemathesis run {address}/openapi.json --checks all --seed {seed}")
    command += ["--max-time", str(SECONDS)]
    command += ["--report-json-path", str(report), "--report-ndjson-path", str(events)]
    result = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = map(json.loads, events.read_text().splitlines())
    scenarios = [line["ScenarioFinished"] for line in lines if "ScenarioFinished" in line]
    return json.loads(report.read_text()), [each for each in scenarios if each["status"] != "skip"]


@pytest.mark.long
def test_application_answers_as_documented(address: str, tmp_path: Path) -> None:
    total = 0
    phases, answers = Counter[str](), Counter[str]()
    for seed in count(1):
        report, scenarios = schemathesis(address, seed, tmp_path)
        assert (report["failures"], report["errors"]) == ([], [])
        total += report["test_cases"]["generated"]
        for scenario in scenarios:
            sent = scenario["recorder"]
            phases[scenario["phase"]] += len(sent["cases"])
            for name, case in sent["cases"].items():
                response = sent["interactions"][name]["response"]
                operation = f"{case['value']['method']} {case['value']['path']}"
                answers[f"{operation} {response['status_code']}"] += 1
        if total >= CASES:
            break
    for counter in (phases, answers):
        print(*(f"{number:5} {name}" for name, number in sorted(counter.items())), sep="\n")

    assert phases.keys() == {"examples", "coverage", "fuzzing", "stateful"}
    assert phases.total() == total
    paths = httpx.get(f"{address}/openapi.json").json()["paths"]
    documented = {
        f"{method.upper()} {path} {status}"
        for path, operations in paths.items()
        for method, operation in operations.items()
        for status in operation["responses"]
    }
    assert {answer for answer in documented if answer[-3:] in SEEN} <= answers.keys()
    assert {answer for answer in answers if answer[-3:] != "405"} <= documented


CLIENT = """
import sys

from generated import Client
from generated.api.items import items_create, items_read
from generated.models import ItemCreate, ItemRead, Problem

client = Client(base_url=sys.argv[1])
created = items_create.sync(client=client, body=ItemCreate(name="typed"))
assert isinstance(created, ItemRead), created
assert items_read.sync(created.id, client=client) == created
missing = items_read.sync(2**62, client=client)
assert isinstance(missing, Problem), missing
assert missing.status == 404
taken = items_create.sync(client=client, body=ItemCreate(name="typed"))
assert isinstance(taken, Problem), taken
assert taken.status == 409
assert taken.errors and taken.errors[0].location == "body.name", taken
"""


def test_typed_client_reads_rows_and_problems(address: str, tmp_path: Path) -> None:
    """openapi-python-client generates it, and mypy knows its types."""
    (tmp_path / "use.py").write_text(CLIENT)
    for command in (
        f"openapi-python-client generate --url {address}/openapi.json --meta none"
        " --output-path generated --fail-on-warning",
        "mypy --strict --follow-imports=silent use.py",
        f"python use.py {address}",
    ):
        result = subprocess.run(tool(command), cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
