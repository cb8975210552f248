"""The log of a server: the same lines however it is started."""

import json
import re
from typing import Any

import httpx
import pexpect
import psutil
import pytest
from conftest import Project, user_environment
from servers import free_port
from serving import ENVIRONMENT, UVICORN, serve, wait_until

pytestmark = pytest.mark.slow

PROGRAM = "import uvicorn; from app.main import app; uvicorn.run(app, port=PORT)"
COMMANDS: dict[str, tuple[str, ...]] = {
    "uvicorn": UVICORN,
    "workers": UVICORN,
    "reload": (*UVICORN, "--reload"),
    "fastapi run": ("fastapi", "run", "--port=PORT"),
    "fastapi dev": ("fastapi", "dev", "--port=PORT"),
    "a program": ("python", "-c", PROGRAM),
}
# The lines of a process that only watches others, and of `fastapi` before it serves.
OTHERS = re.compile(
    r"INFO: +(Will watch|Uvicorn running|Started (parent|reloader)|Received SIG|Terminated child"
    r"|Waiting for child|Stopping (parent|reloader))| |$"
)
FIRST = ["Started server process", "Waiting for application startup"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_log_line_is_json(installed: Project, name: str) -> None:
    workers = 2 if name == "workers" else 1
    with serve(installed.path, command=COMMANDS[name], workers=workers) as server:
        assert httpx.get(f"{server.url}/health/live").status_code == 200
        headers = {"X-Request-ID": "mine"}
        assert httpx.get(f"{server.url}/items?token=hunter2", headers=headers).status_code == 503
    output = server.log.read_text()
    lines: list[dict[str, Any]] = []
    others = []
    for line in output.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            others.append(line)
    if name == "a program":  # uvicorn logs its first lines before the lifespan begins
        others = [line for line in others if not any(first in line for first in FIRST)]
    assert [line for line in others if not OTHERS.match(line)] == []
    for event in lines:
        assert event.keys() >= {"event", "level", "logger", "timestamp"}
    (access,) = (event for event in lines if event["logger"] == "app.access")
    assert (access["path"], access["status"], access["request_id"]) == ("/items", 503, "mine")
    assert {event["logger"] for event in lines if event.get("request_id") == "mine"} == {
        "app.access",
        "app.web.problems",
    }
    assert "Application shutdown complete." in [event["event"] for event in lines]
    assert "hunter2" not in output


GUNICORN = "gunicorn --bind=127.0.0.1:PORT --access-logfile=- --no-control-socket"
OTHER_SERVERS = {
    "granian": "granian --interface=asgi --access-log --port=PORT",
    "gunicorn": f"{GUNICORN} --worker-class=asgi",
    "gunicorn with uvicorn": f"{GUNICORN} --worker-class=uvicorn_worker.UvicornWorker",
}
WITH = ("--with=granian", "--with=gunicorn", "--with=uvicorn-worker")


@pytest.mark.parametrize("command", OTHER_SERVERS.values(), ids=OTHER_SERVERS)
def test_explicit_call_gives_other_servers_the_same_lines(copied: Project, command: str) -> None:
    copied.replace("app/main.py", "logs.configure()  # first", "logs.take_over()  # first")
    (copied.path / ".env").unlink()
    url, log = f"http://127.0.0.1:{free_port()}", copied.path / "log"
    words = command.replace("PORT", url.rpartition(":")[2]).split()
    with log.open("w") as output:
        process = psutil.Popen(
            ["uv", "run", "--quiet", *WITH, *words, "app.main:app"],
            cwd=copied.path,
            env=user_environment() | ENVIRONMENT,
            stdout=output,
            stderr=output,
        )
        try:
            wait_until(lambda: answers(url), log.read_text)
            headers = {"X-Request-ID": "mine"}
            httpx.get(f"{url}/items?token=hunter2", headers=headers)
        finally:
            process.terminate()
            process.wait(timeout=60)
    lines = log.read_text().splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    (access,) = (event for event in events if event["logger"] == "app.access")
    assert (access["path"], access["status"], access["request_id"]) == ("/items", 503, "mine")
    assert {event["logger"].partition(".")[0].strip("_") for event in events} >= {"app", words[0]}
    # Other lines come from the process that watches the worker.
    assert {len(line.split("[INFO]")) for line in lines if not line.startswith("{")} == {2}
    assert "hunter2" not in log.read_text()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/live").status_code == 200
    except httpx.TransportError:
        return False


WORKER = """
import logging, structlog
from app.web import logs

logging.basicConfig()
logs.take_over()
logging.getLogger("worker").info("standard")
structlog.get_logger("worker").info("native", size=1)
"""


def test_explicit_call_gives_a_worker_the_same_lines(installed: Project) -> None:
    output = installed.uv("python", "-c", WORKER)
    events = [json.loads(line) for line in output.splitlines()]
    assert [event["event"] for event in events] == ["standard", "native"]
    for event in events:
        assert event.keys() >= {"event", "level", "logger", "timestamp"}


def test_terminal_shows_readable_lines(started: Project) -> None:
    port = free_port()
    terminal = pexpect.spawn(
        "uv",
        ["run", "-q", "dev", "--port", str(port)],
        cwd=started.path,
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
