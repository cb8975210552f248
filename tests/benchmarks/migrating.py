"""Alembic in a generated project: compared with the stock env.py, in a race, and growing."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from measure import compare, report, run

FIRST_REVISION = "1f0c5e7a9b3d"
REVISION = """from alembic import op

revision, down_revision = "{name}", "{down}"
branch_labels = depends_on = None


def upgrade() -> None:
{up}


def downgrade() -> None:
{down_again}
"""
SMALL = ('    op.execute("CREATE SEQUENCE s{n}")', '    op.execute("DROP SEQUENCE s{n}")')
CONCURRENT = (
    "    with op.get_context().autocommit_block():\n"
    '        op.create_index("ix{n}", "items", ["created_at"], postgresql_concurrently=True)',
    "    with op.get_context().autocommit_block():\n"
    '        op.drop_index("ix{n}", "items", postgresql_concurrently=True)',
)
CONFIGURE = "connection=connection, target_metadata=target_metadata"
NO_MODELS = "target_metadata = None"
WITH_BASE = """
from sqlalchemy.orm import DeclarativeBase

class Base(DeclarativeBase):
    pass

target_metadata = Base.metadata
"""
PER_MIGRATION = ", transaction_per_migration=True"


def write_revisions(versions: Path, number: int, bodies: tuple[str, str] = SMALL) -> str:
    """Replace the revisions after the first one by `number` others. Returns the last one."""
    for path in versions.glob("small_*.py"):
        path.unlink()
    down = FIRST_REVISION
    for n in range(number):
        up, down_again = (body.format(n=n) for body in bodies)
        text = REVISION.format(name=f"small_{n:04}", down=down, up=up, down_again=down_again)
        down = f"small_{n:04}"
        (versions / f"{down}.py").write_text(text)
    return down


def alembics(project: Path) -> tuple[list[str], list[str]]:
    """Return the command with this project's env.py, and with the stock one on a copy."""
    alembic = str(project / ".venv" / "bin" / "alembic")
    stock = project.parent / "stock"
    if not stock.exists():
        stock.mkdir()
        run([alembic, "-c", "alembic.ini", "init", "migrations"], stock)
        ini = (stock / "alembic.ini").read_text()
        url = os.environ["DATABASE_URL_SYNC"].replace("%", "%%")
        ini = ini.replace("driver://user:pass@localhost/dbname", url)
        (stock / "alembic.ini").write_text(ini.replace("%(here)s", str(stock)))
    versions = stock / "migrations" / "versions"
    shutil.rmtree(versions)
    shutil.copytree(project / "alembic" / "versions", versions)
    ours, others = ([alembic, "-c", str(path / "alembic.ini")] for path in (project, stock))
    return ours, others


def alembic_upgrade(project: Path) -> None:
    """`alembic upgrade head` with nothing to do ÷ stock env.py (at most 1.35).

    The stock env.py has no models. With a base class for them it imports SQLAlchemy's ORM too.
    """
    ours, stock = alembics(project)
    run([*ours, "upgrade", "head"], project)
    env = project.parent / "stock" / "migrations" / "env.py"
    for name, metadata in {"stock": NO_MODELS, "stock with a base class": WITH_BASE}.items():
        env.write_text(env.read_text().replace(NO_MODELS, metadata))
        compare(
            "ours",
            partial(run, [*ours, "upgrade", "head"], project),
            name,
            partial(run, [*stock, "upgrade", "head"], project),
            limit=1.35,
        )


def thousand_revisions(project: Path) -> None:
    """`alembic upgrade head` through 1,000 small revisions ÷ stock env.py (at most 1.25).

    The stock env.py uses one transaction for all. The fair comparison is with one for each
    revision, since the disk takes part of the time.
    """
    write_revisions(project / "alembic" / "versions", 1000)
    ours, stock = alembics(project)
    env = project.parent / "stock" / "migrations" / "env.py"
    for name, option in {"stock": "", "stock, in as many transactions": PER_MIGRATION}.items():
        env.write_text(env.read_text().replace(CONFIGURE, CONFIGURE + option))
        compare(
            "ours",
            lambda: upgrade_from_nothing(ours, project),
            name,
            lambda: upgrade_from_nothing(stock, project),
            limit=1.25,
            rounds=5,
        )


def upgrade_from_nothing(alembic: list[str], project: Path) -> float:
    """Return the seconds of the upgrade, without those of emptying the database."""
    empty_database(project)
    start = time.perf_counter()
    run([*alembic, "upgrade", "head"], project)
    return time.perf_counter() - start


def empty_database(project: Path) -> None:
    run(["psql", "-c", "DROP SCHEMA public CASCADE", "-c", "CREATE SCHEMA public"], project)


def race(project: Path) -> None:
    """Six `alembic upgrade head` at once, with CREATE INDEX CONCURRENTLY, 20 rounds (0 fail)."""
    last = write_revisions(project / "alembic" / "versions", 1, CONCURRENT)
    alembic, _ = alembics(project)
    failures = repeated = invalid = 0
    for _ in range(20):
        empty_database(project)
        processes = [
            subprocess.Popen([*alembic, "upgrade", "head"], stderr=subprocess.PIPE, text=True)
            for _ in range(6)
        ]
        logs = [process.communicate()[1] for process in processes]
        failures += sum(process.returncode != 0 for process in processes)
        repeated += "".join(logs).count("Running upgrade") != 2
        query = (
            "SELECT indisvalid, version_num FROM pg_index, alembic_version "
            "WHERE indexrelid = 'ix0'::regclass"
        )
        found = subprocess.check_output(["psql", "-Atc", query], text=True)
        invalid += found != f"t|{last}\n"
    report("processes that failed, of 120", failures, 0)
    report("rounds in which a revision was not applied once", repeated, 0)
    report("rounds that left no valid index, or another revision", invalid, 0)


def growth(name: str, seconds: Callable[[int], float]) -> None:
    """Report the time of each of the last 900 of 1,000 ÷ the time of each from 11 to 100.

    The small numbers, mostly the start of Python, are the best of three.
    """
    few, some = (min(seconds(number) for _ in range(3)) for number in (10, 100))
    many = seconds(1000)
    print(f"{name}: 10 in {few:.2f} s, 100 in {some:.2f} s, 1000 in {many:.2f} s")
    report("growth", (many - some) / 900 / ((some - few) / 90), 1.25)


def history(project: Path) -> None:
    """tests/test_migrations.py with 10, 100 and 1,000 revisions (linear or better)."""

    def seconds(number: int) -> float:
        write_revisions(project / "alembic" / "versions", number)
        start = time.perf_counter()
        run(["uv", "run", "--quiet", "pytest", "-q", "tests/test_migrations.py"], project)
        return time.perf_counter() - start

    growth("tests/test_migrations.py, revisions", seconds)


MODEL = """

class Table{n}(Base):
    __tablename__ = "table_{n}"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    first_id: Mapped[int] = mapped_column(ForeignKey("table_0.id"), index=True)
"""
MODELS = """from sqlalchemy import ForeignKey, Identity
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base
"""


def tables(project: Path) -> None:
    """`alembic check` with 10, 100 and 1,000 tables (linear or better)."""
    alembic, _ = alembics(project)

    def seconds(number: int) -> float:
        empty_database(project)
        for path in (project / "alembic" / "versions").glob("*_to_*.py"):
            path.unlink()
        models = MODELS + "".join(MODEL.format(n=n) for n in range(number))
        (project / "app" / "models" / "many.py").write_text(models)
        run([*alembic, "upgrade", "head"], project)
        run([*alembic, "revision", "--autogenerate", "-m", f"to {number}"], project)
        run([*alembic, "upgrade", "head"], project)
        start = time.perf_counter()
        run([*alembic, "check"], project)
        return time.perf_counter() - start

    growth("alembic check, tables", seconds)


BENCHMARKS = [alembic_upgrade, thousand_revisions, race, history, tables]
