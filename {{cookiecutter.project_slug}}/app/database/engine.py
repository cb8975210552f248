"""The engine on asyncpg: its pool, its time limits, and lost connections."""

import math
import socket
from typing import Any

from asyncpg import QueryCanceledError
from sqlalchemy import ExceptionContext, event, exc, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from .asyncpg_url import asyncpg_arguments
from .settings import DatabaseSettings
from .urls import ConfigurationError

CONNECT_TIMEOUT = 5  # seconds
GRACE = 5  # seconds: the client's limit on a statement is longer than the server's
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}

NO_ANSWER = "no answer in time"  # asyncio's TimeoutError has no message


class DatabaseUnavailable(Exception):
    """The database cannot be reached, or does not answer in time."""


class OutcomeUnknown(DatabaseUnavailable):
    """The connection was lost during COMMIT: the change may be stored, or not."""


def create_engine(
    settings: DatabaseSettings, application_name: str = "", **options: Any
) -> AsyncEngine:
    """Return an engine that connects on first use. `options` replace those of its pool."""
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
        "pool_timeout": 5,  # seconds to wait for a free connection
        "pool_recycle": 1800,  # seconds, so that the pool follows a failover
    }
    engine = create_async_engine(
        url,
        connect_args={**connect_arguments(settings), **arguments},
        hide_parameters=True,  # in logged statements
        **(options or pool),
    )
    event.listen(engine.sync_engine, "do_connect", on_connect)
    event.listen(engine.sync_engine, "checkout", on_checkout)
    event.listen(engine.sync_engine, "handle_error", lambda it: on_timeout(it, settings))
    return engine


def connect_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    """Return the arguments of asyncpg that are not in the URL."""
    limit = settings.database_statement_timeout_seconds
    if settings.database_pooler != "none":
        # Each transaction may run on another server connection. So no statement stays
        # prepared, and no limit is set, which would affect the pooler's other clients.
        unprepared = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
        return unprepared | {"timeout": CONNECT_TIMEOUT, "command_timeout": limit or None}
    idle = settings.database_idle_in_transaction_timeout_seconds
    return {
        "timeout": CONNECT_TIMEOUT,
        "command_timeout": limit + GRACE if limit else None,  # if the server does not answer
        "server_settings": {
            "lock_timeout": milliseconds(settings.database_lock_timeout_seconds),
            "statement_timeout": milliseconds(limit),
            "idle_in_transaction_session_timeout": milliseconds(idle),
        },
    }


def milliseconds(seconds: float) -> str:
    """Return a time as PostgreSQL reads it, rounded up, because 0 means no limit."""
    return f"{math.ceil(seconds * 1000)}ms"


def on_connect(dialect: Any, record: object, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Connect, and turn every failure into DatabaseUnavailable."""
    try:
        connection = dialect.connect(*args, **kwargs)
        keep_alive(connection.driver_connection._transport.get_extra_info("socket"))
    except (OSError, dialect.loaded_dbapi.Error) as error:
        raise DatabaseUnavailable(str(error) or NO_ANSWER) from error
    return connection


def keep_alive(peer: socket.socket | None) -> None:
    """Notice a vanished peer within a minute, even when nothing is sent."""
    if peer and peer.family in (socket.AF_INET, socket.AF_INET6):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in KEEPALIVE.keys() & vars(socket):  # macOS lacks one
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), KEEPALIVE[option])


def on_checkout(pooled: Any, record: ConnectionPoolEntry, proxy: object) -> None:
    """Replace a connection that the server closed. Undo limit_statements(). No round trip."""
    connection = pooled.driver_connection
    if connection.is_closed():
        raise exc.DisconnectionError
    connection._config = record.info.setdefault("config", connection._config)


async def limit_statements(session: AsyncSession, seconds: float) -> None:
    """Set the statement timeout of this transaction, in seconds. 0 is no limit."""
    setting = func.set_config("statement_timeout", milliseconds(seconds), True)
    await session.execute(select(setting))
    connection: Any = (await (await session.connection()).get_raw_connection()).driver_connection
    limit = seconds + GRACE if seconds else None
    connection._config = connection._config._replace(command_timeout=limit)


def on_timeout(context: ExceptionContext, settings: DatabaseSettings) -> None:
    """Mark all connections as dead, or with a pooler this one, whose statement may be slow."""
    error = context.original_exception
    if isinstance(error, TimeoutError):
        direct = context.invalidate_pool_on_disconnect = settings.database_pooler == "none"
        raise (DatabaseUnavailable if direct else QueryCanceledError)(NO_ANSWER) from error
