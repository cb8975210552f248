"""The meaning of PostgreSQL's errors for a client: a status, a sentence, the fields."""

from typing import Any

import asyncpg
from sqlalchemy import exc, orm
from sqlalchemy.dialects import postgresql

from .base import Base
from .engine import DatabaseUnavailable, OutcomeUnknown

# The exceptions for explain(), from SQLAlchemy or from asyncpg itself.
DATABASE_ERRORS: tuple[type[Exception], ...] = (
    *(DatabaseUnavailable, exc.DBAPIError, exc.TimeoutError, orm.exc.StaleDataError),
    *(asyncpg.PostgresError, asyncpg.InterfaceError),
)
PREPARER = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]

UNSTORABLE = "A value is too large, or has a character that cannot be stored."
UNAVAILABLE = "The database cannot be reached."
CONTENDED = "Others are changing the same rows; try again."
UNKNOWN = "The connection was lost. Read whether the change was stored, then retry."

# By SQLSTATE or by its class, its first two characters. Any other SQLSTATE is a bug: a 500.
MEANINGS = {
    "02000": (409, "Another request has changed it meanwhile."),
    "08": (503, UNAVAILABLE),
    "08007": (503, UNKNOWN),
    "22000": (422, UNSTORABLE),  # bounds of a range in the wrong order
    "22001": (422, UNSTORABLE),  # longer than varchar(n)
    "22003": (422, UNSTORABLE),  # out of range
    "22021": (422, UNSTORABLE),  # NUL in text
    "22P05": (422, UNSTORABLE),  # NUL in jsonb
    "23001": (409, "Another record still refers to it by {fields}."),  # ON DELETE RESTRICT
    "23503": (409, "This {fields} refers to a record that does not exist."),  # foreign key
    "23505": (409, "Another record has this {fields}."),  # unique
    "23514": (422, "This {fields} breaks a rule."),  # CHECK
    "23P01": (409, "This {fields} conflicts with another record."),  # EXCLUDE
    "25006": (503, "The database takes no changes now."),  # a standby before its promotion
    "40001": (503, CONTENDED),  # serialization failure
    "40P01": (503, CONTENDED),  # deadlock
    "53": (503, "The database is busy."),
    "54000": (422, UNSTORABLE),  # too long for an index
    "55P03": (503, CONTENDED),  # lock_timeout
    "57": (503, UNAVAILABLE),  # stopping or starting
    "57014": (504, "The server took too long to answer."),  # statement_timeout
}


def explain(error: Exception, method: str) -> tuple[int, str, list[str]] | None:
    """Return status, sentence and fields for the client, without SQL or values; None for a bug."""
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
    if isinstance(error, OutcomeUnknown):
        return "08007"
    if isinstance(error, DatabaseUnavailable) or getattr(error, "connection_invalidated", False):
        return "08006"
    match driver_error(error):
        case asyncpg.InterfaceError() as found if "closed" in str(found):
            return "08006"  # others are bugs
        case asyncpg.DataError(__cause__=OverflowError() | UnicodeError()):
            return "22003"  # in the client's encoder
        case asyncpg.DataError(severity=None):
            return ""  # also there: a value of the wrong Python type
        case asyncpg.InvalidCachedStatementError():
            return "40001"  # a migration changed the type of a column: the next attempt works
        case exc.TimeoutError():  # the pool's
            return "53300"
        case orm.exc.StaleDataError():  # no row has the id and the version
            return "02000"
        case asyncpg.ForeignKeyViolationError():
            # In COMMIT, where a deferred constraint fails, only the request's method is known.
            statement = getattr(error, "statement", None) or method
            return "23001" if statement.startswith("DELETE") else "23503"
        case asyncpg.PostgresError(sqlstate=str(state)):
            return state
    return ""


def driver_error(error: Exception) -> Exception:
    """Return asyncpg's own error, which SQLAlchemy wraps twice."""
    # `driver_exception` is not set for InvalidCachedStatementError.
    cause = getattr(getattr(error, "orig", None), "__cause__", None)
    return cause if isinstance(cause, Exception) else error


def violated_fields(error: Exception) -> list[str]:
    """Return the model's names for the columns of the violated constraint."""
    violation = driver_error(error)
    if not isinstance(violation, asyncpg.IntegrityConstraintViolationError):
        return []
    tables, name = Base.metadata.tables, violation.table_name
    table = tables.get(f"{violation.schema_name}.{name}", tables.get(name))
    constraints: list[Any] = [] if table is None else [*table.constraints, *table.indexes]
    for constraint in constraints:
        # The name in the database, which SQLAlchemy shortens to 63 characters.
        stored = str(constraint.name and PREPARER.format_constraint(constraint)).strip('"')
        if stored == violation.constraint_name:
            mappers = Base.registry.mappers
            attributes = {column: key for mapper in mappers for key, column in mapper.c.items()}
            return [attributes.get(column, column.name) for column in constraint.columns]
    return []
