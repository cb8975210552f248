"""/docs in a browser that reaches nothing but the server."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Project
from served import serve

pytestmark = pytest.mark.slow

# The list of operations, and one of them unfolded.
PAGES = ["/docs", "/docs#/items/create_item"]
DEPRECATED = "escaping deep link whitespace"  # what Swagger UI says of its own addresses


def render(url: str, directory: Path) -> tuple[str, list[str], list[str]]:
    """The page as Chromium has drawn it, its console, and what it asked for."""
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("needs Debian's package chromium")
    options = [
        "--headless",
        "--no-sandbox",  # which root cannot have
        f"--user-data-dir={directory / 'profile'}",
        f"--log-net-log={directory / 'net.json'}",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--enable-logging=stderr",
        "--virtual-time-budget=20000",
        "--dump-dom",
    ]
    command = [chromium, *options, url]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    events = json.loads((directory / "net.json").read_text())["events"]
    requests = [event["params"] for event in events if "initiator" in event.get("params", {})]
    origin = "/".join(url.split("/")[:3])  # the browser itself asks for other things
    return result.stdout, console, [r["url"] for r in requests if r["initiator"] == origin]


def test_the_operations_are_drawn_and_nothing_fails(installed: Project, tmp_path: Path) -> None:
    with serve(installed, "uvicorn", "app.main:app", "--port", "PORT") as served:
        for page in PAGES:
            drawn, console, requests = render(served.url + page, tmp_path)
            assert [line for line in console if DEPRECATED not in line] == []
            assert len(requests) >= 3
            assert [url for url in requests if not url.startswith(f"{served.url}/")] == []
            assert set(re.findall(r'data-path="([^"]+)"', drawn)) == {
                "/health/live",
                "/health/ready",
                "/items",
                "/items/{item_id}",
            }
            assert ("Fountain pen" in drawn) == ("create_item" in page)
    lines = [json.loads(line) for line in served.lines]
    asked = {(line["path"], line["status"]) for line in lines if line["logger"] == "app.access"}
    assets = {f"/docs/assets/swagger-ui{end}" for end in (".css", "-bundle.js")}
    assert asked >= {(path, 200) for path in {"/docs", "/openapi.json"} | assets}
    assert {status for _, status in asked} <= {200, 304}
