"""Sessions: one that writes in a transaction, one that only reads."""

from typing import Any, Never

from sqlalchemy import event, orm
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, async_sessionmaker


class ReadOnlyViolation(Exception):
    """A read-only session was asked for something other than SELECT."""


class ReadOnlySession(orm.Session):
    """A session that runs SELECT only.

    It refuses text(). It does not notice a write inside a select(): a function, a changing CTE.
    """

    def connection(self, *args: Any, **kwargs: Any) -> Never:
        raise ReadOnlyViolation("a read-only session has no connection(): use Session")

    bulk_save_objects = bulk_insert_mappings = bulk_update_mappings = connection


@event.listens_for(ReadOnlySession, "do_orm_execute")
def refuse_all_but_select(state: orm.ORMExecuteState) -> None:
    if not state.is_select:
        raise ReadOnlyViolation("a read-only session runs SELECT only: use Session to write")


@event.listens_for(ReadOnlySession, "before_flush")
def refuse_flush(session: orm.Session, *_: object) -> None:
    raise ReadOnlyViolation("a read-only session flushes nothing: use Session to write")


class Database:
    """Both kinds of session, on one engine or, in tests, on one connection.

    `sessions.begin()` is one transaction: committed at its end, rolled back on any
    exception. `read_sessions()` sends each SELECT alone in autocommit, one round trip.
    """

    def __init__(self, bind: AsyncEngine | AsyncConnection) -> None:
        # On a connection that is already in a transaction, commit and rollback end
        # savepoints. The caller ends its transaction.
        self.sessions = async_sessionmaker(
            bind, expire_on_commit=False, join_transaction_mode="create_savepoint"
        )
        autocommit = {"isolation_level": "AUTOCOMMIT"} if isinstance(bind, AsyncEngine) else {}
        self.read_sessions = async_sessionmaker(
            bind,
            expire_on_commit=False,
            sync_session_class=ReadOnlySession,
            execution_options=autocommit,
        )
