"""What the OpenAPI document promises, held against a server by schemathesis."""

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Project, user_environment
from servers import free_port

pytestmark = pytest.mark.slow

CASES = 2000
SECONDS = 40  # of a run, enough for twice as many here
SEEN = {"200", "201", "204", "404", "409", "422"}  # what schemathesis finds without fail


@pytest.fixture
def address(copied: Project, tmp_path: Path) -> Iterator[str]:
    """Where a generated project will soon be served, which must log no failure."""
    copied.run("uv", "sync", "--quiet")
    port, log = free_port(), tmp_path / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            ["uv", "run", "--quiet", "dev", "--port", str(port)],
            cwd=copied.path,
            env=user_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    yield f"http://127.0.0.1:{port}"
    server.send_signal(signal.SIGINT)
    server.wait(timeout=30)
    assert "Traceback" not in log.read_text()


def schemathesis(address: str, seed: int, directory: Path) -> tuple[dict[str, Any], list[Any]]:
    """Test with all checks, in all phases. Returns the report and what each scenario sent."""
    report, events = directory / f"{seed}.json", directory / f"{seed}.ndjson"
    command = ["schemathesis", "run", f"{address}/openapi.json", "--wait-for-schema", "60"]
    command += ["--checks", "all", "--seed", str(seed), "--max-time", str(SECONDS)]
    command += ["--report-json-path", str(report), "--report-ndjson-path", str(events)]
    result = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = map(json.loads, events.read_text().splitlines())
    scenarios = [line["ScenarioFinished"] for line in lines if "ScenarioFinished" in line]
    return json.loads(report.read_text()), [each for each in scenarios if each["status"] != "skip"]


@pytest.mark.exhaustive
def test_the_api_is_what_its_openapi_says(address: str, tmp_path: Path) -> None:
    total = 0
    phases, answers, links = Counter[str](), Counter[str](), Counter[str]()
    for seed in count(1):
        report, scenarios = schemathesis(address, seed, tmp_path)
        assert (report["failures"], report["errors"]) == ([], [])
        assert {phase["status"] for phase in report["phases"].values()} == {"success"}
        total += report["test_cases"]["generated"]
        for scenario in scenarios:
            sent = scenario["recorder"]
            phases[scenario["phase"]] += len(sent["cases"])
            for name, case in sent["cases"].items():
                response = sent["interactions"][name]["response"]
                operation = f"{case['value']['method']} {case['value']['path']}"
                answers[f"{operation} {response['status_code']}"] += 1
                if case["is_transition_applied"]:
                    links[case["transition"]["id"]] += 1
        if total >= CASES:
            break
    for counter in (phases, answers, links):
        print(*(f"{number:5} {what}" for what, number in sorted(counter.items())), sep="\n")

    assert phases.keys() == {"examples", "coverage", "fuzzing", "stateful"}
    assert phases.total() == total
    paths = httpx.get(f"{address}/openapi.json").json()["paths"]
    promised = {
        f"{method.upper()} {path} {status}"
        for path, operations in paths.items()
        for method, operation in operations.items()
        for status in operation["responses"]
    }
    assert {answer for answer in promised if answer[-3:] in SEEN} <= answers.keys()
    assert {answer for answer in answers if answer[-3:] != "405"} <= promised
    assert links.keys() >= {
        "POST /items -> [201] read_item -> GET /items/{item_id}",
        "POST /items -> [201] update_item -> PATCH /items/{item_id}",
        "POST /items -> [201] delete_item -> DELETE /items/{item_id}",
    }
