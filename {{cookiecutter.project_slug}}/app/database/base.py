"""The base class of the models: column types, constraint names, enums."""

import re
from datetime import datetime
from enum import Enum
from hashlib import sha256
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.sql.operators import in_op


def check_name(check: Any, table: sa.Table) -> str:
    """Return the name of a CHECK constraint; an enum's ends in a hash.

    Alembic compares CHECK constraints by name, so it notices a changed value. It would not
    recognize a name that the database shortened to 63 characters.
    """
    if not isinstance(check.name, str):
        raise ArgumentError(f"a CHECK constraint of {table.name} has no name: add name=...")
    name = f"ck_{table.name}_{check.name}"
    enums = [(str(c.name), c.type.enums) for c in check.columns if isinstance(c.type, sa.Enum)]
    if enums and getattr(check.sqltext, "operator", None) is in_op:
        name += digest(enums)
    return name if len(name) <= 63 else name[:54] + digest(name)


def digest(value: object) -> str:
    return f"_{sha256(repr(value).encode()).hexdigest()[:8]}"


def values_of(members: type[Enum]) -> list[str]:
    """Return what the database stores for each member: its value, not its name."""
    values = [member.value for member in members]
    if not all(isinstance(value, str) and re.fullmatch(r"[^:%'\\]*", value) for value in values):
        raise ArgumentError(f"values of {members.__name__} must be strings without : % ' and \\")
    return values


class Base(DeclarativeBase):
    # Every constraint has a name, so that a later migration can drop it.
    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "%(constraint_name)s",
            "constraint_name": check_name,
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
            ExcludeConstraint: "ex_%(table_name)s_%(column_0_N_name)s",
        }
    )
    # An enum is text with a CHECK constraint. Unlike with PostgreSQL's enum type, a value can
    # be removed, and no type is left behind when the column goes.
    type_annotation_map = {
        datetime: sa.DateTime(timezone=True),
        int: sa.BigInteger,
        Enum: sa.Enum(
            Enum, native_enum=False, create_constraint=True, length=None, values_callable=values_of
        ),
        str: sa.Text,
    }
    # INSERT and UPDATE return the values that the server computed. Loading one on first
    # access would be a query inside an attribute, which async code cannot run.
    __mapper_args__ = {"eager_defaults": True}
