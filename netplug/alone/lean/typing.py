"""`typing`: names for annotations, which nobody evaluates, and the few that are read back.

Classes and `|` are Python's own; here are Literal, unions with it, and `get_type_hints`.
"""

from __future__ import annotations

import sys
from collections import namedtuple
from types import UnionType

from netplug.alone.lean import from_real

TYPE_CHECKING = False


class _Name:
    """Any, IO, TypeVar("T"): stands in an annotation."""

    def __init__(self, name: str, **_: object) -> None:
        self.__name__ = name

    def __repr__(self) -> str:
        return self.__name__

    def __getitem__(self, arguments: object) -> _Form:
        return _Form(self, arguments if isinstance(arguments, tuple) else (arguments,))

    def __or__(self, other: object) -> _Form:
        return _unite(self, other)

    def __ror__(self, other: object) -> _Form:
        return _unite(other, self)


class _Form:
    """Literal["a", "b"], or a union that Python's own `|` does not make."""

    def __init__(self, origin: object, arguments: tuple[object, ...]) -> None:
        self.__origin__, self.__args__ = origin, arguments

    def __repr__(self) -> str:
        return f"{self.__origin__}{list(self.__args__)}"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Form)
            and self.__origin__ is other.__origin__
            and self.__args__ == other.__args__
        )

    def __hash__(self) -> int:
        return hash(self.__args__)

    def __or__(self, other: object) -> _Form:
        return _unite(self, other)

    def __ror__(self, other: object) -> _Form:
        return _unite(other, self)


def _unite(*members: object) -> _Form:
    found: list[object] = []
    for member in members:
        inner = get_args(member) if get_origin(member) in (Union, UnionType) else (member,)
        found += [type(None) if one is None else one for one in inner]
    return _Form(Union, tuple(dict.fromkeys(found)))


TypeVar = _Name
Any, IO, Literal, ClassVar, Union = map(_Name, ("Any", "IO", "Literal", "ClassVar", "Union"))
NoReturn, Self = _Name("NoReturn"), _Name("Self")


class Protocol:
    """A base class without a meaning at run time."""

    def __class_getitem__(cls, _: object) -> type[Protocol]:
        return cls


def runtime_checkable(cls: type) -> type:
    return cls


def assert_never(value: object) -> None:
    raise AssertionError(f"Expected code to be unreachable, but got: {value!r}")


class _TupleClass(type):
    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, object]) -> type:
        if not bases:
            return super().__new__(cls, name, bases, namespace)
        fields = namespace.pop("__annotations__")
        assert isinstance(fields, dict)
        return type(name, (namedtuple(name, fields),), {"__slots__": (), **namespace})


class NamedTuple(metaclass=_TupleClass):
    """A tuple with named fields, of which none has a default."""


def get_origin(hint: object) -> object:
    if isinstance(hint, UnionType):
        return UnionType
    return getattr(hint, "__origin__", None)


def get_args(hint: object) -> tuple[object, ...]:
    found: tuple[object, ...] = getattr(hint, "__args__", ())
    return found


def get_type_hints(kind: type) -> dict[str, object]:
    """The hints of a class and its bases, as objects."""
    hints: dict[str, object] = {}
    for base in reversed(kind.__mro__):
        names = vars(sys.modules[base.__module__])
        for name, text in vars(base).get("__annotations__", {}).items():
            hints[name] = eval(text, names) if isinstance(text, str) else text
    return hints


def __getattr__(name: str) -> object:
    return from_real("typing", name)
