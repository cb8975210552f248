"""The base class of the models: column types, constraint names, enums."""

import enum
import re
from datetime import datetime
from hashlib import sha256
from typing import TypeGuard

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Constraint,
    DateTime,
    Enum,
    MetaData,
    Table,
    Text,
    orm,
)
from sqlalchemy.exc import ArgumentError
from sqlalchemy.sql.elements import BinaryExpression
from sqlalchemy.sql.operators import in_op


def is_enum_check(item: object) -> TypeGuard[CheckConstraint]:
    """Tell whether `item` is the constraint `column IN (values)` of an enum column."""
    return (
        isinstance(item, CheckConstraint)
        and isinstance(item.sqltext, BinaryExpression)
        and item.sqltext.operator is in_op
        and all(isinstance(column.type, Enum) for column in item.columns)
    )


def enum_hash(check: Constraint, table: Table) -> str:
    """Return a suffix for the name of an enum's CHECK that changes with its values.

    Alembic compares CHECK constraints by name, so it notices a changed value. The column is
    hashed too, since two columns of a table may have the same enum.
    """
    if not is_enum_check(check):
        return ""
    values = [(column.name, getattr(column.type, "enums", [])) for column in check.columns]
    return f"_{sha256(repr(values).encode()).hexdigest()[:8]}"


def enum_values(members: type[enum.Enum]) -> list[str]:
    """Return what the database stores for each member: its value, not its name."""
    values = [member.value for member in members]
    if not all(isinstance(value, str) and re.fullmatch(r"[^:%'\\]+", value) for value in values):
        raise ArgumentError(
            f"the values of {members.__qualname__} must be strings without : % ' and \\"
        )
    return values


class Base(orm.DeclarativeBase):
    """The base class of every model."""

    # Every constraint has a name, so that a later migration can drop it.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s%(enum_hash)s",
            "enum_hash": enum_hash,
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    # An enum is text with a CHECK constraint. Unlike PostgreSQL's enum type it can lose
    # values, changes inside a transaction, and goes away with its table or column.
    type_annotation_map = {
        datetime: DateTime(timezone=True),
        int: BigInteger,
        enum.Enum: Enum(
            enum.Enum,
            native_enum=False,
            create_constraint=True,
            length=None,
            values_callable=enum_values,
        ),
        str: Text,
    }
    # INSERT and UPDATE return the values that the server computed. Loading one on first
    # access would be a query inside an attribute, which async code cannot run.
    __mapper_args__ = {"eager_defaults": True}
