"""`json`, by the C code of the real one; texts that are wrong are left to the real one.

Its Python code wants `re` for what the C code does as well.
"""

from __future__ import annotations

from _json import encode_basestring_ascii, make_encoder, make_scanner
from collections.abc import Callable, Iterator
from typing import Any

from netplug.alone.lean import from_real, real

BLANK = " \t\n\r"


class _Context:
    """What the scanner asks of a decoder (`json.JSONDecoder`)."""

    strict = True

    def __init__(
        self,
        object_hook: Any = None,
        object_pairs_hook: Any = None,
        parse_float: Any = None,
        parse_int: Any = None,
        parse_constant: Any = None,
    ) -> None:
        self.object_hook, self.object_pairs_hook = object_hook, object_pairs_hook
        self.parse_float, self.parse_int = parse_float or float, parse_int or int
        self.parse_constant = parse_constant or _CONSTANTS.__getitem__
        self.memo: dict[str, str] = {}


_CONSTANTS = {"-Infinity": float("-inf"), "Infinity": float("inf"), "NaN": float("nan")}


def loads(text: str | bytes, **hooks: Any) -> Any:
    if isinstance(text, str):
        try:
            start = len(text) - len(text.lstrip(BLANK))
            value, end = make_scanner(_Context(**hooks))(text, start)  # type: ignore[arg-type]
            if not text[end:].strip(BLANK):
                return value
        except (StopIteration, ImportError, SystemError):
            pass  # wrong; the C code finds no json.decoder to say so
    return real("json").loads(text, **hooks)


def dumps(
    value: Any,
    *,
    default: Callable[[Any], Any] | None = None,
    sort_keys: bool = False,
    indent: int | None = None,
) -> str:
    if indent is not None and isinstance(value, dict | list | tuple):
        return "".join(_indented(value, "\n", " " * indent))
    encode = make_encoder(
        {}, default or _refuse, encode_basestring_ascii, None, ": ", ", ", sort_keys, False, True
    )
    return "".join(encode(value, 0))


def _indented(value: Any, line: str, step: str) -> Iterator[str]:
    """One item in each line. `line` begins a line of the depth that `value` is at."""
    if not value or not isinstance(value, dict | list | tuple):
        yield dumps(value)
        return
    named = isinstance(value, dict)
    comma = ""
    yield "{" if named else "["
    for item in value:
        yield f"{comma}{line}{step}"
        comma = ","
        if named:
            yield f"{dumps(item)}: "
        yield from _indented(value[item] if named else item, line + step, step)
    yield line + ("}" if named else "]")


def _refuse(value: Any) -> Any:
    raise TypeError(f"Object of type {value.__class__.__name__} is not JSON serializable")


def __getattr__(name: str) -> Any:
    return from_real("json", name)
