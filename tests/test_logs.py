"""A server's log, whichever way it is started, in one form."""

import json
import re
from typing import Any

import httpx
import pexpect
import pytest
from conftest import Project, user_environment
from served import serve
from servers import free_port

pytestmark = pytest.mark.slow

UVICORN = ["uvicorn", "app.main:app", "--port", "PORT"]
PROGRAM = "import uvicorn; from app.main import app; uvicorn.run(app, port=PORT)"
WAYS: dict[str, tuple[list[str], int]] = {
    "uvicorn": (UVICORN, 1),
    "workers": ([*UVICORN, "--workers", "2"], 2),
    "reload": ([*UVICORN, "--reload"], 1),
    "fastapi run": (["fastapi", "run", "--port", "PORT"], 1),
    "fastapi dev": (["fastapi", "dev", "--port", "PORT"], 1),
    "a program": (["python", "-c", PROGRAM], 1),
}
# What a process that only watches over others says, and what `fastapi` prints before it serves.
OTHERS = re.compile(
    r"INFO: +(Will watch|Uvicorn running|Started (parent|reloader)|Received SIG|Terminated child"
    r"|Waiting for child|Stopping (parent|reloader))| |$"
)
FIRST = ["Started server process", "Waiting for application startup"]


@pytest.mark.parametrize(("command", "processes"), WAYS.values(), ids=WAYS.keys())
def test_every_line_is_json(installed: Project, command: list[str], processes: int) -> None:
    with serve(installed, *command, processes=processes) as served:
        assert httpx.get(f"{served.url}/health/live").status_code == 200
        headers = {"X-Request-ID": "mine"}
        assert httpx.get(f"{served.url}/items?token=hunter2", headers=headers).status_code == 503
    lines: list[dict[str, Any]] = []
    others = []
    for output in served.lines:
        try:
            lines.append(json.loads(output))
        except ValueError:
            others.append(output)
    if command[0] == "python":  # its first lines come before the application is asked
        others = [line for line in others if not any(first in line for first in FIRST)]
    assert [line for line in others if not OTHERS.match(line)] == []
    for line in lines:
        assert line.keys() >= {"event", "level", "logger", "timestamp"}
    (access,) = (line for line in lines if line["logger"] == "app.access")
    assert (access["path"], access["status"], access["request_id"]) == ("/items", 503, "mine")
    assert {line["logger"] for line in lines if line.get("request_id") == "mine"} == {
        "app.access",
        "app.errors",
    }
    assert "Application shutdown complete." in [line["event"] for line in lines]
    assert "hunter2" not in "".join(served.lines)


def test_a_terminal_shows_it_for_people(copied: Project) -> None:
    port = free_port()
    terminal = pexpect.spawn(
        "uv",
        ["run", "-q", "dev", "--port", str(port)],
        cwd=copied.path,
        env=user_environment() | {"NO_COLOR": "1", "TERM": "dumb"},
        encoding="utf-8",
        dimensions=(40, 300),
    )
    terminal.expect("Application startup complete", timeout=60)
    httpx.get(f"http://127.0.0.1:{port}/nothing", headers={"X-Request-ID": "mine"})
    terminal.expect("app.access")
    line = f"{terminal.before}".splitlines()[-1] + terminal.readline()
    line = re.sub(r"\x1b\[[0-9;]*m", "", line)
    assert re.search(r"\[info +\] request .*method=GET path=/nothing status=404", line)
    assert "request_id=mine" in line
    terminal.sendintr()
    terminal.expect(pexpect.EOF, timeout=30)
    assert "{" not in f"{terminal.before}"
