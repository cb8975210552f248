"""What the project's own checks of migrations and models find."""

import sys
from pathlib import Path
from typing import Any

import pytest
import test_migrations
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import (
    ARRAY,
    URL,
    Column,
    Connection,
    Enum,
    MetaData,
    NullPool,
    Table,
    create_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeEngine

from machinery.conftest import AddRevision

FIRST = "1f0c5e7a9b3d"
Failure = pytest.fail.Exception


@pytest.fixture
def checked(by_url: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the project's checks look at the revisions of `by_url`."""
    monkeypatch.setattr(test_migrations, "INI", by_url.config_file_name)
    monkeypatch.setattr(test_migrations, "SCRIPTS", ScriptDirectory.from_config(by_url))


@pytest.fixture
def empty(empty_url: URL) -> Any:
    engine = create_engine(empty_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection


@pytest.mark.usefixtures("checked")
def test_two_heads_are_named_with_the_command_that_joins_them(add_revision: AddRevision) -> None:
    add_revision("second", None)
    with pytest.raises(Failure, match=r"_create_items_.*second\.py are both heads: join them wit"):
        test_migrations.test_there_is_one_head()


@pytest.mark.usefixtures("checked")
def test_downgrade_that_does_nothing_is_found(
    empty: Connection, add_revision: AddRevision
) -> None:
    add_revision("second", FIRST, 'op.execute("CREATE TABLE pytest_left ()")')
    with pytest.raises(Exception, match='relation "pytest_left" already exists'):
        test_migrations.test_every_revision_goes_up_down_and_up(empty)


@pytest.mark.usefixtures("checked")
@pytest.mark.parametrize(
    "kind", ["TABLE x ()", "TYPE x AS ENUM ()", "DOMAIN x text", "SEQUENCE x", "SCHEMA x"]
)
def test_object_that_is_left_behind_is_found(
    empty: Connection, add_revision: AddRevision, kind: str
) -> None:
    add_revision("second", FIRST, f'op.execute("CREATE {kind}")')
    with pytest.raises(AssertionError, match=r"'\w+ x'"):
        test_migrations.test_downgrade_to_base_leaves_nothing_behind(empty)


def test_missing_revision_is_named_with_the_command_that_writes_it(
    transaction: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(DeclarativeBase):
        pass

    Table("pytest_missing", Other.metadata, Column("id"))
    monkeypatch.setattr("app.database.Base", Other)
    with pytest.raises(Failure, match=r"(?s)pytest_missing.*write a revision: uv run dev alembic"):
        test_migrations.test_models_and_migrations_agree(transaction)


SAFE = 'op.create_table("pytest_safe", sa.Column("id", sa.BigInteger(), sa.Identity()))'
UNSAFE = {
    "adding-required-field": """op.add_column(
        "pytest_safe", sa.Column("size", sa.BigInteger(), nullable=False)
    )""",
    "adding-not-nullable-field": 'op.alter_column("pytest_safe", "size", nullable=False)',
    "adding-foreign-key-constraint": """op.create_foreign_key(
        "fk", "pytest_safe", "others", ["size"], ["id"]
    )""",
    "constraint-missing-not-valid": 'op.create_check_constraint("ck", "pytest_safe", "id > 0")',
    "require-concurrent-index-creation": 'op.create_index("ix", "pytest_safe", ["id"])',
}


@pytest.mark.usefixtures("checked")
@pytest.mark.parametrize(("rule", "operation"), UNSAFE.items(), ids=UNSAFE)
def test_unsafe_revision_is_found(
    tmp_path: Path, add_revision: AddRevision, rule: str, operation: str
) -> None:
    """Also where an earlier revision of the same script creates the table."""
    add_revision("second", FIRST, SAFE)
    add_revision("third", "second", operation)
    with pytest.raises(Failure) as failure:
        test_migrations.test_revisions_are_safe_on_a_busy_table(tmp_path)
    findings = str(failure.value)
    assert rule in findings
    assert "third.sql" in findings
    assert "second.sql" not in findings


class OtherBase(DeclarativeBase):
    """A base class apart from the project's, for tables in a wrong place."""


class Stray(OtherBase):
    __tablename__ = "pytest_strays"

    id: Mapped[int] = mapped_column(primary_key=True)


links = Table("pytest_links", OtherBase.metadata)


def test_table_outside_of_app_models_is_named_with_its_file() -> None:
    assert test_migrations.misplaced_tables(OtherBase, [sys.modules[__name__]]) == [
        f"{table} is defined in tests/machinery/test_checks.py: move it to app/models/"
        for table in ("pytest_strays", "pytest_links")
    ]


@pytest.mark.parametrize(
    "kind",
    [
        Enum("a", name="kind", create_type=False),
        Enum("a", name="kind", native_enum=False),
        Enum("a", native_enum=False, create_constraint=True),
        ARRAY(Enum("a", name="kind", create_type=False)),
    ],
    ids=["native that others create", "no check", "no name", "array"],
)
def test_enum_that_autogenerate_does_not_follow_is_named(kind: TypeEngine[Any]) -> None:
    metadata = MetaData()
    Table("pytest_kinds", metadata, Column("kind", kind))
    (line,) = test_migrations.unfollowed_enums(metadata)
    assert line.startswith("pytest_kinds.kind: write Mapped[")


def test_native_enums_are_followed_and_tables_of_a_library_are_in_their_place() -> None:
    metadata = MetaData()
    kind = Enum("a", name="kind")
    Table("pytest_kinds", metadata, Column("kind", kind), Column("kinds", ARRAY(kind)))
    assert test_migrations.unfollowed_enums(metadata) == []

    class Other(DeclarativeBase):
        pass

    Table("pytest_jobs", Other.metadata)  # no module of the project has it
    assert test_migrations.misplaced_tables(Other, []) == []
