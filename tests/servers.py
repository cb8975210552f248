"""PostgreSQL for one test: a project's embedded server, or Debian's with TCP, TLS, passwords."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

# PostgreSQL and PgBouncer refuse to run as root, so the user of Debian's package runs them.
ACCOUNT = "postgres" if os.name == "posix" and os.geteuid() == 0 else None

CLOSED_PORT = 1  # where nothing listens

# Scripts for a project's Python: print the environment; start the embedded server.
PRINT_ENVIRONMENT = "import json, os, sys; print(json.dumps(dict(os.environ)), flush=True);"
SERVER = """
import os, sys
from pathlib import Path
from dev.postgres import start

server = start(Path(sys.argv[1]))
os.environ["PGHOST"] = str(server.get_postmaster_info().socket_dir)
os.environ["PGUSER"] = "postgres"
os.environ["PATH"] = f"{server.bin_path}:{os.environ['PATH']}"
"""


@contextmanager
def environment_of(process: subprocess.Popen[str]) -> Iterator[dict[str, str]]:
    """Yield the environment that a process prints. At the end, close its input to end it."""
    with process:
        assert process.stdout
        yield json.loads(process.stdout.readline())
        assert process.stdin
        process.stdin.close()


def binary(name: str) -> str:
    """Return a program of Debian's package `postgresql`, of the newest version."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if not found:
        pytest.skip("needs Debian's package postgresql")
    return str(found[-1])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run_as_account(*command: str, text: str | None = None) -> str:
    result = subprocess.run(command, user=ACCOUNT, input=text, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@contextmanager
def postgresql(directory: Path, access: str, settings: dict[str, str]) -> Iterator[int]:
    """Run a server on a free port of loopback and on a socket in `directory`. Yields the port.

    `access` is its pg_hba.conf, and `settings` go into postgresql.conf.
    """
    data, port = directory / "data", free_port()
    if ACCOUNT:
        shutil.chown(directory, ACCOUNT)
    run_as_account(binary("initdb"), "--no-sync", "--username=postgres", str(data))
    (data / "pg_hba.conf").write_text(access)
    settings = {
        "listen_addresses": "127.0.0.1, ::1",  # IPv6 may be missing
        "unix_socket_directories": str(directory),
        "port": str(port),
        "fsync": "off",
        **settings,
    }
    lines = [f"{name} = '{value}'" for name, value in settings.items()]
    (data / "postgresql.auto.conf").write_text("\n".join([*lines, ""]))
    control(directory, "start")
    try:
        yield port
    finally:
        control(directory, "stop", "--mode=immediate")


@contextmanager
def standby(directory: Path, primary: Path, primary_port: int) -> Iterator[int]:
    """Run a streaming standby of a server, whose pg_hba.conf must trust its socket."""
    if ACCOUNT:
        shutil.chown(directory, ACCOUNT)
    port = free_port()
    settings = {"port": str(port), "unix_socket_directories": str(directory)}
    copy_primary(directory, f"host={primary} port={primary_port} user=postgres", settings)
    control(directory, "start")
    try:
        yield port
    finally:
        control(directory, "stop", "--mode=immediate")


def copy_primary(directory: Path, primary: str, settings: dict[str, str]) -> None:
    """Make a data directory in `directory` that follows a primary."""
    data = directory / "data"
    options = ("--checkpoint=fast", "--no-sync", "--write-recovery-conf")
    run_as_account(binary("pg_basebackup"), *options, "--pgdata", str(data), "--dbname", primary)
    with (data / "postgresql.auto.conf").open("a") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())


def control(directory: Path, *action: str) -> None:
    """Run `pg_ctl ACTION` for the server in `directory`."""
    data = directory / "data"
    options = ("--pgdata", str(data), "--wait", "--log", str(data / "log"))
    run_as_account(binary("pg_ctl"), *options, *action)


def psql(directory: Path, port: int, script: str) -> str:
    """Run SQL as the superuser and return the rows. pg_hba.conf must trust the socket."""
    return run_as_account(*psql_command(directory, port), text=script).strip()


def psql_command(directory: Path, port: int) -> list[str]:
    connection = ["--host", str(directory), "--port", str(port), "--username", "postgres"]
    return [binary("psql"), *connection, "-XqAt", "-v", "ON_ERROR_STOP=1", "postgres"]


PGBOUNCER = """
[databases]
* = host=127.0.0.1 port={target} {user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
{settings}
"""


def pgbouncer_version() -> tuple[int, ...]:
    path = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if not path:
        pytest.skip("needs Debian's package pgbouncer")
    return tuple(int(part) for part in run_as_account(path, "--version").split()[1].split("."))


@contextmanager
def pgbouncer(
    directory: Path, target: int, size: int, settings: str = "", user: str = "user=postgres"
) -> Iterator[int]:
    """Run PgBouncer in transaction mode, for a server that trusts this user. Yields its port."""
    pgbouncer_version()
    port, file = free_port(), directory / "pgbouncer.ini"
    values = {"target": target, "port": port, "size": size, "settings": settings, "user": user}
    file.write_text(PGBOUNCER.format(**values))
    with (directory / "pgbouncer.log").open("wb") as log:
        process = subprocess.Popen(
            ["pgbouncer", str(file)],
            env={"PATH": f"{os.environ['PATH']}:/usr/sbin"},
            user=ACCOUNT,
            stderr=log,
        )
    try:
        while not accepts(port):
            assert process.poll() is None, (directory / "pgbouncer.log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait()


def accepts(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def write_certificates(directory: Path, account_name: str) -> None:
    """Write ca.crt, other-ca.crt, server.crt for `localhost`, client.crt for `account_name`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.crt")
    trustme.CA().cert_pem.write_to_path(directory / "other-ca.crt")
    certificates = {
        "server": authority.issue_cert("localhost"),
        "client": authority.issue_cert("localhost", common_name=account_name),
    }
    for name, certificate in certificates.items():
        certificate.cert_chain_pems[0].write_to_path(directory / f"{name}.crt")
        key = directory / f"{name}.key"
        key.touch(mode=0o600)
        certificate.private_key_pem.write_to_path(key)
    if ACCOUNT:
        shutil.chown(directory / "server.key", ACCOUNT)
