"""The two roles of `roles.sql`: each test tries what a role can do."""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pexpect
import pytest
import readmes
from conftest import Project, install, short_directory, user_environment
from servers import PRINT_ENVIRONMENT, SERVER, binary, environment_of, postgresql

pytestmark = pytest.mark.slow

REVISION = '''"""Objects of every kind that an application may use."""

from alembic import op

revision = "2e0"
down_revision = "1f0c5e7a9b3d"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY, n serial, body text)")
    op.execute("CREATE VIEW bodies AS SELECT body FROM notes")
    op.execute("CREATE SEQUENCE numbers")
    op.execute("CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    op.execute("CREATE SCHEMA archive")
    op.execute("CREATE TABLE archive.notes (LIKE notes INCLUDING ALL)")


def downgrade() -> None:
    op.execute("DROP SCHEMA archive CASCADE")
    op.execute("DROP FUNCTION one")
    op.execute("DROP SEQUENCE numbers")
    op.execute("DROP VIEW bodies")
    op.execute("DROP TABLE notes")
'''


@dataclass(frozen=True)
class Postgres:
    """A running server, and psql for it."""

    environment: dict[str, str]

    def run(
        self, *command: str | Path, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=cwd, env=self.environment, capture_output=True, text=True, timeout=60
        )

    def psql(
        self, *statements: str, role: str = "postgres", database: str = "app"
    ) -> subprocess.CompletedProcess[str]:
        """Run the statements, up to the first that fails."""
        arguments = [argument for statement in statements for argument in ("-c", statement)]
        return self.run("psql", "-XqAt", "-vON_ERROR_STOP=1", "-U", role, *arguments, database)

    def ask(self, *statements: str, role: str = "postgres", database: str = "app") -> str:
        """Run statements that must succeed. Returns the rows, one a line."""
        result = self.psql(*statements, role=role, database=database)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def run_roles(self, project: Project, role: str = "postgres") -> tuple[int, str]:
        """Run `roles.sql` by the README's command. Returns psql's exit status and errors."""
        file = project.path / "roles.sql"
        result = self.run("psql", "-Xq", "-vON_ERROR_STOP=1", "-f", file, "-U", role, "app")
        return result.returncode, result.stderr

    def dump(self) -> str:
        """Return all roles, and the database without its rows."""
        dumps = [self.run("pg_dumpall", "--globals-only"), self.run("pg_dump", "-sC", "app")]
        return "".join(
            line
            for dump in dumps
            for line in dump.stdout.splitlines(keepends=True)
            if "restrict" not in line  # followed by a random key
        )


@pytest.fixture(scope="module")
def developed(baked: Project, installed: Project) -> Iterator[Postgres]:
    """The migrated server of `uv run dev`. A revision was added after its first start."""
    project = baked.copy(short_directory())
    install(project, installed)
    project.uv("dev", "true")
    (project.path / "alembic" / "versions" / "later.py").write_text(REVISION)
    project.uv("dev", "alembic", "upgrade", "head")
    holder = project.start("dev", "python", "-c", PRINT_ENVIRONMENT + "sys.stdin.read()")
    with environment_of(holder) as environment:
        yield Postgres(environment)


@pytest.fixture(scope="module")
def embedded(installed: Project) -> Iterator[Postgres]:
    """The embedded server with no role but `postgres`."""
    directory = str(short_directory() / "data")
    script = SERVER + PRINT_ENVIRONMENT + "sys.stdin.read(); server.stop()"
    with environment_of(installed.start("python", "-c", script, directory)) as environment:
        yield Postgres(environment)


@pytest.fixture
def scratch(embedded: Postgres) -> Iterator[Postgres]:
    """A server with an empty database and no role but `postgres`."""
    embedded.ask("CREATE DATABASE app", database="postgres")
    rules = Path(embedded.ask("SHOW hba_file"))
    before = rules.read_text()
    yield embedded
    rules.write_text(before)
    embedded.ask("SELECT pg_reload_conf()", database="postgres")
    for name in ("app", "my_api"):  # the second one by the README's commands
        embedded.ask(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", database="postgres")
    roles = "SELECT string_agg(quote_ident(rolname), ',') FROM pg_roles WHERE oid >= 16384"
    if found := embedded.ask(roles, database="postgres"):
        embedded.ask(f"DROP ROLE {found}", database="postgres")


FORBIDDEN = {
    "say which revision the schema has": "UPDATE alembic_version SET version_num = 'mine'",
    "create a large object": "SELECT lo_create(0)",
    "create a table": "CREATE TABLE mine ()",
    "create a temporary table": "CREATE TEMPORARY TABLE mine ()",
    "create a view": "CREATE VIEW mine AS SELECT 1",
    "create a function": "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "create an index": "CREATE INDEX ON items (description)",
    "create a schema": "CREATE SCHEMA mine",
    "create a table in another schema": "CREATE TABLE archive.mine ()",
    "create an extension": "CREATE EXTENSION vector",
    "create a role": "CREATE ROLE mine",
    "create a database": "CREATE DATABASE mine",
    "alter a table": "ALTER TABLE items ADD COLUMN mine int",
    "alter its own rights": "ALTER ROLE app CREATEROLE",
    "drop a table": "DROP TABLE items",
    "drop the schema": "DROP SCHEMA public CASCADE",
    "drop the database": "DROP DATABASE app",
    "truncate a table": "TRUNCATE items",
    "truncate a later table": "TRUNCATE notes",
    "set a sequence back": "SELECT setval('numbers', 1)",
    "add a trigger": "CREATE TRIGGER mine AFTER INSERT ON items EXECUTE FUNCTION one()",
    "become the owner": "SET ROLE app_owner",
    "make itself a member": "GRANT app_owner TO app",
    "hand on its role": "GRANT app TO stranger",
    "grant by default": "ALTER DEFAULT PRIVILEGES FOR ROLE app_owner GRANT ALL ON TABLES TO app",
}


@pytest.mark.parametrize("statement", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_application_cannot(developed: Postgres, statement: str) -> None:
    developed.psql("CREATE ROLE stranger")
    result = developed.psql(statement, role="app")
    assert re.search("permission denied|must be owner|must be able to SET ROLE", result.stderr)
    assert result.returncode == 1


def test_application_cannot_grant(developed: Postgres) -> None:
    """PostgreSQL answers a GRANT without rights with a warning."""
    before = developed.dump()
    developed.psql("GRANT SELECT ON items, notes, archive.notes TO PUBLIC", role="app")
    developed.psql("GRANT ALL ON SCHEMA public TO PUBLIC", role="app")
    developed.psql("GRANT ALL ON DATABASE app TO PUBLIC", role="app")
    assert developed.dump() == before


@pytest.mark.parametrize("schema", ["public", "archive"])
def test_application_uses_tables_of_later_revisions(developed: Postgres, schema: str) -> None:
    """Identity columns, sequences and other schemas need no further grant."""
    rows = developed.ask(
        f"SET search_path = {schema}",
        "INSERT INTO notes (body) VALUES ('a'), ('b') RETURNING n > 0",
        "UPDATE notes SET body = 'c' WHERE body = 'b'",
        "DELETE FROM notes WHERE body = 'a' RETURNING body",
        "SELECT body FROM notes",
        "DELETE FROM notes",
        role="app",
    )
    assert rows.split() == ["t", "t", "a", "c"]


def test_application_uses_views_sequences_and_functions(developed: Postgres) -> None:
    assert developed.ask("SELECT count(*), one() FROM bodies", role="app") == "0|1"
    assert int(developed.ask("SELECT nextval('numbers')", role="app")) > 0
    assert developed.ask("SELECT version_num FROM alembic_version", role="app") == "2e0"


def test_no_other_role_connects(developed: Postgres) -> None:
    developed.psql("CREATE ROLE visitor LOGIN")
    assert "permission denied for database" in developed.psql("SELECT 1", role="visitor").stderr


SERVE = """
import asyncio, httpx, os
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
import app.main as m

async def main():
    transport = httpx.ASGITransport(m.app)
    async with m.lifespan(m.app), httpx.AsyncClient(transport=transport, base_url="http://x") as c:
        print((await c.get("/health/ready")).json()["status"])
        print((await c.post("/items", json={"name": "one"})).status_code)
        async with m.app.state.database.sessions.begin() as session:
            print(await session.scalar(text("SELECT current_user")))
            try:
                await session.execute(text("CREATE TABLE mine ()"))
            except ProgrammingError as error:
                print(str(error.orig).split(":")[-1].strip())

asyncio.run(main())
"""


def test_dev_serves_as_the_application(developed: Postgres) -> None:
    result = developed.run("python", "-c", SERVE)
    expected = ["ready", "201", "app", "permission denied for schema public"]
    assert result.stdout.splitlines() == expected, result.stderr


def test_dev_migrates_as_the_owner(developed: Postgres) -> None:
    owners = "SELECT DISTINCT tableowner, current_user FROM pg_tables WHERE schemaname = 'public'"
    assert developed.run("psql", "-Atc", owners).stdout == "app_owner|app_owner\n"
    superuser = developed.run("psql", "-U", "postgres", "-Atc", "SHOW is_superuser")
    assert superuser.stdout == "on\n"


def test_dev_runs_roles_sql_again_when_it_has_changed(started: Project) -> None:
    """A mistake in it is one line. Then it creates an extension, by the recipe of its comment."""
    started.uv("dev", "alembic", "upgrade", "head")
    text = (started.path / "roles.sql").read_text()
    (started.path / "roles.sql").write_text(f"{text}GRANT app TO nobody_here;\n")
    result = started.run("uv", "run", "-q", "dev", "true", check=False)
    assert result.stderr == 'dev: roles.sql: role "nobody_here" does not exist\n'
    assert result.returncode == 1

    create = "CREATE EXTENSION IF NOT EXISTS vector SCHEMA public;"
    assert f"-- {create}" in text
    (started.path / "roles.sql").write_text(text.replace(f"-- {create}", create))
    create = f'op.execute("{create}")\n    op.execute("ALTER TABLE notes ADD v vector(3)")'
    (started.path / "alembic" / "versions" / "later.py").write_text(
        REVISION.replace('op.execute("CREATE VIEW', f'{create}\n    op.execute("CREATE VIEW')
    )
    started.uv("dev", "alembic", "upgrade", "head")
    insert = "INSERT INTO notes (v) VALUES ('[1,2,3]') RETURNING v <-> '[1,2,3]'"
    assert started.uv("dev", "psql", "-U", "app", "-qAtc", insert) == "0\n"
    assert " passed" in started.uv("pytest", "-q", "tests/test_migrations.py", "-k", "one_head")

    started.uv("dev", "dropdb", "-U", "postgres", "app")
    started.uv("dev", "alembic", "upgrade", "head")
    assert started.uv("dev", "psql", "-U", "app", "-Atc", "SELECT count(*) FROM items") == "0\n"


AT_ONCE = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from dev.postgres import create_database

barrier = Barrier(8)

def prepare(_):
    barrier.wait()
    create_database(server, Path(sys.argv[1] + ".sql"))

try:
    print(len(list(ThreadPoolExecutor(8).map(prepare, range(8)))))
finally:
    server.stop()
"""


def test_concurrent_starts_run_roles_sql_in_turns(installed: Project) -> None:
    directory = str(short_directory() / "data")
    assert installed.uv("python", "-c", SERVER + AT_ONCE, directory) == "8\n"


WHILE_A_MIGRATION_RUNS = """
mkfifo fifo
(echo "BEGIN; ALTER TABLE notes ADD later int; SELECT 'changed';"; timeout 60 cat fifo) |
    psql -qAt > changed &
until grep -q changed changed; do :; done
timeout 30 dev true && echo started
echo 'ROLLBACK;' > fifo
wait
"""


def test_dev_waits_for_no_migration(developed: Postgres, tmp_path: Path) -> None:
    result = developed.run("sh", "-c", WHILE_A_MIGRATION_RUNS, cwd=tmp_path)
    assert result.stdout == "started\n", result.stderr


BLOCKED = """
mkfifo fifo
(echo "BEGIN; SELECT body FROM notes; SELECT 'held';"; timeout 60 cat fifo) |
    PGAPPNAME=reader psql -U $1 -qAt > held &
until grep -q held held; do :; done
MIGRATION_LOCK_TIMEOUT_SECONDS=2 alembic downgrade base 2>&1 | grep -o 'notes is held by .*'
echo > fifo
wait
"""


@pytest.mark.parametrize(
    ("role", "known"), [("app", r", idle in transaction since \d{4}-.*"), ("monitor", "")]
)
def test_owner_learns_who_holds_a_table(
    developed: Postgres, tmp_path: Path, role: str, known: str
) -> None:
    """PostgreSQL tells less of sessions whose role is not one of the project's."""
    developed.psql("CREATE ROLE monitor LOGIN", "GRANT CONNECT ON DATABASE app TO monitor")
    developed.ask("GRANT SELECT ON notes TO monitor", role="app_owner")
    result = developed.run("sh", "-c", BLOCKED, "sh", role, cwd=tmp_path)
    pattern = (
        rf"notes is held by process \d+ of {role} from reader{known}\. Run the revision again"
    )
    assert re.match(pattern, result.stdout), result.stderr


@pytest.mark.parametrize("database", ["postgres", "template1"])
def test_application_connects_to_no_other_database(developed: Postgres, database: str) -> None:
    result = developed.psql("SELECT 1", role="app", database=database)
    assert f'permission denied for database "{database}"' in result.stderr


def test_migration_as_the_application_fails_with_one_line(developed: Postgres) -> None:
    url = "DATABASE_URL_SYNC=postgresql://app@/app?host=" + developed.environment["PGHOST"]
    result = developed.run("env", url, "alembic", "downgrade", "base")
    assert result.returncode != 0
    *progress, line = result.stderr.splitlines()
    assert line.startswith("must be owner of schema archive: DATABASE_URL_SYNC must name the role")
    assert all(told.startswith("INFO") for told in progress)


TRAP = """
    CREATE FUNCTION public.format(text, name) RETURNS text LANGUAGE plpgsql AS $$
    BEGIN ALTER ROLE app_owner SUPERUSER; RETURN pg_catalog.format($1, $2); END $$
"""


def test_function_of_the_owner_gains_nothing_when_it_runs_again(
    scratch: Postgres, baked: Project
) -> None:
    """An administrator runs the file, so it must not call what app_owner has created."""
    scratch.run_roles(baked)
    scratch.ask(TRAP, role="app_owner")
    assert scratch.run_roles(baked)[0] == 0
    query = "SELECT rolsuper FROM pg_roles WHERE rolname = 'app_owner'"
    assert scratch.ask(query) == "f"


def test_running_it_again_changes_nothing(scratch: Postgres, baked: Project) -> None:
    assert scratch.run_roles(baked) == (0, "")
    scratch.ask("CREATE TABLE t (id serial)", role="app_owner")
    first = scratch.dump()
    assert "ALTER DEFAULT PRIVILEGES" in first
    assert scratch.run_roles(baked) == (0, "")
    assert scratch.dump() == first


@pytest.fixture
def older() -> Iterator[Postgres]:
    """Debian's server: in its version 15 CREATEROLE allows more than since 16."""
    directory = short_directory()
    with postgresql(directory, "local all all trust\n", {}) as port:
        server = Postgres(
            user_environment()
            | {"PGHOST": str(directory), "PGPORT": str(port), "PGUSER": "postgres"}
            | {"PATH": f"{Path(binary('psql')).parent}:{os.environ['PATH']}"}
        )
        server.ask("CREATE DATABASE app", database="postgres")
        yield server


ADMINISTRATOR = (
    "CREATE ROLE administrator LOGIN CREATEROLE CREATEDB",
    "ALTER DATABASE app OWNER TO administrator",
)


def assert_roles_work(server: Postgres) -> None:
    server.ask("CREATE TABLE t (id serial)", "CREATE SCHEMA mine", role="app_owner")
    server.ask("INSERT INTO t DEFAULT VALUES; SELECT id FROM t", role="app")
    for statement in ("CREATE TABLE u ()", "CREATE TEMPORARY TABLE u ()", "TRUNCATE t"):
        assert "permission denied" in server.psql(statement, role="app").stderr


@pytest.mark.parametrize("version", ["scratch", "older"])
def test_administrator_needs_no_superuser(
    request: pytest.FixtureRequest, baked: Project, version: str
) -> None:
    """The administrator of a managed server may create roles and owns the database."""
    server: Postgres = request.getfixturevalue(version)
    server.ask(*ADMINISTRATOR)
    assert server.run_roles(baked, "administrator") == (0, "")
    assert_roles_work(server)
    assert server.run_roles(baked, "administrator") == (0, "")


def test_failing_run_changes_nothing(scratch: Postgres, baked: Project) -> None:
    scratch.ask(ADMINISTRATOR[0])
    before = scratch.dump()
    status, errors = scratch.run_roles(baked, "administrator")
    assert status == 3
    assert "ERROR:  must be owner of schema public" in errors
    assert scratch.dump() == before


POWERS = {
    "ALTER DATABASE app OWNER TO app": "the role app can still create tables in app",
    "GRANT TEMPORARY ON DATABASE app TO app": "the role app can still create tables in app",
    "GRANT CREATE ON SCHEMA public TO app": "the role app can still create tables in app",
    "CREATE ROLE app_owner ROLE app": 'role "app" is a member of role "app_owner"',
}


@pytest.mark.parametrize(("power", "error"), POWERS.items(), ids=POWERS.keys())
def test_application_with_more_rights_is_refused(
    scratch: Postgres, baked: Project, power: str, error: str
) -> None:
    scratch.ask("CREATE ROLE app LOGIN", power)
    status, errors = scratch.run_roles(baked)
    assert status == 3
    assert f"ERROR:  {error}" in errors


def test_schema_public_open_to_all_is_closed(scratch: Postgres, baked: Project) -> None:
    """Databases of PostgreSQL 14 and older have such a schema, and keep it in an upgrade."""
    scratch.ask("ALTER SCHEMA public OWNER TO postgres", "GRANT ALL ON SCHEMA public TO PUBLIC")
    assert scratch.run_roles(baked) == (0, "")
    assert_roles_work(scratch)


@pytest.mark.parametrize("role", ["that_role", "app"])
def test_tables_of_another_role_are_taken_over(
    scratch: Postgres, baked: Project, role: str
) -> None:
    """The recipe is in docs/deploy.md. The role may be the one that did everything so far."""
    scratch.ask(f"CREATE ROLE {role} LOGIN", f"ALTER DATABASE app OWNER TO {role}")
    scratch.ask("CREATE TABLE old (id serial)", "INSERT INTO old DEFAULT VALUES", role=role)
    page = readmes.read(readmes.DEPLOY)
    recipe = re.findall(r"`(CREATE ROLE app_owner[^`]*|REASSIGN OWNED[^`]*)`", page)
    assert len(recipe) == 2
    scratch.ask(*(statement.replace("that_role", role) for statement in recipe))
    assert scratch.run_roles(baked) == (0, "")
    scratch.ask("INSERT INTO old DEFAULT VALUES", "SELECT * FROM old", role="app")
    assert "must be owner" in scratch.psql("DROP TABLE old", role="app").stderr
    scratch.ask("ALTER TABLE old ADD more int", role="app_owner")
    assert_roles_work(scratch)


def test_readmes_commands_prepare_another_server(scratch: Postgres, copied: Project) -> None:
    """The commands are run word for word, with the generated `.env` but for the server."""
    env = (copied.path / ".env").read_text()
    passwords = dict(re.findall(r"://(\w+):(\w+)@localhost:5432/my_api$", env, re.MULTILINE))
    assert passwords.keys() == {"app", "app_owner"}
    rules = Path(scratch.ask("SHOW hba_file"))
    rules.write_text("local all postgres trust\nlocal all all scram-sha-256\n")
    scratch.ask("SELECT pg_reload_conf()")

    prepare, use = readmes.take(readmes.GENERATED, "Your own PostgreSQL")
    commands = prepare.replace("{{ cookiecutter.__database }}", "my_api")
    terminal = pexpect.spawn(
        "sh", ["-euc", commands], cwd=copied.path, env=scratch.environment, encoding="utf-8"
    )
    for role in ("app_owner", "app"):
        for prompt in (f'new password for user "{role}": ', "it again: "):
            terminal.expect_exact(prompt)
            terminal.sendline(passwords[role])
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0, terminal.before

    host = scratch.environment["PGHOST"]
    (copied.path / ".env").write_text(re.sub(r"localhost:5432(/\w+)", rf"\1?host={host}", env))
    alembic, serve = (line.split() for line in use.splitlines())
    copied.run(*alembic)
    serve += ["--no-reload", "--port", "0"]
    with copied.start(*serve[2:], stderr=subprocess.STDOUT) as process:
        assert process.stdout
        assert any("startup complete" in line for line in process.stdout)
        process.terminate()
    output = copied.uv("python", "-c", SERVE)
    assert output.split()[:3] == ["ready", "201", "app"]
    wrong = re.sub(r"(app_owner:)\w", r"\1x", (copied.path / ".env").read_text())
    (copied.path / ".env").write_text(wrong)
    output = copied.uv("alembic", "current", check=False)
    assert "password authentication failed" in output
