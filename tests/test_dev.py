"""`uv run dev`: the embedded PostgreSQL starts, is shared, survives faults and stops."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Timer

import httpx
import pexpect
import psutil
import pytest
from conftest import Project, install, short_directory, user_environment
from servers import free_port
from serving import serve as serve_with

pytestmark = pytest.mark.slow
EXHAUSTIVE = pytest.mark.exhaustive


def processes_of(project: Project) -> list[psutil.Process]:
    """The processes of the project that keep running: server, reloader, PostgreSQL."""
    mark = str(project.path)
    found = []
    for process in psutil.process_iter():
        try:
            if mark in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    # `pg_ctl stop` waits for the pid file, which disappears shortly before the process.
    return psutil.wait_procs(found, timeout=10)[1] if found else []


class Server:
    """A running `uv run dev`."""

    def __init__(self, project: Project, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            ["uv", "run", "--quiet", "dev", "--port", str(port)],
            cwd=project.path,
            env=user_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output = self.read_until("Application startup complete")

    def read_until(self, text: str) -> str:
        assert self.process.stdout
        output = ""
        limit = Timer(60, self.process.terminate)
        limit.start()
        for line in self.process.stdout:
            output += line
            if text in line:
                limit.cancel()
                return output
        pytest.fail(f"ended, or took 60 s, before {text!r}:\n{output}")

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path)

    def stop(self, number: int = signal.SIGINT) -> str:
        """Send a signal and wait for the exit. Returns the output since the start."""
        self.process.send_signal(number)
        try:
            return self.process.communicate(timeout=30)[0]
        except ValueError:  # it is stopped already
            return ""


@pytest.fixture
def serve() -> Iterator[Callable[[Project], Server]]:
    servers = []

    def start(project: Project, port: int | None = None) -> Server:
        servers.append(Server(project, port or free_port()))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


Serve = Callable[..., Server]


def test_dev_migrates_serves_and_keeps_data(copied: Project, serve: Serve) -> None:
    server = serve(copied)
    assert server.get("/docs").status_code == 200
    assert server.get("/health/ready").json()["status"] == "ready"
    assert httpx.post(f"{server.url}/items", json={"name": "kept"}).status_code == 201
    output = server.stop()
    assert "Traceback" not in output
    assert processes_of(copied) == []

    server = serve(copied)
    assert [item["name"] for item in server.get("/items").json()["items"]] == ["kept"]


def test_code_change_reloads_the_server(started: Project, serve: Serve) -> None:
    server = serve(started)
    started.replace("app/web/health.py", '"live"', '"alive"')
    server.read_until("Application startup complete")
    assert server.get("/health/live").json() == {"status": "alive"}


EVENTS = """
import asyncio
from collections.abc import AsyncIterator
from fastapi import APIRouter
from fastapi.responses import StreamingResponse

router = APIRouter()


@router.get("/events")
async def stream_events() -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        while True:
            yield "data: event\\n\\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(events(), media_type="text/event-stream")
"""


def test_reload_and_end_do_not_wait_for_open_streams(started: Project, serve: Serve) -> None:
    (started.path / "app" / "events.py").write_text(EVENTS)
    started.replace(
        "app/main.py", "import Middleware\n", "import Middleware\nfrom app import events\n"
    )
    include = "    app.include_router(items.router)\n"
    started.replace("app/main.py", include, f"{include}    app.include_router(events.router)\n")
    server = serve(started)
    with httpx.stream("GET", f"{server.url}/events") as response:
        lines = response.iter_lines()  # closes the stream when it is deleted
        assert next(lines) == "data: event"
        started.replace("app/web/health.py", '"live"', '"alive"')
        server.read_until("Application startup complete")
    assert server.get("/health/live").json() == {"status": "alive"}
    with httpx.stream("GET", f"{server.url}/events") as response:
        lines = response.iter_lines()
        assert next(lines) == "data: event"
        output = server.stop()
    assert "Traceback" not in output
    assert processes_of(started) == []


def test_ctrl_c_in_a_terminal_stops_everything(started: Project) -> None:
    terminal = pexpect.spawn(
        "uv",
        ["run", "-q", "dev", "--port", str(free_port())],
        cwd=started.path,
        env=user_environment(),
    )
    terminal.expect("Application startup complete", timeout=60)
    terminal.sendintr()
    terminal.expect(pexpect.EOF, timeout=30)
    assert b"Traceback" not in (terminal.before or b"")
    assert processes_of(started) == []


def test_ctrl_c_is_left_to_the_command(started: Project) -> None:
    """In psql it cancels the current line; psql keeps running."""
    terminal = pexpect.spawn(
        "uv", ["run", "-q", "dev", "psql"], cwd=started.path, env=user_environment()
    )
    terminal.expect("app=> ", timeout=60)
    terminal.sendline("SELECT 40 + 2 AS answer;")
    terminal.expect("42")
    terminal.sendintr()
    terminal.sendline("SELECT 50 + 7 AS answer;")
    terminal.expect("57")
    terminal.sendline("\\q")
    terminal.expect(pexpect.EOF, timeout=30)
    assert processes_of(started) == []


def test_command_gets_one_sigint_for_ctrl_c(started: Project) -> None:
    """Many programs abort their clean-up on a second one."""
    script = (
        "import signal, time; got = []\n"
        "signal.signal(signal.SIGINT, lambda *_: (got.append(1), print('got', flush=True)))\n"
        "print('ready', flush=True)\n"
        "while not got: time.sleep(0.01)\n"  # input() may miss a signal that comes as it begins
        "input(); print('times:', len(got))"
    )
    terminal = pexpect.spawn(
        "uv",
        ["run", "-q", "dev", "python", "-c", script],
        cwd=started.path,
        env=user_environment(),
    )
    terminal.expect("ready", timeout=60)
    terminal.sendintr()
    terminal.expect("got")
    terminal.sendline("")
    terminal.expect("times: 1\r\n")
    terminal.expect(pexpect.EOF, timeout=30)


HOLD_LOCK = "BEGIN; LOCK alembic_version; SELECT 'locked';"


def test_ctrl_c_during_a_migration_stops_everything(started: Project) -> None:
    started.uv("dev", "alembic", "upgrade", "head")
    started.uv("dev", "alembic", "downgrade", "base")
    holder = started.start("dev", "psql", "-qAt")
    assert holder.stdin
    assert holder.stdout
    holder.stdin.write(f"{HOLD_LOCK}\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "locked\n"
    terminal = pexpect.spawn(
        "uv",
        ["run", "-q", "dev"],
        cwd=started.path,
        env=user_environment() | {"MIGRATION_LOCK_TIMEOUT_SECONDS": "60"},
    )
    terminal.expect("Will assume transactional DDL", timeout=60)
    terminal.sendintr()
    terminal.expect(pexpect.EOF, timeout=30)
    terminal.close()
    assert b"Traceback" not in (terminal.before or b"")
    assert terminal.exitstatus == 130
    holder.communicate("", timeout=30)
    assert processes_of(started) == []


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_sigterm_and_sighup_stop_everything(started: Project, serve: Serve, name: str) -> None:
    server = serve(started)
    server.stop(signal.Signals[name])
    assert processes_of(started) == []
    assert serve(started).get("/items").status_code == 200


@pytest.mark.parametrize("victim", ["uv", "dev"])
def test_start_after_sigkill_works(started: Project, serve: Serve, victim: str) -> None:
    """On the same port: the children of the killed process exit."""
    port = free_port()
    server = serve(started, port)
    target = psutil.Process(server.process.pid)
    children = target.children(recursive=True)
    if victim == "dev":
        (target,) = target.children()
    target.kill()
    psutil.wait_procs(children, timeout=20)

    server = serve(started, port)
    assert server.get("/items").status_code == 200
    server.stop()
    assert processes_of(started) == []


SIGNALS = ("SIGINT", "SIGTERM", "SIGKILL")
MOMENTS = (".postgres", ".postgres/data/PG_VERSION", ".postgres/data/log")


@pytest.mark.parametrize(
    ("name", "moment"),
    [  # each signal and each moment once, the other pairs in the long run
        pytest.param(name, moment, marks=[EXHAUSTIVE] if (i - j) % 3 else [])
        for i, name in enumerate(SIGNALS)
        for j, moment in enumerate(MOMENTS)
    ],
)
def test_start_after_interrupted_first_start_works(
    copied: Project, name: str, moment: str
) -> None:
    """Interrupted before initdb, during initdb and while the server starts."""
    copied.run("uv", "sync", "--quiet")
    starting = subprocess.Popen([copied.path / ".venv" / "bin" / "dev", "true"], cwd=copied.path)
    while not (copied.path / moment).exists():
        assert starting.poll() is None
    children = psutil.Process(starting.pid).children(recursive=True)
    for process in children if name == "SIGKILL" else []:
        with suppress(psutil.NoSuchProcess):  # it has exited already
            process.kill()
    starting.send_signal(signal.Signals[name])
    starting.wait(timeout=30)
    if name != "SIGKILL":
        assert processes_of(copied) == []
    assert copied.uv("dev", "psql", "-Atc", "SELECT 42") == "42\n"
    assert processes_of(copied) == []


def test_start_after_postgresql_was_killed_works(started: Project, serve: Serve) -> None:
    server = serve(started)
    pid_file = started.path / ".postgres" / "data" / "postmaster.pid"
    psutil.Process(int(pid_file.read_text().split()[0])).kill()
    server.stop()
    assert serve(started).get("/items").status_code == 200


def test_reused_pid_in_the_pid_file_is_ignored(started: Project) -> None:
    started.uv("dev", "true")
    (started.path / ".postgres" / "data" / "postmaster.pid").write_text(
        f"{os.getpid()}\n{started.path}/.postgres/data\n1700000000\n5432\n"
        f"{started.path}/.postgres/data\n\n  1 2\nready\n"
    )
    assert started.uv("dev", "psql", "-Atc", "SELECT 42") == "42\n"


def test_concurrent_commands_share_a_server_that_the_last_one_stops(copied: Project) -> None:
    copied.run("uv", "sync", "--quiet")
    start_times, held = [], []
    ask = "psql -Atc 'SELECT pg_postmaster_start_time()'; read line"
    for _ in range(4):
        held.append(
            subprocess.Popen(
                ["uv", "run", "--quiet", "dev", "sh", "-c", ask],
                cwd=copied.path,
                env=user_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    for process in held:
        assert process.stdout
        start_times.append(process.stdout.readline())
    assert len(set(start_times)) == 1
    assert start_times[0].startswith("20")
    for process in held[:-1]:
        process.communicate("\n", timeout=30)
        assert process.returncode == 0
    assert copied.uv("dev", "psql", "-Atc", "SELECT pg_postmaster_start_time()") == start_times[0]
    held[-1].communicate("\n", timeout=30)
    assert processes_of(copied) == []


@pytest.mark.parametrize("directory", ["a space & 'quotes'", "long" * 40])
def test_dev_works_in_any_directory(baked: Project, installed: Project, directory: str) -> None:
    """PostgreSQL itself does not start in these directories; its data is elsewhere."""
    place = short_directory()
    project = baked.copy(place / directory)
    install(project, installed)
    environment = {"HOME": str(place), "XDG_DATA_HOME": str(place / "data")}
    assert project.uv("dev", "psql", "-Atc", "SELECT 42", env=environment) == "42\n"
    alembic = ["uv", "run", "-q", "dev", "alembic", "upgrade", "head"]
    project.run(*alembic, cwd=project.path / "app", env=environment)
    assert processes_of(Project(place)) == []
    for name in ("XDG_DATA_HOME", "TMPDIR"):
        environment[name] = str(place / "a space")
    (place / "a space").mkdir()
    output = project.uv("dev", "true", check=False, env=environment)
    assert output.startswith("dev: PostgreSQL cannot start from a path like ")
    assert output.endswith("; set TMPDIR, say to /tmp\n")
    assert len(output.splitlines()) == 1


def test_server_that_does_not_start_is_one_line(started: Project) -> None:
    started.uv("dev", "true")
    (started.path / ".postgres" / "data" / "PG_VERSION").write_text("16\n")
    output = started.uv("dev", "true", check=False)
    assert re.fullmatch(r"dev: PostgreSQL did not start \(.*\); its log is .*/data/log\n", output)


ROOT = os.name == "posix" and os.geteuid() == 0
OTHER_USER = 54321  # has no entry in /etc/passwd


def run_as_other_user(project: Project, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the project's environment as OTHER_USER, who may read every file."""
    read_all = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    user = (f"--reuid={OTHER_USER}", f"--regid={OTHER_USER}", "--clear-groups", *read_all)
    python = str(project.path / ".venv" / "bin" / "python")
    return project.run("setpriv", *user, python, "-P", *command, check=False)


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_user_without_a_name_is_one_line(copied: Project) -> None:
    """As in a container with --user: initdb needs an entry in /etc/passwd."""
    copied.path.parent.chmod(0o755)
    os.chown(copied.path, OTHER_USER, OTHER_USER)
    result = run_as_other_user(copied, "-m", "dev", "true")
    reason = f"could not look up effective user ID {OTHER_USER}: user does not exist"
    assert f"dev: PostgreSQL did not start (initdb: {reason}); " in result.stderr
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
@pytest.mark.parametrize("place", ["", ".postgres"])
def test_directory_of_another_user_is_one_line(copied: Project, place: str) -> None:
    (copied.path / place).mkdir(mode=0o755, exist_ok=True)
    result = run_as_other_user(copied, "-m", "dev", "true")
    start = f"dev: {copied.path / place} is another user's or read-only: "
    assert result.stderr.startswith(start)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)


@pytest.mark.skipif(not ROOT, reason="only root may write there")
def test_root_leaves_the_database_of_a_user_alone(copied: Project) -> None:
    """PostgreSQL would run as another user there, and give it the directory."""
    (copied.path / ".postgres").mkdir()
    os.chown(copied.path / ".postgres", OTHER_USER, OTHER_USER)
    output = copied.uv("dev", "true", check=False)
    assert output.startswith(f"dev: {copied.path}/.postgres is another user's")
    assert list((copied.path / ".postgres").iterdir()) == []


def test_programs_of_administrators_are_found(installed: Project) -> None:
    """Under root the wheel runs `useradd`. Some containers have no /usr/sbin in PATH."""
    script = (
        "import dev.postgres as d, pathlib, shutil;"
        "d.get_server = lambda *_, **__: print(shutil.which('useradd'));"
        "d.start(pathlib.Path('data'))"
    )
    if not shutil.which("useradd", path="/usr/sbin"):
        pytest.skip("needs useradd in /usr/sbin")
    python = str(installed.path / ".venv" / "bin" / "python")
    result = installed.run(python, "-c", script, env={"PATH": "/usr/local/bin"})
    assert result.stdout == "/usr/sbin/useradd\n"


def test_command_gets_the_embedded_database_only(started: Project) -> None:
    (started.path / ".env").write_text(
        "DATABASE_URL=postgresql://localhost:1/elsewhere\nDATABASE_POOLER=pgbouncer\n"
    )
    script = (
        "import os; from app.config import Settings; s = Settings();"
        "print(s.database_url.database, s.database_url_sync.database, s.database_pooler,"
        " os.environ['PGDATABASE'], s.shutdown_delay_seconds)"
    )
    output = started.uv(
        "dev", "python", "-c", script, env={"DATABASE_URL_SYNC": "postgresql://localhost:1/other"}
    )
    assert output == "app app none app 0.0\n"


def test_commands_without_dev_use_env_file_from_any_directory(
    started: Project, tmp_path: Path
) -> None:
    print_variables = "env | grep -E '^(DATABASE_URL|SHUTDOWN)'; echo; read line"
    holder = started.start("dev", "sh", "-c", print_variables)
    assert holder.stdout
    (started.path / ".env").write_text("".join(iter(holder.stdout.readline, "\n")))
    alembic = [started.path / ".venv/bin/alembic", "-c", started.path / "alembic.ini"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    started.run(*map(str, alembic), "upgrade", "head", cwd=elsewhere)
    current = started.run(*map(str, alembic), "current", cwd=elsewhere).stdout
    assert "(head)" in current
    for command in (["uvicorn", "app.main:app"], ["fastapi", "dev", "--no-reload"]):
        words = (*command, "--port=PORT")
        with serve_with(started.path, command=words, env={"DATABASE_URL": ""}) as server:
            assert httpx.get(f"{server.url}/health/ready").status_code == 200
    holder.communicate("\n", timeout=30)


def test_libpq_variables_are_ignored(started: Project) -> None:
    environment = {"PGHOSTADDR": "127.0.0.1", "PGPORT": "1", "PGOPTIONS": "-c search_path=x"}
    output = started.uv("dev", "psql", "-Atc", "SHOW search_path", env=environment)
    assert output == '"$user", public\n'


@pytest.mark.parametrize(
    ("port", "reason"),
    [
        ("70000", "70000 is not a number from 0 to 65535"),
        ("-1", "-1 is not a number from 0 to 65535"),
        ("http", "invalid int value: 'http'"),
    ],
)
def test_invalid_port_is_one_line(installed: Project, port: str, reason: str) -> None:
    result = installed.run("uv", "run", "-q", "dev", "--port", port, check=False)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == f"dev: error: argument --port: {reason}"


def test_exit_status_of_the_command_is_returned(started: Project) -> None:
    for script, status in (("exit 7", 7), ("kill -9 $$", 137)):
        command = ["uv", "run", "-q", "dev", "sh", "-c", script]
        assert started.run(*command, check=False).returncode == status
    result = started.run("uv", "run", "-q", "dev", "no-such-command", check=False)
    assert result.returncode == 127
    assert result.stderr == "dev: cannot run no-such-command: No such file or directory\n"
    assert processes_of(started) == []


def test_help_needs_no_server(installed: Project) -> None:
    output = installed.uv("dev", "--help")
    assert "COMMAND" in output
    assert "--port" in output
    assert not (installed.path / ".postgres").exists()


def test_lock_file_is_private_to_the_user(installed: Project, tmp_path: Path) -> None:
    script = "import dev.postgres; print(dev.postgres.PostgresServer.lock_path)"
    output = installed.uv("python", "-c", script, env={"XDG_RUNTIME_DIR": str(tmp_path)})
    assert output.startswith(str(tmp_path))
