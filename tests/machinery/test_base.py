"""The base class of the models: names of constraints, types of columns."""

from datetime import datetime

import pytest
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    inspect,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.database import Base


class Scratch(DeclarativeBase):
    """`Base` again, apart from the application's tables."""

    metadata = MetaData(naming_convention=Base.metadata.naming_convention)
    type_annotation_map = Base.type_annotation_map
    __mapper_args__ = Base.__mapper_args__


class Row(Scratch):
    __tablename__ = "pytest_rows"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    at: Mapped[datetime]


def test_every_constraint_and_index_has_a_name() -> None:
    """A later migration could not drop one without a name."""
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)
    Table("pytest_parents", metadata, Column("id", Integer, primary_key=True))
    rows = Table(
        "pytest_rows",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("title", Text, unique=True),
        Column("year", Integer, index=True),
        Column("parent_id", ForeignKey("pytest_parents.id")),
        CheckConstraint("year > 0", name="year_positive"),
    )
    names = {constraint.name for constraint in rows.constraints}
    assert names | {index.name for index in rows.indexes} == {
        "pk_pytest_rows",
        "uq_pytest_rows_title",
        "ck_pytest_rows_year_positive",
        "ix_pytest_rows_year",
        "fk_pytest_rows_parent_id_pytest_parents",
    }


@pytest.mark.parametrize(
    ("name", "expected"), [("id", BigInteger), ("name", Text), ("at", DateTime)]
)
def test_column_type_follows_the_annotation(name: str, expected: type) -> None:
    assert type(Row.__table__.c[name].type) is expected


def test_times_have_a_time_zone() -> None:
    assert getattr(Row.__table__.c.at.type, "timezone", False)


def test_server_defaults_are_returned_by_the_statement() -> None:
    assert inspect(Row).eager_defaults is True
