"""Logs: the lines of every logger in one form on stderr."""

import logging
import re
import sys

import structlog
from structlog.contextvars import get_contextvars, merge_contextvars
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import JSONRenderer, TimeStamper, format_exc_info
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name
from structlog.typing import EventDict, Processor, WrappedLogger

# What a record has by itself or by another formatter, beside what it was given as `extra`.
STANDARD = vars(logging.makeLogRecord({})).keys() | {"asctime", "message"}

stamp = TimeStamper(fmt="iso")
render: Processor = JSONRenderer()

# What the database quotes, up to where an exception's message ends.
VALUES = re.compile(
    r"(DETAIL:|invalid input [^:\n]*:).*?"
    r"(?=\n\[SQL: |\n\nThe above exception |\n\nDuring handling |\Z)",
    re.DOTALL,
)
# What pydantic quotes, in the order of its two ways to print an error.
INPUTS = re.compile(r"('input': |input_value=).*")


def configure() -> None:
    """Take over from uvicorn, in whose process the application was imported.

    Its `--log-level` is everybody's, `--no-access-log` holds for `app.access`, and
    with a `--log-config` of its own nothing is changed. Where there is no such server,
    in tests or in Alembic, logging is left alone.
    """
    server, access = logging.getLogger("uvicorn"), logging.getLogger("uvicorn.access")
    makers = {type(handler.formatter).__module__.split(".")[0] for handler in server.handlers}
    if not makers & {"uvicorn", "fastapi_cli"}:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(in_terminal=sys.stderr.isatty()))
    server.handlers = [handler]
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.getLogger("uvicorn.error").getEffectiveLevel())
    logging.getLogger("app.access").disabled = not access.handlers
    access.handlers = []  # it would log the query, which may hold a token
    structlog.configure(
        processors=[
            structlog.stdlib.PositionalArgumentsFormatter(),
            ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


class JSONLines(ProcessorFormatter):
    """One line of JSON. A request's passes no general processors, which halves its cost."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name != "app.access":
            return super().format(record)
        extra = {name: value for name, value in vars(record).items() if name not in STANDARD}
        about = {"logger": record.name, "level": record.levelname.lower()}
        event = get_contextvars() | {"event": record.msg, **extra, **about}
        return str(render(record, "", stamp(record, "", event)))


def formatter(*, in_terminal: bool) -> logging.Formatter:
    """One line of JSON, or what is easier to read; a traceback shows no local variables."""
    kind: type[ProcessorFormatter] = JSONLines
    renderer = render
    if in_terminal:
        kind = ProcessorFormatter
        renderer = ConsoleRenderer(exception_formatter=plain_traceback, sort_keys=False)
    return kind(
        foreign_pre_chain=[ExtraAdder(), tidy],
        processors=[
            merge_contextvars,
            add_logger_name,
            add_log_level,
            stamp,
            format_exc_info,
            hide_values,
            ProcessorFormatter.remove_processors_meta,
            renderer,
        ],
    )


def tidy(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Without a line feed at the end, or copies of the message, which uvicorn has in colour."""
    event["event"] = event["event"].rstrip()
    for name in ("asctime", "color_message", "message"):
        event.pop(name, None)
    return event


def hide_values(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A traceback without the values of a row or an argument."""
    if "exception" in event:
        text = VALUES.sub(r"\1 (hidden)", event["exception"])
        event["exception"] = INPUTS.sub(r"\1(hidden)", text)
    return event
