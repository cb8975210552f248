"""The engine on asyncpg: its pool, its time limits, and lost connections."""

import asyncio
import math
import socket
from typing import Any

import asyncpg
from sqlalchemy import ExceptionContext, event, func, select
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from .asyncpg_url import asyncpg_arguments
from .settings import DatabaseSettings
from .urls import ConfigurationError

# Seconds: the wait for a free connection of the pool; the wait for a new connection; the age at
# which a connection is replaced, so that the pool follows a failover; and the time that a
# response may take beyond the statement timeout.
POOL_TIMEOUT = 5
CONNECT_TIMEOUT = 5
POOL_RECYCLE = 1800
GRACE = 5
# A vanished peer is noticed within a minute, even when nothing is sent.
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}

NO_ANSWER = "no answer in time"  # asyncio's TimeoutError has no message


class DatabaseUnavailable(Exception):
    """The database cannot be reached, or does not answer in time."""


def create_engine(
    settings: DatabaseSettings, application_name: str = "", **options: Any
) -> AsyncEngine:
    """Return an engine that connects on first use. `options` replace those of its pool.

    `application_name` is shown in PostgreSQL's `pg_stat_activity` and log.
    """
    url = settings.database_url
    if application_name:
        url = url.set(query={"application_name": application_name, **url.query})
    try:
        url, arguments = asyncpg_arguments(url)
    except OSError as error:
        raise ConfigurationError(f"DATABASE_URL names a certificate: {error}") from None
    pool = {
        "pool_size": settings.database_pool_size,
        "max_overflow": 0,
        "pool_timeout": POOL_TIMEOUT,
        "pool_recycle": POOL_RECYCLE,
    }
    engine = create_async_engine(
        url,
        connect_args={**connect_arguments(settings), **arguments},
        hide_parameters=True,  # in logged statements
        **(options or pool),
    )
    event.listen(engine.sync_engine, "do_connect", on_connect)
    event.listen(engine.sync_engine, "checkout", discard_closed)
    event.listen(engine.sync_engine, "checkin", restore_limit)
    event.listen(engine.sync_engine, "handle_error", discard_on_timeout)
    return engine


def connect_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    """Return the arguments of asyncpg that are not in the URL.

    The client's limit on a statement is longer than the server's: it ends the wait for a
    server that answers nothing at all.
    """
    limit = settings.database_statement_timeout_seconds
    arguments = {"timeout": CONNECT_TIMEOUT, "connection_class": Connection}
    if settings.database_pooler == "none":
        idle = settings.database_idle_in_transaction_timeout_seconds
        return arguments | {
            "server_settings": {
                "statement_timeout": milliseconds(limit),
                "idle_in_transaction_session_timeout": milliseconds(idle),
            },
            "command_timeout": limit + GRACE if limit else None,
        }
    # Behind a pooler each transaction may run on another server connection. So no statement
    # stays prepared, and no limit is set, which would affect the pooler's other clients.
    return arguments | {
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "command_timeout": limit or None,
    }


def milliseconds(seconds: float) -> str:
    """Return a time as PostgreSQL reads it, rounded up, because 0 means no limit."""
    return f"{math.ceil(seconds * 1000)}ms"


class Connection(asyncpg.Connection):  # type: ignore[misc] # asyncpg ships no types
    """A connection with TCP keepalive, so that a vanished peer is noticed."""

    def __init__(self, protocol: Any, transport: asyncio.Transport, *args: Any) -> None:
        super().__init__(protocol, transport, *args)
        peer = transport.get_extra_info("socket")
        if peer.family in (socket.AF_INET, socket.AF_INET6):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option in KEEPALIVE.keys() & vars(socket):  # macOS lacks one
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), KEEPALIVE[option])
        self.default: Any = self._config

    def limit(self, seconds: float) -> None:
        """Set the client's limit on a statement. The pool restores it."""
        limit = seconds + GRACE if seconds else None
        self._config: Any = self.default._replace(command_timeout=limit)


def on_connect(dialect: Any, record: object, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Connect, and turn every failure into DatabaseUnavailable."""
    try:
        return dialect.connect(*args, **kwargs)
    except (OSError, dialect.loaded_dbapi.Error) as error:
        raise DatabaseUnavailable(str(error) or NO_ANSWER) from error


def discard_closed(connection: Any, *_: object) -> None:
    """Make the pool replace a connection that the server closed. Costs no round trip."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def restore_limit(connection: Any, *_: object) -> None:
    """End what limit_statements() set on a connection that returns to the pool."""
    if connection:  # None if it was lost
        connection.driver_connection._config = connection.driver_connection.default


async def limit_statements(session: AsyncSession, seconds: float) -> None:
    """Give this transaction another limit on a statement than the settings have; 0 is none."""
    setting = func.set_config("statement_timeout", milliseconds(seconds), True)
    await session.execute(select(setting))
    connection = await (await session.connection()).get_raw_connection()
    connection.driver_connection.limit(seconds)  # type: ignore[union-attr] # it is connected


def discard_on_timeout(context: ExceptionContext) -> None:
    """On a timeout, mark all pooled connections as dead. SQLAlchemy marks only this one."""
    error = context.original_exception
    if isinstance(error, TimeoutError):
        context.invalidate_pool_on_disconnect = True
        raise DatabaseUnavailable(NO_ANSWER) from error
