"""FastAPI's own telemetry, which an environment variable switches on."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest
from conftest import Project
from serving import serve

pytestmark = pytest.mark.slow

SECRET = "s3cret-passw0rd"  # noqa: S105 - for a search in what is exported
PACKAGES = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http")
BUG = f"""
from app.main import app

@app.get("/bug")
async def bug() -> None:
    raise RuntimeError("{SECRET}")
"""

Exports = list[tuple[str, bytes]]


@pytest.fixture
def collector() -> Iterator[tuple[str, Exports]]:
    """The URL of a collector, and the path and body of each request that it gets."""
    exports: Exports = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            exports.append((self.path, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}", exports
        server.shutdown()


def test_telemetry_exports_no_message_of_an_exception(
    copied: Project, collector: tuple[str, Exports]
) -> None:
    url, exports = collector
    copied.run("uv", "pip", "install", "--quiet", *PACKAGES)
    (copied.path / "bug.py").write_text(BUG)
    (copied.path / ".env").unlink()
    env = {"FASTAPI_OTEL_AUTO_CONFIGURE": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": url}
    with serve(copied.path, command=("uvicorn", "bug:app", "--port=PORT"), env=env) as server:
        assert httpx.get(f"{server.url}/bug").status_code == 500
    paths = {path for path, _ in exports}
    assert paths == {"/v1/traces", "/v1/metrics"}
    bodies = b"".join(body for _, body in exports)
    assert b"RuntimeError" in bodies
    assert SECRET.encode() not in bodies
