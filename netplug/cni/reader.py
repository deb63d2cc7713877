"""Reads fields of foreign JSON objects; a wrong one is a ConfigError that names its path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from netplug.cni.golang import kind_of, shown
from netplug.errors import ConfigError

T = TypeVar("T")
UINT32 = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Reader:
    """`where` is the top of every path; `at` below is the path of the object that is read.

    Absent fields give "", None or (); fields of another type raise ConfigError.
    """

    where: str

    def path(self, *parts: str) -> str:
        return ".".join(filter(None, (self.where, *parts)))

    def wrong(self, path: str, value: Any, rule: str, hint: str = "") -> ConfigError:
        return ConfigError(
            f"{self.path(path)} is wrong",
            f"{shown(value)} {rule}",
            hint or f"correct {self.path(path)}",
        )

    def mapping(self, value: Any, path: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self.wrong(path, value, f"is {kind_of(value)}, not an object")
        return value

    def text(self, entry: Mapping[str, Any], key: str, at: str = "") -> str:
        value = entry.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.wrong(join(at, key), value, f"is {kind_of(value)}, not a string")
        return value

    def texts(self, entry: Mapping[str, Any], key: str, at: str = "") -> tuple[str, ...]:
        found = []
        for path, item in self.items(entry, key, at):
            if not isinstance(item, str):
                raise self.wrong(path, item, f"is {kind_of(item)}, not a string")
            found.append(item)
        return tuple(found)

    def number(
        self, entry: Mapping[str, Any], key: str, at: str = "", *, most: int = UINT32
    ) -> int | None:
        value = entry.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(join(at, key), value, f"is {kind_of(value)}, not a whole number")
        if not 0 <= value <= most:
            raise self.wrong(join(at, key), value, f"is not between 0 and {most}")
        return value

    def items(self, entry: Mapping[str, Any], key: str, at: str = "") -> Iterator[tuple[str, Any]]:
        """(path, item) for each item of a list."""
        value = entry.get(key)
        if value is None:
            return
        if not isinstance(value, list):
            raise self.wrong(join(at, key), value, f"is {kind_of(value)}, not a list")
        for index, item in enumerate(value):
            yield f"{join(at, key)}[{index}]", item

    def optional(
        self, parse: Callable[[str], T], entry: Mapping[str, Any], key: str, at: str = ""
    ) -> T | None:
        """The parsed text of a field; None where it is absent or empty."""
        text = self.text(entry, key, at)
        return self.parse(parse, text, join(at, key)) if text else None

    def required(
        self, parse: Callable[[str], T], entry: Mapping[str, Any], key: str, at: str = ""
    ) -> T:
        return self.parse(parse, self.text(entry, key, at), join(at, key))

    def parse(self, parse: Callable[[str], T], value: Any, path: str) -> T:
        if not isinstance(value, str):
            raise self.wrong(path, value, f"is {kind_of(value)}, not a string")
        try:
            return parse(value)
        except ValueError as error:
            raise self.wrong(path, value, f"cannot be read: {error}") from None


def join(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key
