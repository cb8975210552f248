"""Logs: one format for all loggers, on stderr."""

import logging
import re
import sys

import structlog
from structlog.contextvars import merge_contextvars
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import JSONRenderer, TimeStamper, format_exc_info
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name
from structlog.typing import EventDict, Processor, WrappedLogger

# An error of the database: its kind, and a message that may quote a value.
DATABASE_ERROR = re.compile(
    r"((?:asyncpg|psycopg|sqlalchemy\.dialects)\.[\w.]+:|sqlalchemy\.exc\.\w+: \([\w.]+\)) "
    r"(.*?)(?=\n[ |]*\[SQL: |\n[ |]*\n[ |]*(?:The above|During handling of the above) |\Z)",
    re.DOTALL,
)
# The kinds of asyncpg whose first line names columns, tables and constraints only.
SAFE = re.compile(
    r"asyncpg\.exceptions\.(Undefined|Ambiguous|Duplicate|Interface|\w+Violation|\w+Privilege)"
)
# A value that pydantic quotes, in the two forms of its errors.
INPUTS = re.compile(r"('input': |input_value=).*")
QUERY = re.compile(r'("WebSocket [^?"]*)\?.*(?=" )')  # uvicorn logs it, and it may hold a token


def configure() -> None:
    """Take over the logging of uvicorn, if it is the server that imported the application.

    uvicorn's `--log-level` applies to every logger, `--no-access-log` to `app.access`, and
    with a `--log-config` nothing changes. In tests and in Alembic nothing changes either.
    """
    server, access = logging.getLogger("uvicorn"), logging.getLogger("uvicorn.access")
    makers = {type(handler.formatter).__module__.split(".")[0] for handler in server.handlers}
    if makers & {"uvicorn", "fastapi_cli"}:
        logging.getLogger("app.access").disabled = not access.handlers
        take_over(logging.getLogger("uvicorn.error").getEffectiveLevel())


def take_over(level: int | str = "INFO") -> None:
    """Replace all handlers that write to a stream by one. Handlers of other kinds stay.

    Under gunicorn or granian, call it in `create_app()` in place of `configure()`. In a
    program without a server, such as a worker, call it first.
    """
    for logger in (logging.root, *map(logging.getLogger, list(logging.root.manager.loggerDict))):
        kept = [item for item in logger.handlers if type(item) is not logging.StreamHandler]
        if kept != logger.handlers:
            logger.handlers = kept
            logger.propagate = not logger.name.endswith(".access")  # its lines show the query
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(in_terminal=sys.stderr.isatty()))
    logging.root.addHandler(handler)
    logging.root.setLevel(level)
    format_arguments = structlog.stdlib.PositionalArgumentsFormatter()
    structlog.configure(
        processors=[format_arguments, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def formatter(*, in_terminal: bool) -> logging.Formatter:
    """Return a formatter to JSON lines, or to readable text. Tracebacks show no variables."""
    renderer: Processor = JSONRenderer()
    if in_terminal:
        renderer = ConsoleRenderer(exception_formatter=plain_traceback, sort_keys=False)
    return ProcessorFormatter(
        foreign_pre_chain=[ExtraAdder(), tidy],
        processors=[
            merge_contextvars,
            add_logger_name,
            add_log_level,
            TimeStamper(fmt="iso"),
            format_exc_info,
            hide_values,
            ProcessorFormatter.remove_processors_meta,
            renderer,
        ],
    )


def tidy(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Remove a WebSocket's query, a line feed at the end, and copies of the message."""
    event["event"] = QUERY.sub(r"\1", event["event"]).rstrip()
    for name in ("asctime", "color_message", "message"):
        event.pop(name, None)
    return event


def hide_values(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Remove from a traceback what the database and pydantic quote: rows and arguments."""
    if "exception" in event:
        text = DATABASE_ERROR.sub(hide_message, event["exception"])
        event["exception"] = INPUTS.sub(r"\1(hidden)", text)
    return event


def hide_message(error: re.Match[str]) -> str:
    kind, message = error.groups()
    return f"{kind} {message.splitlines()[0] if SAFE.match(kind) else '(hidden)'}"
