"""The meaning of PostgreSQL's errors for a client: a status, a sentence, the fields."""

from typing import Any

from asyncpg import (
    DataError,
    ForeignKeyViolationError,
    IntegrityConstraintViolationError,
    InterfaceError,
    InvalidCachedStatementError,
    PostgresError,
)
from sqlalchemy import Constraint, Index
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from .base import Base
from .engine import DatabaseUnavailable

# The exceptions for explain(), from SQLAlchemy or from asyncpg itself.
DATABASE_ERRORS: tuple[type[Exception], ...] = (
    DatabaseUnavailable,
    DBAPIError,
    PoolTimeout,
    PostgresError,
    InterfaceError,
)

UNSTORABLE = "A value is too large, or has a character that cannot be stored."
UNAVAILABLE = "The database cannot be reached."
CONTENDED = "Others are changing the same rows; try again."
TIMED_OUT = "The server took too long to answer."

# By SQLSTATE or by its class, the first two characters. A state that is missing here is a bug.
# 22000 is asyncpg's own, for a value of the wrong Python type.
MEANINGS = {
    "08": (503, UNAVAILABLE),
    "22001": (422, UNSTORABLE),  # longer than varchar(n)
    "22003": (422, UNSTORABLE),  # out of range
    "22021": (422, UNSTORABLE),  # NUL in text
    "22P05": (422, UNSTORABLE),  # NUL in jsonb
    "23001": (409, "It is still the {fields} of another one."),  # ON DELETE RESTRICT
    "23503": (409, "There is nothing with this {fields}."),  # foreign key
    "23505": (409, "Another one has this {fields}."),  # unique
    "23514": (422, "A rule forbids this {fields}."),  # CHECK
    "23P01": (409, "Another one excludes this {fields}."),  # EXCLUDE
    "25006": (503, "The database takes no changes now."),  # a standby before its promotion
    "40001": (503, CONTENDED),  # serialization failure
    "40P01": (503, CONTENDED),  # deadlock
    "53": (503, "The database is busy."),
    "55P03": (503, CONTENDED),  # lock_timeout
    "57": (503, UNAVAILABLE),  # stopping or starting
    "57014": (504, TIMED_OUT),  # statement_timeout
}


def explain(error: Exception, method: str) -> tuple[int, str, list[str]] | None:
    """Return status, sentence and fields for the client, without SQL or values; None for a bug.

    `method` is that of the request. It decides between the two ends of a foreign key where
    the error does not name its statement.
    """
    state = sqlstate(error, method)
    meaning = MEANINGS.get(state) or MEANINGS.get(state[:2])
    if meaning is None:
        return None
    status, detail = meaning
    fields = violated_fields(error)
    detail = detail.format(fields=" and ".join(fields) or "value")
    return status, detail, [] if state == "23001" else fields


def sqlstate(error: Exception, method: str) -> str:
    """Return the SQLSTATE, or the closest equivalent if there is none or an ambiguous one."""
    if isinstance(error, DatabaseUnavailable) or getattr(error, "connection_invalidated", False):
        return "08006"
    match driver_error(error):
        case InterfaceError() as found if "closed" in str(found):  # others are bugs of the caller
            return "08006"
        case DataError(__cause__=OverflowError() | UnicodeError()):  # in the client's encoder
            return "22003"
        case InvalidCachedStatementError():
            # A migration changed the type of a column. The next attempt works.
            return "40001"
        case PoolTimeout():
            return "53300"
        case ForeignKeyViolationError():
            # A deferred constraint fails in COMMIT, whose error has no statement.
            statement = getattr(error, "statement", None) or method
            return "23001" if statement.startswith("DELETE") else "23503"
        case PostgresError(sqlstate=str(state)):
            return state
    return ""


def driver_error(error: Exception) -> Exception:
    """Return asyncpg's own error, which SQLAlchemy wraps twice.

    SQLAlchemy's `driver_exception` is not set for InvalidCachedStatementError.
    """
    cause = getattr(getattr(error, "orig", None), "__cause__", None)
    return cause if isinstance(cause, Exception) else error


def violated_fields(error: Exception) -> list[str]:
    """Return the model's names for the columns of the violated constraint."""
    violation = driver_error(error)
    if not isinstance(violation, IntegrityConstraintViolationError):
        return []
    attributes = {c: name for mapper in Base.registry.mappers for name, c in mapper.c.items()}
    for table in Base.metadata.tables.values():
        constraints: list[Any] = [*table.constraints, *table.indexes]
        if table.name != violation.table_name or table.schema not in (None, violation.schema_name):
            continue
        for constraint in constraints:
            if constraint.name and name_in_database(constraint) == violation.constraint_name:
                return [attributes.get(c, c.name) for c in constraint.columns]
    return []


def name_in_database(constraint: Constraint | Index) -> str:
    """Return the name, shortened as SQLAlchemy does where it exceeds 63 characters."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    return str(dialect.identifier_preparer.format_constraint(constraint)).strip('"')
