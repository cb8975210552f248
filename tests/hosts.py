"""Hosts in network namespaces: three with the application, a pooler, two PostgreSQL servers.

A namespace has an address of its own, as a host or a pod has. Nothing of it can be reached from
outside this machine. A cut link drops packets, as a network does: no connection is reset.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
import manifests
import psutil
import pytest
from balancer import Balancer, balanced
from load import Load, under_load
from servers import ACCOUNT, binary, copy_primary, pgbouncer_version, psql, run_as_account
from serving import ENVIRONMENT, Server, wait_until
from survival import ADD_AND_DROP, PAUSE, REVISION, Outcome, judge, late

DATABASE = "app"
PORT = {"old": 8000, "new": 8001}
POOLER_PORT = 6432
DELAY = 2  # seconds from SIGTERM until connections are refused
TIMEOUT = 3  # seconds of a client that waits for a response
RECOVERY = 10  # seconds after the promotion, on a busy machine


def ip(*arguments: str) -> str:
    command = ["ip", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@dataclass
class Network:
    """Hosts on one switch. This process is on it too, as number 1."""

    name: str = field(default_factory=lambda: f"t{uuid4().hex[:6]}")
    prefix: str = field(default_factory=lambda: f"10.213.{random.randrange(256)}")  # noqa: S311
    numbers: dict[str, int] = field(default_factory=dict)

    @property
    def switch(self) -> str:
        return f"{self.name}-switch"

    def begin(self) -> None:
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "switch", "type", "bridge")
        ip("-n", self.switch, "link", "set", "switch", "up")
        ip("link", "add", self.name, "type", "veth", "peer", "name", "p1", "netns", self.switch)
        ip("-n", self.switch, "link", "set", "p1", "master", "switch", "up")
        ip("address", "add", f"{self.prefix}.1/24", "dev", self.name)
        ip("link", "set", self.name, "up")

    def add(self, host: str) -> None:
        number = self.numbers[host] = 10 + len(self.numbers)
        space, port = self.space(host), f"p{number}"
        ip("netns", "add", space)
        peer = ("type", "veth", "peer", "name", port, "netns", self.switch)
        ip("link", "add", "eth0", "netns", space, *peer)
        ip("-n", self.switch, "link", "set", port, "master", "switch", "up")
        ip("-n", space, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", space, "link", "set", device, "up")

    def space(self, host: str) -> str:
        return f"{self.name}-{host}"

    def address(self, host: str) -> str:
        return f"{self.prefix}.{self.numbers[host]}"

    def on(self, host: str, *command: str, account: str | None = None) -> list[str]:
        """The command line that runs a command on a host."""
        identity = ["setpriv", f"--reuid={account}", f"--regid={account}", "--init-groups"]
        return ["ip", "netns", "exec", self.space(host), *(identity if account else []), *command]

    def cut(self, host: str, state: str = "down") -> None:
        ip("-n", self.switch, "link", "set", f"p{self.numbers[host]}", state)

    def mend(self, host: str) -> None:
        self.cut(host, "up")

    def kill(self, host: str) -> None:
        """End each process of a host at once, as a loss of power does."""
        for process in ip("netns", "pids", self.space(host)).split():
            with suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)

    def forget(self) -> None:
        """Let each host look anew for the owner of an address."""
        for host in self.numbers:
            ip("-n", self.space(host), "neigh", "flush", "all")
        ip("neigh", "flush", "dev", self.name)

    def end(self) -> None:
        for host in self.numbers:
            self.kill(host)
            ip("netns", "delete", self.space(host))
        with suppress(subprocess.CalledProcessError):  # begin() has failed
            ip("netns", "delete", self.switch)


@contextmanager
def network() -> Iterator[Network]:
    """Make a network, or skip where none can be made."""
    if os.name != "posix" or os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and Debian's package iproute2")
    found = Network()
    try:
        found.begin()
        for host in ("postgres1", "postgres2", "pooler", "app1", "app2", "app3"):
            found.add(host)
    except subprocess.CalledProcessError as error:
        found.end()
        pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
    try:
        yield found
    finally:
        found.end()


@dataclass
class Hosts:
    """The service on its hosts, with a balancer in front."""

    net: Network
    project: Path
    place: Path
    started: list[psutil.Popen]
    servers: list[Server] = field(default_factory=list)

    @property
    def primary(self) -> str:
        """The address that follows the primary, as the operator's service postgres-rw does."""
        return f"{self.net.prefix}.100"

    @property
    def urls(self) -> dict[str, str]:
        pooler = f"{self.net.address('pooler')}:{POOLER_PORT}"
        return {
            "DATABASE_URL": f"postgresql://app@{pooler}/{DATABASE}",
            "DATABASE_URL_SYNC": f"postgresql://app_owner@{self.primary}:5432/{DATABASE}",
            "DATABASE_POOLER": "pgbouncer",
            "SHUTDOWN_DELAY_SECONDS": str(DELAY),
        }

    def control(self, host: str, *action: str) -> None:
        data = self.place / host / "data"
        command = [binary("pg_ctl"), "--pgdata", str(data), "--wait", "--log", f"{data}/log"]
        subprocess.run(
            self.net.on(host, *command, *action, account=ACCOUNT), check=True, capture_output=True
        )

    def move_address(self, host: str) -> None:
        ip("-n", self.net.space(host), "address", "add", f"{self.primary}/24", "dev", "eth0")
        self.net.forget()

    def psql(self, host: str, script: str) -> str:
        return psql(self.place / host, 5432, script)

    def start_postgres(self) -> None:
        """Start a primary whose commits wait for its standby, and create the roles."""
        first, second = (self.place / host for host in ("postgres1", "postgres2"))
        for directory in (first, second):
            directory.mkdir()
            shutil.chown(directory, str(ACCOUNT))
        initdb = [binary("initdb"), "--no-sync", "--username=postgres"]
        run_as_account(*initdb, str(first / "data"))
        trusted = f"host all all {self.net.prefix}.0/24 trust\nhost replication all all trust\n"
        local = "local all all trust\nlocal replication all trust\n"
        (first / "data" / "pg_hba.conf").write_text(local + trusted)
        settings = {"listen_addresses": "*", "fsync": "off", "synchronous_standby_names": ""}
        settings |= {"unix_socket_directories": str(first)}
        lines = [f"{name} = '{value}'\n" for name, value in settings.items()]
        (first / "data" / "postgresql.auto.conf").write_text("".join(lines))
        self.control("postgres1", "start")
        self.move_address("postgres1")
        self.psql("postgres1", f"CREATE DATABASE {DATABASE}")
        roles = (self.project / "roles.sql").read_text()
        self.psql("postgres1", f"\\c {DATABASE}\n{roles}")
        source = f"host={first} user=postgres"
        copy_primary(second, source, {"unix_socket_directories": str(second)})
        with (second / "data" / "postgresql.auto.conf").open("a") as file:
            file.write(f"primary_conninfo = 'host={self.primary} user=postgres'\n")
        self.control("postgres2", "start")
        self.psql("postgres1", "ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.psql("postgres1", "SELECT pg_reload_conf()")
        state = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        wait_until(lambda: self.psql("postgres1", state) == "1")

    @contextmanager
    def pooler(self) -> Iterator[None]:
        """Run PgBouncer with the parameters of the project's manifest."""
        pgbouncer_version()
        spec = manifests.objects(self.project)["Pooler", "pooler"]["spec"]["pgbouncer"]
        file, users = self.place / "pgbouncer.ini", self.place / "users.txt"
        users.write_text('"app" ""\n')
        lines = [f"{name} = {value}" for name, value in spec["parameters"].items()]
        own = ["listen_addr = *", f"listen_port = {POOLER_PORT}", "unix_socket_dir ="]
        own += ["auth_type = trust", f"auth_file = {users}", f"pool_mode = {spec['poolMode']}"]
        target = f"[databases]\n{DATABASE} = host={self.primary} port=5432\n[pgbouncer]"
        file.write_text("\n".join([target, *own, *lines, ""]))
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        with (self.place / "pgbouncer.log").open("wb") as log:
            command = self.net.on("pooler", str(program), str(file), account=ACCOUNT)
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait()

    def start(self, host: str, version: str, project: Path) -> Server:
        """Start a replica. It may not be ready yet."""
        url = f"http://{self.net.address(host)}:{PORT[version]}"
        options = ["--host", self.net.address(host), "--port", str(PORT[version])]
        python = str(self.project / ".venv/bin/python")  # which has the packages of both versions
        log = self.place / f"{host}-{version}.log"
        with log.open("wb") as output:
            process = psutil.Popen(
                self.net.on(host, python, "-m", "app", *options),
                cwd=project,
                env=ENVIRONMENT | self.urls,
                stdout=output,
                stderr=output,
            )
        self.started.append(process)
        server = Server(url, process, log)
        wait_until(lambda: answers(server), log.read_text)
        self.servers.append(server)
        return server

    def alembic(self, project: Path, *arguments: str) -> None:
        command = [str(self.project / ".venv/bin/python"), "-m", "alembic", *arguments]
        line = self.net.on("app1", *command)
        env = ENVIRONMENT | self.urls
        subprocess.run(line, cwd=project, env=env, check=True, capture_output=True)


def answers(server: Server) -> bool:
    assert server.process.poll() is None, server.log.read_text()
    with suppress(httpx.TransportError):
        return httpx.get(f"{server.url}/health/live", trust_env=False).is_success
    return False


@contextmanager
def hosts(project: Path, place: Path) -> Iterator[tuple[Hosts, Balancer]]:
    """Run the service: a migrated database, a pooler and a replica on each of three hosts."""
    place.chmod(0o755)  # for the account that runs PostgreSQL
    with ExitStack() as stack:
        started: list[psutil.Popen] = []
        stack.callback(lambda: [process.wait() for process in started])  # network() has killed it
        running = Hosts(stack.enter_context(network()), project, place, started)
        running.start_postgres()
        stack.enter_context(running.pooler())
        running.alembic(project, "upgrade", "head")
        for host in ("app1", "app2", "app3"):
            running.start(host, "old", project)
        yield running, stack.enter_context(balanced(running.servers))


@contextmanager
def loaded(balancer: Balancer) -> Iterator[Load]:
    url = f"http://127.0.0.1:{balancer.port}"
    with under_load(url, pause=PAUSE, timeout=TIMEOUT) as load:
        load.wait_for(100)
        yield load
        load.wait_for(100)


def next_version(running: Hosts) -> Path:
    """Write a version whose code needs a column that its migration adds."""
    project = running.place / "next"
    shutil.copytree(running.project, project, ignore=shutil.ignore_patterns(".*", "tests"))
    revision = REVISION.format("next", "1f0c5e7a9b3d", ADD_AND_DROP[0])
    (project / "alembic" / "versions" / "next.py").write_text(revision)
    model = project / "app" / "models" / "item.py"
    column = '    note: Mapped[str] = mapped_column(server_default="")\n'
    model.write_text(model.read_text() + column)
    return project


def rollout(running: Hosts, balancer: Balancer) -> Outcome:
    """A new version replaces the old one, host by host: its replicas wait for the migration."""
    faults, project = [], next_version(running)
    old = running.servers.copy()
    with loaded(balancer) as load:
        for number, host in enumerate(("app1", "app2", "app3")):
            new = running.start(host, "new", project)
            if number == 0:
                load.wait_for(100)
                answer = httpx.get(f"{new.url}/health/ready", trust_env=False)
                if answer.status_code != 503 or new in balancer.ready:
                    faults.append(f"a replica is ready before the migration: {answer.text}")
                running.alembic(project, "upgrade", "head")
            wait_until(lambda: new in balancer.ready)  # noqa: B023 - ends within the loop
            load.wait_for(50)
            old[number].process.send_signal(signal.SIGTERM)
            if status := old[number].process.wait(timeout=20):
                faults.append(f"exit status {status}")
            running.servers.remove(old[number])
    return judge(load, faults, ())


def partition(running: Hosts, balancer: Balancer) -> Outcome:
    """One host is cut off. Only its requests fail, until the balancer knows; later it is back."""
    lost = running.servers[1]
    with loaded(balancer) as load:
        running.net.cut("app2")
        wait_until(lambda: lost not in balancer.ready)
        removed = time.monotonic()
        while time.monotonic() < removed + 2 * TIMEOUT:
            load.wait_for(50)
        faults = late(load, removed + TIMEOUT)  # a connection to it is used once more
        running.net.mend("app2")
        wait_until(lambda: lost in balancer.ready)
        returned = time.monotonic()
        load.wait_for(200)
        faults += late(load, returned)
    return judge(load, faults, (0, 503))


def failover(running: Hosts, balancer: Balancer) -> Outcome:
    """The primary's host fails, and its standby is promoted: no acknowledged write is lost."""
    with loaded(balancer) as load:
        failed = time.monotonic()
        running.net.kill("postgres1")
        running.net.cut("postgres1")
        wait_until(lambda: len(load.failed) > 20)  # an operator needs a moment, too
        running.control("postgres2", "promote")
        running.move_address("postgres2")
        promoted = time.monotonic()
        load.wait_for(200)
        last = max((a.sent + a.seconds for a in load.failed), default=failed)
        faults = late(load, promoted + RECOVERY)
    counts, faults = judge(load, faults, (0, 503))
    times = f"promoted after {promoted - failed:.1f} s, last failure after {last - failed:.1f} s"
    return Outcome(f"{counts}, {times}", faults)
