"""/docs in a browser that reaches no other server."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Project
from serving import serve

pytestmark = pytest.mark.slow

# The list of operations, and one of them unfolded.
PAGES = ["/docs", "/docs#/items/items_create"]
DEPRECATED = "escaping deep link whitespace"  # a warning of Swagger UI about its own addresses


def render(url: str, directory: Path) -> tuple[str, list[str], list[str]]:
    """Return the page as Chromium has drawn it, its console, and its requests."""
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
    origin = "/".join(url.split("/")[:3])  # the browser has requests of its own
    return result.stdout, console, [r["url"] for r in requests if r["initiator"] == origin]


def test_browser_shows_all_operations(installed: Project, tmp_path: Path) -> None:
    with serve(installed.path) as server:
        for page in PAGES:
            drawn, console, requests = render(server.url + page, tmp_path)
            assert [line for line in console if DEPRECATED not in line] == []
            assert len(requests) >= 3
            assert [url for url in requests if not url.startswith(f"{server.url}/")] == []
            assert set(re.findall(r'data-path="([^"]+)"', drawn)) == {
                "/health/live",
                "/health/ready",
                "/items",
                "/items/{item_id}",
            }
            assert ("Fountain pen" in drawn) == ("items_create" in page)
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    asked = {(line["path"], line["status"]) for line in lines if line["logger"] == "app.access"}
    assets = {f"/docs/assets/swagger-ui{end}" for end in (".css", "-bundle.js")}
    assert asked >= {(path, 200) for path in {"/docs", "/openapi.json"} | assets}
    assert {status for _, status in asked} <= {200, 304}
