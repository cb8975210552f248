"""`telemetry=yes`: what servers and workers export to a receiver. And FastAPI's own telemetry."""

import gzip
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import psutil
import pytest
import readmes
from conftest import Project, bake_with, short_directory
from load import Stage, stage
from otlp import Receiver, attributes, receiver
from pytest_cookies.plugin import Cookies
from servers import CLOSED_PORT, free_port
from serving import ENVIRONMENT, Server, serve, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

SECRET = "s3cret-passw0rd"  # noqa: S105 - for a search in what is exported
ROW, TOKEN = "row-of-a-table", "token-in-a-query"
PACKAGES = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http")
BUG = f"""
from app.main import app

@app.get("/bug")
async def bug() -> None:
    raise RuntimeError("{SECRET}")
"""
PAGE = f"{readmes.PRODUCT}/docs/telemetry.md"
# Routes and jobs beside the project's own. A schedule of a failing job would hide a mistake.
ROUTES = f"""
import asyncio
import logging

import httpx
from app.database import DatabaseUnavailable
from app.dependencies import ReadSession, Session
from app.items import service
from app.items.schemas import ItemCreate
from app.jobs.queue import enqueue, job
from app.main import create_app
from app.items.tasks import ItemRef, describe
from fastapi import BackgroundTasks, Request
from app.models.item import Item
from sqlalchemy import create_engine, func, select, text

app = create_app()


@job(name="break", attempts=1)
async def break_down(session: Session, payload: ItemRef) -> None:
    raise RuntimeError("{SECRET[::-1]}"[::-1])  # not in the source


@app.post("/enqueued", status_code=201)
async def create(new: ItemCreate, session: Session) -> None:
    item = await service.create(session, new)
    await enqueue(session, describe, ItemRef(item_id=item.id))


@app.post("/broken", status_code=201)
async def create_broken(session: Session) -> None:
    await enqueue(session, break_down, ItemRef(item_id=1))


@app.get("/bug")
async def bug() -> None:
    raise RuntimeError("{SECRET[::-1]}"[::-1])  # not in the source


@app.get("/later")
async def read_later(request: Request, tasks: BackgroundTasks) -> None:
    logging.getLogger("app.own").info("has its own", extra={{"trace_id": "own"}})
    tasks.add_task(request.app.state.database.reader.scalar, select(Item.id))


@app.get("/report")
def report(request: Request) -> int:
    url = request.app.state.settings.database_url_sync
    request.app.state.reports = create_engine(url)  # of another kind
    with request.app.state.reports.connect() as connection:
        return connection.scalar(select(func.count()))


@app.get("/away")
async def away() -> None:
    raise DatabaseUnavailable("connection refused")


@app.get("/objects")
async def read_objects(reader: ReadSession) -> int:
    return len((await reader.scalars(select(Item))).all())


@app.get("/slow")
async def wait(session: Session) -> None:
    await session.execute(text("SELECT pg_sleep(3)"))


@app.get("/headers")
async def headers(request: Request) -> dict[str, str]:
    return dict(request.headers)


@app.get("/proxy")
async def proxy(url: str) -> dict[str, str]:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(url)).json()
"""
LOGGING = ["OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED"]
QUICK = {
    "OTEL_TRACES_SAMPLER": "always_on",
    "OTEL_BSP_SCHEDULE_DELAY": "100",
    "OTEL_METRIC_EXPORT_INTERVAL": "200",
}
DISCONNECT_WORKERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'worker, %'
"""
# A connection that gives these answers, one by one.
MEASURE = """
import asyncio, os, types
os.environ |= {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "1"}
from app.jobs import telemetry

row = {"entrypoint": "a", "status": "queued", "jobs": 1, "seconds": 0.0}
answers = [[{"taken": True}], TimeoutError(), [row]]

async def fetch(query):
    if not answers:
        finished.set()
        await asyncio.Event().wait()
    answer = answers.pop(0)
    if isinstance(answer, Exception):
        raise answer
    return answer

async def main():
    global finished
    finished = asyncio.Event()
    queuer = types.SimpleNamespace(connection=types.SimpleNamespace(fetch=fetch))
    task = asyncio.create_task(telemetry.measure_queue(queuer))
    await asyncio.wait({task, asyncio.create_task(finished.wait())}, return_when="FIRST_COMPLETED")
    print(telemetry.measured == {("a", "queued"): row})
    task.cancel()

asyncio.run(main())
"""
WORKER = "import routes; from app.jobs import worker; worker.main()"


def test_fastapi_alone_exports_no_message_of_an_exception(copied: Project) -> None:
    copied.run("uv", "pip", "install", "--quiet", *PACKAGES)
    (copied.path / "bug.py").write_text(BUG)
    (copied.path / ".env").unlink()
    with receiver() as received:
        env = {"FASTAPI_OTEL_AUTO_CONFIGURE": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": received.url}
        with serve(copied.path, command=("uvicorn", "bug:app", "--port=PORT"), env=env) as server:
            assert httpx.get(f"{server.url}/bug").status_code == 500
            assert httpx.get(f"{server.url}/health/live").status_code == 200
    assert {path for path, _ in received.exports} == {"/v1/traces", "/v1/metrics"}
    assert b"RuntimeError" in received.content
    assert SECRET.encode() not in received.content
    assert [span.name for span in received.spans()] == ["GET /bug"]


@pytest.fixture(scope="module")
def project(cookies_session: Cookies) -> Project:
    """An installed project with telemetry and jobs, and an HTTP client."""
    answers: dict[str, object] = {"telemetry": True, "jobs": True}
    project = bake_with(cookies_session, answers).copy(short_directory())
    (project.path / ".env").unlink()
    (project.path / "routes.py").write_text(ROUTES)
    project.run("uv", "sync", "--quiet")
    [block] = readmes.take(PAGE, "Calls of other services")
    project.run("sh", "-ec", block)
    return project


@pytest.fixture(scope="module")
def prepared(project: Project) -> Iterator[Stage]:
    with stage(project.path, short_directory()) as prepared:
        yield prepared


@pytest.fixture
def database(prepared: Stage) -> Stage:
    prepared.psql("TRUNCATE items; TRUNCATE jobs.pgqueuer")
    return prepared


@pytest.fixture
def received() -> Iterator[Receiver]:
    with receiver() as received:
        yield received


@contextmanager
def serving(stage: Stage, url: str, *flags: str, **env: str) -> Iterator[Server]:
    settings = {**stage.urls, **QUICK, "OTEL_EXPORTER_OTLP_ENDPOINT": url, **env}
    command = ("uvicorn", "routes:app", "--port=PORT")
    with serve(stage.project, *flags, command=command, env=settings) as server:
        yield server


@contextmanager
def working(stage: Stage, url: str, **env: str) -> Iterator[psutil.Popen]:
    with (stage.directory / "worker.log").open("wb") as log:
        worker = psutil.Popen(
            [str(stage.project / ".venv/bin/python"), "-c", WORKER],
            cwd=stage.project,
            env={**ENVIRONMENT, **stage.urls, **QUICK, "OTEL_EXPORTER_OTLP_ENDPOINT": url, **env},
            stdout=log,
            stderr=log,
        )
        try:
            yield worker
        finally:
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(30) == 0


def named(received: Receiver, name: str) -> list[Any]:
    return [span for span in received.spans() if span.name == name]


def exported(received: Receiver, name: str) -> Callable[[], bool]:
    return lambda: bool(named(received, name))


def lines(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines() if line[:1] == "{"]


def children(received: Receiver, parent: Any) -> list[str]:
    """The names of a span's children, in the order of their start."""
    found = [span for span in received.spans() if span.parent_span_id == parent.span_id]
    return [span.name for span in sorted(found, key=lambda span: span.start_time_unix_nano)]


def test_trace_leads_from_the_request_through_the_queue_to_the_job(
    database: Stage, received: Receiver
) -> None:
    with serving(database, received.url) as server, working(database, received.url):
        for path in ("/health/live", "/health/ready"):
            assert httpx.get(server.url + path).status_code == 200
        httpx.get(f"{server.url}/items")  # opens the connection
        body = {"name": ROW}
        response = httpx.post(f"{server.url}/enqueued?token={TOKEN}", json=body)
        assert response.status_code == 201
        wait_until(exported(received, "process items.describe"))
        wait_until(exported(received, "POST /enqueued"))
    [request], [job] = (
        named(received, name) for name in ("POST /enqueued", "process items.describe")
    )
    [send] = named(received, "send items.describe")
    assert not request.parent_span_id
    assert children(received, request) == ["INSERT", "send items.describe", "WITH"]
    assert send.parent_span_id == request.span_id
    assert job.parent_span_id == send.span_id
    assert job.trace_id == request.trace_id
    assert children(received, job)[-2:] == ["SELECT", "UPDATE"]
    assert attributes(request)["http.route"] == "/enqueued"
    [insert] = [s for s in named(received, "INSERT") if s.parent_span_id == request.span_id]
    assert re.search(r"VALUES \(\$1", attributes(insert)["db.query.text"])
    assert attributes(job)["messaging.destination.name"] == "items.describe"
    # Neither a probe nor the worker's search for jobs is a trace.
    roots = {span.name for span in received.spans() if not span.parent_span_id}
    assert roots == {"GET /items", "POST /enqueued"}
    assert named(received, "GET /health/ready") == []

    [line] = [line for line in lines(server) if line.get("path") == "/enqueued"]
    assert line["trace_id"] == request.trace_id.hex()
    assert line["span_id"] == request.span_id.hex()
    log = (database.directory / "worker.log").read_text()
    [line] = [json.loads(row) for row in log.splitlines() if '"job done"' in row]
    assert line["span_id"] == job.span_id.hex()


def test_wrong_interval_does_not_flood_the_database(project: Project) -> None:
    code = (
        "import os\nfrom app.jobs.telemetry import export_interval\n"
        "for value in ('', 'abc', '0', '-5', 'nan', '250'):\n"
        "    os.environ['OTEL_METRIC_EXPORT_INTERVAL'] = value\n    print(export_interval())"
    )
    output = project.run("uv", "run", "--quiet", "python", "-c", code).stdout
    assert [float(line) for line in output.split()] == [60, 60, 60, 60, 60, 0.25]


def test_statement_of_a_background_task_is_traced(database: Stage, received: Receiver) -> None:
    with serving(database, received.url) as server:
        assert httpx.get(f"{server.url}/later").status_code == 200
        wait_until(exported(received, "SELECT"))
        wait_until(exported(received, "GET /later"))
    [request] = named(received, "GET /later")
    assert "SELECT" in children(received, request)
    [line] = [line for line in lines(server) if line["event"] == "has its own"]
    assert line["trace_id"] == "own"


def test_failure_has_its_kind_and_no_value(database: Stage, received: Receiver) -> None:
    logs = {"OTEL_LOGS_EXPORTER": "otlp"} | dict.fromkeys(LOGGING, "true")
    with serving(database, received.url, **logs) as server, working(database, received.url):
        for _ in range(2):
            status = httpx.post(f"{server.url}/items", json={"name": ROW}).status_code
        assert status == 409
        assert httpx.get(f"{server.url}/bug?token={TOKEN}").status_code == 500
        assert httpx.post(f"{server.url}/broken").status_code == 201
        wait_until(exported(received, "process break"))
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{server.url}/slow", timeout=0.5)
        url = {"url": f"{server.url}/headers?token={TOKEN}"}
        passed = httpx.get(f"{server.url}/proxy", params=url, headers={"baggage": "a=1"}).json()
        assert "traceparent" in passed
        assert "baggage" not in passed
        wait_until(exported(received, "GET /headers"))
        wait_until(exported(received, "GET /proxy"))
    kinds = {attributes(span).get("error.type") for span in received.spans()}
    assert {"UniqueViolationError", "RuntimeError"} <= kinds
    [job] = named(received, "process break")
    assert job.status.code == 2
    assert attributes(job)["error.type"] == "RuntimeError"
    assert {span.status.message for span in received.spans()} == {""}
    for secret in (SECRET, ROW, TOKEN):
        assert secret.encode() not in received.content
    assert {path for path, _ in received.exports} == {"/v1/traces", "/v1/metrics"}
    # The call of another service, whose instrumentation was only installed, carries the trace.
    [outer], [inner] = (named(received, name) for name in ("GET /proxy", "GET /headers"))
    [call] = [span for span in received.spans() if span.span_id == inner.parent_span_id]
    assert call.parent_span_id == outer.span_id
    assert attributes(call)["url.full"] == f"{server.url}/headers"


def test_pool_in_use_and_waiting_requests_are_measured(
    database: Stage, received: Receiver
) -> None:
    name = "db.client.connection.pending_requests"

    def waiting() -> bool:
        return any(point.as_int == 1 for _, point in received.points(name))

    env = {"DATABASE_POOL_SIZE": "2"}
    with serving(database, received.url, **env) as server, httpx.Client() as client:
        for path in ("/report", "/items", "/objects"):  # the last two on one pool
            assert client.get(server.url + path).status_code == 200
        slow = [
            subprocess.Popen(
                [sys.executable, "-c", f"import httpx; httpx.get({url!r}, timeout=9)"]
            )
            for url in [f"{server.url}/slow"] * 3
        ]
        wait_until(waiting)
        for process in slow:
            process.kill()
            process.wait()
    states = received.points("db.client.connection.count")
    assert any(
        labels["db.client.connection.state"] == "used" and point.as_int == 2
        for labels, point in states
    )
    assert {point.as_int for _, point in received.points("db.client.connection.max")} == {2}


def test_pool_of_a_lost_connection_is_not_counted_beside_the_next(
    database: Stage, received: Receiver
) -> None:
    name = "db.client.connection.max"
    with (
        receiver() as other,
        serving(database, other.url) as server,
        working(database, received.url, DATABASE_POOL_SIZE="2"),
    ):

        def run_a_job(number: int) -> None:
            body = {"name": f"item {number}"}
            assert httpx.post(f"{server.url}/enqueued", json=body).status_code == 201
            wait_until(lambda: len(named(received, "process items.describe")) == number)

        run_a_job(1)
        database.psql(DISCONNECT_WORKERS)
        run_a_job(2)
        measured = len(received.points(name))
        wait_until(lambda: len(received.points(name)) > measured)
    assert {point.as_int for _, point in received.points(name)} == {2}


def test_measurement_that_fails_is_repeated(project: Project) -> None:
    output = project.run("uv", "run", "--quiet", "python", "-c", MEASURE).stdout
    assert output == "True\n"


def test_one_worker_measures_the_queue_and_another_takes_over(
    database: Stage, received: Receiver
) -> None:
    insert = "INSERT INTO jobs.pgqueuer (priority, status, entrypoint, execute_after)"
    database.psql(f"{insert} VALUES (0, 'failed', 'items.describe', now())")
    database.psql(f"{insert} VALUES (0, 'queued', 'unknown', now() - interval '1 hour')")
    size = "jobs.queue.size"

    def failed(received: Receiver) -> set[int]:
        wanted = {"messaging.destination.name": "items.describe", "jobs.state": "failed"}
        return {point.as_int for labels, point in received.points(size) if labels == wanted}

    with receiver() as other:
        with working(database, received.url):
            wait_until(lambda: failed(received) == {1})
            names = {labels["messaging.destination.name"] for labels, _ in received.points(size)}
            assert "unknown" in names  # of a function that was renamed
            with working(database, other.url):
                wait_until(lambda: bool(other.exports) or len(received.exports) > 30)
                measured = len(received.points(size))
                wait_until(lambda: len(received.points(size)) > measured + 12)
                assert other.points(size) == []
        with working(database, other.url):
            wait_until(lambda: failed(other) == {1})
    assert "jobs.queue.oldest_due" in {metric.name for metric in received.metrics()}


def test_dashboard_names_exported_metrics_only(database: Stage) -> None:
    """Of a real run, as Prometheus gets them."""
    ports = [free_port(), free_port()]
    env = [
        {"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_PROMETHEUS_PORT": str(port)}
        for port in ports
    ]
    text = ""
    with serving(database, "", **env[0]) as server, working(database, "", **env[1]):
        assert httpx.post(f"{server.url}/enqueued", json={"name": ROW}).status_code == 201
        assert httpx.post(f"{server.url}/broken").status_code == 201

        def complete() -> bool:
            nonlocal text
            text = "".join(scrape(port) for port in ports)
            return {"jobs_queue_size", "messaging_process_duration_seconds_count"} <= set(
                re.findall(r"^(\w+)\{", text, re.MULTILINE)
            )

        wait_until(complete)
    dashboard = json.loads((database.project / "deploy/grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    names = set(re.findall(r"\b(?:http|db|jobs|messaging)_\w+(?=[\[{)])", " ".join(queries)))
    samples = dict(re.findall(r"^(\w+)\{(.*)\} ", text, re.MULTILINE))
    labels = {name for found in samples.values() for name in re.findall(r"(\w+)=", found)}
    assert len(names) > 8
    assert names - samples.keys() - {name for name in names if name in labels} == set()
    grouped = re.findall(r"by \(([^)]*)\)", " ".join(queries))
    used = {word.strip() for group in grouped for word in group.split(",")}
    assert used <= labels | {"le"}
    assert re.search(r'^messaging_process_duration_seconds_bucket.*le="0.005"', text, re.MULTILINE)
    assert ROW not in text
    assert "active_requests" not in text  # see RequestMeters


def scrape(port: int) -> str:
    try:
        return httpx.get(f"http://localhost:{port}/metrics").text
    except httpx.ConnectError:
        return ""


def test_port_of_prometheus_in_use_is_a_line_and_stops_nothing(database: Stage) -> None:
    port = str(free_port())
    env = {"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_PROMETHEUS_PORT": port}
    off = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "requests, httpx"}
    with (
        serving(database, "", **env) as first,
        serving(database, "", **env, **off) as second,
    ):
        assert httpx.get(f"{second.url}/items").status_code == 200
        url, traceparent = f"{first.url}/headers", f"00-{'ab' * 16}-{'cd' * 8}-01"
        passed = [
            httpx.get(
                f"{server.url}/proxy", params={"url": url}, headers={"traceparent": traceparent}
            ).json()
            for server in (first, second)
        ]
    # A service without traces of its own leaves the decision to sample as it is.
    assert re.fullmatch(f"00-{'ab' * 16}-[0-9a-f]+-01", passed[0]["traceparent"])
    assert "traceparent" not in passed[1]
    [line] = [line for line in lines(second) if line["level"] == "error"]
    assert line["event"].startswith(
        "No metrics are served: OTEL_EXPORTER_PROMETHEUS_PORT: Address"
    )


def test_mistake_in_a_variable_is_a_line_and_stops_nothing(
    database: Stage, received: Receiver
) -> None:
    env = {"OTEL_TRACES_EXPORTER": "jaeger", "FASTAPI_OTEL_AUTO_CONFIGURE": "true"}
    with serving(database, received.url, **env, OTEL_CONFIG_FILE="otel.yaml") as server:
        assert httpx.get(f"{server.url}/items").status_code == 200
    [file, exporter] = [line["event"] for line in lines(server) if line["level"] == "error"]
    assert file.startswith("OTEL_CONFIG_FILE is ignored")
    assert "'jaeger' not found" in exporter


def test_nothing_is_sent_without_an_endpoint(database: Stage) -> None:
    """Not even to the port that the specification has as a default: nothing tries to connect."""
    with serving(database, "") as server:
        assert httpx.get(f"{server.url}/items").status_code == 200
        threads = {thread.id for thread in server.process.threads()}
        assert not any("trace_id" in line for line in lines(server))
    with serving(database, "", OTEL_SDK_DISABLED="true", OTEL_TRACES_EXPORTER="otlp") as disabled:
        assert httpx.get(f"{disabled.url}/items").status_code == 200
        assert len(disabled.process.threads()) <= len(threads)


def test_sampling_keeps_one_trace_in_ten_and_every_id(database: Stage, received: Receiver) -> None:
    settings = {**database.urls, "OTEL_EXPORTER_OTLP_ENDPOINT": received.url}
    with serve(database.project, env=settings) as server, httpx.Client() as client:
        for _ in range(400):
            client.get(f"{server.url}/items")
    ids = {line["trace_id"] for line in lines(server) if line.get("path") == "/items"}
    assert len(ids) == 400
    assert 10 < len(named(received, "GET /items")) < 90
    counts = received.points("http.server.request.duration")
    assert [point.count for _, point in counts] == [400]


@pytest.mark.parametrize("state", ["down", "silent"])
def test_receiver_that_is_away_delays_no_request_and_no_end(
    database: Stage, received: Receiver, state: str
) -> None:
    received.answering.clear()
    url = received.url if state == "silent" else f"http://127.0.0.1:{CLOSED_PORT}"
    env = {"OTEL_BSP_MAX_QUEUE_SIZE": "128", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "64"}
    with serving(database, url, **env) as server, httpx.Client() as client:
        for number in range(800):
            assert client.get(f"{server.url}/items", timeout=2).is_success
            if number == 400:
                memory = server.process.memory_info().rss
        assert server.process.memory_info().rss - memory < 4e6
        began = monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)
        assert monotonic() - began < 5


@pytest.fixture(scope="module")
def accounts(cookies_session: Cookies) -> Project:
    """An installed project with every option."""
    answers: dict[str, object] = {"telemetry": True, "jobs": True, "auth": "accounts"}
    project = bake_with(cookies_session, answers).copy(short_directory())
    (project.path / ".env").unlink()
    (project.path / "routes.py").write_text("from app.main import app\n")
    project.run("uv", "sync", "--quiet")
    return project


def test_logins_and_mails_leave_no_secret(accounts: Project, received: Receiver) -> None:
    mail = {
        "MAIL_URL": "console://",
        "MAIL_FROM": "no-reply@example.com",
        "AUTH_PAGE_URL": "https://www.example.com/account",
    }
    password, email = "correct horse battery", "ann@example.com"
    secrets = [password, email, "a-wrong-password"]
    with (
        stage(accounts.path, short_directory()) as database,
        serving(database, received.url, **mail) as server,
        working(database, received.url, **mail),
        httpx.Client(base_url=server.url) as client,
    ):
        body = {"email": email, "password": password}
        assert client.post("/auth/register", json=body).status_code == 202
        log = database.directory / "worker.log"
        wait_until(lambda: len(links(log)) == 1)
        database.psql("UPDATE accounts SET verified_at = now()")
        wrong = body | {"password": "a-wrong-password"}
        assert client.post("/auth/login", json=wrong).status_code == 401
        token = client.post("/auth/login", json=body).json()["token"]
        client.headers["authorization"] = f"Bearer {token}"
        secrets += [token, client.post("/auth/keys", json={"name": ROW}).json()["token"]]
        for _ in range(2):
            client.post("/items", json={"name": ROW})
        client.post("/auth/password/forgot", json={"email": email})
        wait_until(lambda: len(links(log)) == 2)
        wait_until(exported(received, "POST /auth/password/forgot"))
        wait_until(lambda: len(named(received, "process auth.send")) == 2, received.spans)
    for secret in [*secrets, *links(log), ROW]:
        assert secret.encode() not in received.content


def links(log: Path) -> list[str]:
    """The tokens of the mails that a worker has printed."""
    return re.findall(r"#(?:verify|reset)=([\w-]+)", log.read_text())


@pytest.fixture(scope="module")
def recipe(project: Project) -> Project:
    """The project with the recipe for Sentry, and without the routes of these tests."""
    copy = project.copy(short_directory())
    [code] = readmes.fenced(readmes.sections(PAGE)["Sentry"], "python")
    (copy.path / "app/sentry.py").write_text(code)
    (copy.path / "routes.py").unlink()
    copy.run("uv", "add", "--quiet", "sentry-sdk")
    return copy


def test_lint_and_types_are_clean_and_the_suite_passes(recipe: Project) -> None:
    recipe.uv("ruff", "check")
    recipe.uv("ruff", "format", "--check")
    recipe.uv("mypy")
    assert " passed" in recipe.uv("pytest", "-q", "-n", "2")


def test_sentry_gets_kinds_and_the_trace_and_no_value(
    recipe: Project, database: Stage, received: Receiver
) -> None:
    routes = recipe.path / "routes.py"
    routes.write_text(f"from app import sentry\n\nsentry.init()\n{ROUTES}")
    local = Stage(recipe.path, database.directory, database.port)
    dsn = received.url.replace("://", "://key@") + "/1"
    try:
        with serving(local, received.url, SENTRY_DSN=dsn) as server:
            body = {"name": ROW}
            assert httpx.post(f"{server.url}/items", json=body).status_code == 201
            headers = {
                "authorization": f"Bearer {TOKEN}",
                "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01",
            }
            response = httpx.get(f"{server.url}/bug?token={TOKEN}", headers=headers)
            assert response.status_code == 500
            assert httpx.get(f"{server.url}/away").status_code == 503
    finally:
        routes.unlink()
    reports = [gzip.decompress(body) for path, body in received.exports if "envelope" in path]
    report = b"".join(reports).decode()
    assert "RuntimeError" in report
    assert "ab" * 16 in report
    assert "The database cannot be reached." in report
    for secret in (SECRET, ROW, TOKEN):
        assert secret not in report
