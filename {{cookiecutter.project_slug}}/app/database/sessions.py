"""Sessions: one that writes in a transaction, and a reader that holds no connection."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Never, TypeVar, TypeVarTuple

from asyncpg import QueryCanceledError
from sqlalchemy import Executable, Result, ScalarResult, event, exc, orm
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm.interfaces import LoaderOption, ORMOption
from sqlalchemy.sql.selectable import TypedReturnsRows
from sqlalchemy.util.concurrency import greenlet_spawn, in_greenlet

from .engine import DatabaseUnavailable, OutcomeUnknown

T = TypeVar("T")
Columns = TypeVarTuple("Columns")
OneColumn = TypedReturnsRows[T, *tuple[Any, ...]]
Values = dict[str, Any] | None
Bind = AsyncEngine | AsyncConnection

HOW_TO_LOAD = "load it in the query, for instance with .options(selectinload(Class.attribute))"
HOW_TO_REFRESH = "use await session.refresh(object), or eager_defaults in its class"


class ReadOnlyViolation(Exception):
    """A reader was asked for something other than SELECT."""


class NotLoaded(Exception):
    """An attribute was read that its query did not load. Only an `await` can run a query."""


class Reader:
    """Runs SELECTs, each alone in autocommit. `rows` needs one round trip.

    It holds no connection between them, so a stream or a WebSocket may use it at any time.
    Results are buffered and objects are detached. `rows` is the fastest: it makes no objects,
    and a row has the columns by their names in the database. A reader refuses text(). It cannot
    detect a SELECT that writes, by a function or a CTE: such a write is committed.
    """

    def __init__(self, bind: Bind) -> None:
        self.bind = bind
        if isinstance(bind, AsyncEngine):
            self.engine = bind.sync_engine
            self.bind = bind.execution_options(isolation_level="AUTOCOMMIT")

    async def rows(self, select: Executable, values: Values = None) -> Sequence[Any]:
        refuse_all_but_select(select)
        if any(isinstance(option, LoaderOption) for option in select._with_options):
            raise ValueError("rows() ignores selectinload() and its like: use scalars() or get()")
        if isinstance(self.bind, AsyncConnection):  # a test's, in its transaction
            return (await self.bind.execute(select, values)).all()

        def fetch() -> Sequence[Any]:
            with self.engine.connect() as connection:
                driver: Any = connection.connection.dbapi_connection
                driver.autocommit = True  # faster than the engine's isolation_level
                try:
                    return connection.execute(select, values).all()
                finally:
                    driver.autocommit = False

        return await greenlet_spawn(fetch)  # one switch for the whole of it

    async def execute(
        self, select: TypedReturnsRows[*Columns], values: Values = None
    ) -> Result[*Columns]:
        refuse_all_but_select(select)
        async with AsyncSession(self.bind) as session:
            return await session.execute(select, values)

    async def scalars(self, select: OneColumn[T], values: Values = None) -> ScalarResult[T]:
        return (await self.execute(select, values)).scalars()

    async def scalar(self, select: OneColumn[T], values: Values = None) -> T | None:
        return (await self.execute(select, values)).scalar()

    async def get(self, entity: type[T], key: Any, options: Sequence[ORMOption] = ()) -> T | None:
        async with AsyncSession(self.bind) as session:
            return await session.get(entity, key, options=options)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Never:
            raise AttributeError(f"a ReadSession has no {name}: it only reads, use Session")


def refuse_all_but_select(statement: Executable) -> None:
    if not statement.is_select:
        raise ReadOnlyViolation("a ReadSession runs SELECT only: use Session to write")


class WritingSession(orm.Session):
    """A session whose lazy loading raises NotLoaded, where SQLAlchemy raises MissingGreenlet."""


@event.listens_for(WritingSession, "do_orm_execute")
def refuse_lazy_loading(state: orm.ORMExecuteState) -> None:
    if in_greenlet():
        return
    if state.is_relationship_load:
        path: Any = state.loader_strategy_path
        raise NotLoaded(f"{path[-1]} was not loaded: {HOW_TO_LOAD}")
    if state.is_column_load:
        columns: Any = getattr(state._orm_compile_options(), "_only_load_props", None)
        names = " and ".join(sorted(columns or ["A column"]))
        kind = state.all_mappers[0].class_.__name__
        raise NotLoaded(f"{names} of {kind} was not loaded: {HOW_TO_REFRESH}")


def commit(session: orm.Session) -> None:
    """Commit. Raises OutcomeUnknown if the connection is lost meanwhile."""
    session.flush()
    try:
        session.commit()
    except (DatabaseUnavailable, QueryCanceledError, exc.DBAPIError) as error:
        if getattr(error, "connection_invalidated", True):
            raise OutcomeUnknown(str(error)) from error
        raise


class Database:
    """A transaction, `sessions.begin()`, and a `reader`, on one engine or a test's connection."""

    def __init__(self, bind: Bind, probe: Bind | None = None) -> None:
        self.probe = Reader(probe or bind)  # for readiness, even if the pool is in use
        self.sessions = async_sessionmaker(
            bind,
            expire_on_commit=False,
            join_transaction_mode="create_savepoint",  # in the transaction of a connection
            sync_session_class=WritingSession,
            close_resets_only=False,  # used after its end, it would take another connection
        )
        self.reader = Reader(bind)
