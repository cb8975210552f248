"""What PostgreSQL's refusals mean to a client; knows no HTTP but its statuses."""

from typing import NamedTuple, TypeGuard

from asyncpg import (
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
from sqlalchemy.schema import ColumnCollectionConstraint

from app.database import Base, DatabaseUnavailable, SchemaChanged

UNSTORABLE = "A value is too large, or has a character that cannot be stored."
UNAVAILABLE = "The database cannot be reached."
CONTENDED = "Others are changing the same; try again."
TIMED_OUT = "The server took too long to answer."

# By SQLSTATE, or its class, the first two characters. What is not here is a bug.
MEANINGS = {
    "08": (503, UNAVAILABLE),
    "22000": (422, UNSTORABLE),  # asyncpg's own, for what it cannot encode
    "22001": (422, UNSTORABLE),  # longer than varchar(n)
    "22003": (422, UNSTORABLE),  # out of range
    "22021": (422, UNSTORABLE),  # NUL
    "22P05": (422, UNSTORABLE),  # NUL in jsonb
    "23001": (409, "It is still the {fields} of another one."),  # ON DELETE RESTRICT
    "23503": (409, "There is nothing with this {fields}."),  # foreign key
    "23505": (409, "Another one has this {fields}."),
    "23514": (422, "A rule forbids this {fields}."),  # CHECK
    "23P01": (409, "Another one excludes this {fields}."),
    "25006": (503, "The database takes no changes now."),  # a standby, about to take over
    "40001": (503, CONTENDED),  # serialization failure
    "40P01": (503, CONTENDED),  # deadlock
    "53": (503, "The database is busy."),
    "55P03": (503, CONTENDED),  # lock_timeout
    "57": (503, UNAVAILABLE),  # stopping, starting
    "57014": (504, TIMED_OUT),  # statement_timeout
}


class Refusal(NamedTuple):
    """A status, a sentence, and the fields of the request that are to blame."""

    status: int
    detail: str
    fields: list[str]


def explain(error: Exception, method: str) -> Refusal | None:
    """What to tell the client, without SQL or values; nothing if `error` is a bug."""
    state = sqlstate(error, method)
    meaning = MEANINGS.get(state) or MEANINGS.get(state[:2])
    if meaning is None:
        return None
    status, detail = meaning
    fields = violated_fields(error)
    detail = detail.format(fields=" and ".join(fields) or "value")
    return Refusal(status, detail, [] if state == "23001" else fields)


def sqlstate(error: Exception, method: str) -> str:
    """The error's SQLSTATE, or that of its like where it has none or one for two things."""
    match error:
        case DatabaseUnavailable() | DBAPIError(connection_invalidated=True):
            return "08006"
        case InterfaceError() if "closed" in str(error):  # else a call that is wrong
            return "08006"
        case SchemaChanged() | InvalidCachedStatementError():
            return "40001"
        case PoolTimeout():
            return "53300"
        case TimeoutError():
            return "57014"
        case ForeignKeyViolationError() | DBAPIError(driver_exception=ForeignKeyViolationError()):
            # Of either end. A deferred constraint fails in COMMIT, which has no statement, nor
            # has an error of asyncpg's own.
            statement = getattr(error, "statement", None) or method
            return "23001" if statement.startswith("DELETE") else "23503"
        case (
            PostgresError(sqlstate=str(state))
            | DBAPIError(driver_exception=PostgresError(sqlstate=str(state)))
        ):
            return state
    return ""


def violated_fields(error: Exception) -> list[str]:
    """What models call the columns of a violated constraint, which is found by its name."""
    violation = getattr(error, "driver_exception", error)
    if not isinstance(violation, IntegrityConstraintViolationError):
        return []
    attributes = {c: name for mapper in Base.registry.mappers for name, c in mapper.c.items()}
    for table in Base.metadata.tables.values():
        for constraint in filter(has_columns, [*table.constraints, *table.indexes]):
            found = table.name, name_in_database(constraint)
            if found == (violation.table_name, violation.constraint_name):
                return [attributes.get(c, c.name) for c in constraint.columns]
    return []


def has_columns(item: object) -> TypeGuard[ColumnCollectionConstraint | Index]:
    return isinstance(item, ColumnCollectionConstraint | Index) and item.name is not None


def name_in_database(constraint: Constraint | Index) -> str:
    """The name, shortened as SQLAlchemy does where it is longer than 63 characters."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    return str(dialect.identifier_preparer.format_constraint(constraint)).strip('"')
