"""The agent's log: one event a line, as key=value or as JSON, each with the id of its request.

What a request carries is not logged but for its own names (verb, container, interface,
network): neither its environment, nor its configuration, nor the text of an error, which
may quote either of them. Whatever a caller chose is quoted, so that it makes no line of its own.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

FORMATS = ("text", "json")
VALUE_LIMIT = 1000  # characters; a caller may say anything
_PLAIN = re.compile(r"[A-Za-z0-9_./:@+,\[\]-]+", re.ASCII)
_request: ContextVar[str] = ContextVar("request", default="")
log = logging.getLogger("netplug.agent")


@contextmanager
def request() -> Iterator[str]:
    """A new request's id, which every line that this thread logs meanwhile bears."""
    token = _request.set(secrets.token_hex(6))
    try:
        yield _request.get()
    finally:
        _request.reset(token)


def event(name: str, level: int = logging.INFO, /, **fields: object) -> None:
    """Logs what happened; an error with the exception that is being handled.

    Fields without a value ("" or None) are left out.
    """
    told = {key: value for key, value in fields.items() if value not in ("", None)}
    log.log(level, name, extra={"fields": told}, exc_info=level >= logging.ERROR)


class Formatter(logging.Formatter):
    """Renders a record with its fields as one line."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self._render = json.dumps if form == "json" else render_pairs

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        if identity := _request.get():
            line["request"] = identity
        for key, value in getattr(record, "fields", {}).items():
            line[key] = value if isinstance(value, int | float) else str(value)[:VALUE_LIMIT]
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return self._render(line)


def render_pairs(line: dict[str, object]) -> str:
    """key=value, separated by blanks; a value of other characters is a JSON string."""
    return " ".join(f"{key}={_quoted(str(value))}" for key, value in line.items())


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def configure(form: str) -> None:
    """The process logs to stderr in this form."""
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter(form))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
