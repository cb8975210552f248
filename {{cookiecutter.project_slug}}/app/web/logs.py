"""Logs: one format for all loggers, on stderr."""

import logging
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from json import JSONEncoder

import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import format_exc_info
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict

# An error of the database: its kind, and a message that may quote a value.
DATABASE_ERROR = re.compile(
    r"((?:asyncpg|psycopg|sqlalchemy\.dialects)\.[\w.]+:|sqlalchemy\.exc\.\w+: \([\w.]+\)) "
    r"(.*?)(?=\n[ |]*\[SQL: |\n[ |]*\n[ |]*(?:The above|During handling of the above) |\Z)",
    re.DOTALL,
)
# Attributes of every record, and copies of its message. Others are fields of the line.
COMMON = {*vars(logging.makeLogRecord({})), "asctime", "color_message", "message"} - {"exc_info"}
# The kinds of asyncpg whose first line names columns, tables and constraints only.
SAFE = re.compile(
    r"asyncpg\.exceptions\.(Undefined|Ambiguous|Duplicate|Interface|\w+Violation|\w+Privilege)"
)
# A value that pydantic quotes, in the two forms of its errors.
INPUTS = re.compile(r"('input': |input_value=).*")
QUERY = re.compile(r'("WebSocket [^?"]*)\?.*(?=" )')  # uvicorn logs it, and it may hold a token
context: Callable[[], dict[str, object]] = structlog.contextvars.get_contextvars  # of all lines


def configure() -> None:
    """Take over the logging of uvicorn, if it is the server and has its own configuration."""
    server, access = logging.getLogger("uvicorn"), logging.getLogger("uvicorn.access")
    makers = {type(handler.formatter).__module__.split(".")[0] for handler in server.handlers}
    if makers & {"uvicorn", "fastapi_cli"}:
        logging.getLogger("app.access").disabled = not access.handlers  # --no-access-log
        take_over(logging.getLogger("uvicorn.error").getEffectiveLevel())


def take_over(level: int | str = "INFO") -> None:
    """Replace all handlers that write to a stream by one. For other servers: docs/deploy.md."""
    for logger in (logging.root, *map(logging.getLogger, list(logging.root.manager.loggerDict))):
        kept = [item for item in logger.handlers if type(item) is not logging.StreamHandler]
        if kept != logger.handlers:
            logger.handlers = kept
            logger.propagate = not logger.name.endswith(".access")  # its lines show the query
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter(in_terminal=sys.stderr.isatty()))
    logging.root.addHandler(handler)
    logging.root.setLevel(level)
    format_arguments = structlog.stdlib.PositionalArgumentsFormatter()
    structlog.configure(
        processors=[format_arguments, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


class Formatter(logging.Formatter):
    """JSON lines, or readable text. structlog's ProcessorFormatter would copy each record."""

    def __init__(self, *, in_terminal: bool) -> None:
        super().__init__()
        self.render: Callable[[EventDict], str] = JSONEncoder(default=repr, skipkeys=True).encode
        if in_terminal:
            console = ConsoleRenderer(exception_formatter=plain_traceback, sort_keys=False)
            self.render = partial(console, None, "")

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.msg, dict) and hasattr(record, "_logger"):  # structlog's
            event = record.msg
        else:
            event = {name: value for name, value in vars(record).items() if name not in COMMON}
            event["event"] = QUERY.sub(r"\1", record.getMessage()).rstrip()
            if record.stack_info:
                event["stack_info"] = record.stack_info
        event = context() | event
        event |= {"logger": record.name, "level": record.levelname.lower()}
        event["timestamp"] = datetime.fromtimestamp(record.created, UTC).isoformat()
        return self.render(hide_values(format_exc_info(None, "", event)))


def hide_values(event: EventDict) -> EventDict:
    """Remove from a traceback what the database and pydantic quote: rows and arguments."""
    for key in ("exception", "event"):  # uvicorn logs a failure of the lifespan as its message
        text = str(event.get(key, ""))
        if (text and key == "exception") or "Traceback (most recent " in text:
            event[key] = INPUTS.sub(r"\1(hidden)", DATABASE_ERROR.sub(hide_message, text))
    return event


def hide_message(error: re.Match[str]) -> str:
    kind, message = error.groups()
    return f"{kind} {message.splitlines()[0] if SAFE.match(kind) else '(hidden)'}"
