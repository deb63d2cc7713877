"""`dataclasses`: frozen, slotted classes at little cost, with the same behaviour.

Nothing is compiled here: the text of each `__init__` is looked up in `compiled`, which the
bundle brings along, and the other methods are the same functions for all classes. The real
one compiles six functions for each class, and makes the text of a docstring by `inspect`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from types import CodeType
from typing import Any

from netplug.alone.lean import from_real, real

MISSING: Any = type("MISSING", (), {})()
FACTORY: Any = type("FACTORY", (), {})()  # the argument was left out: call the factory
compiled: dict[str, CodeType] = {}  # by text


class FrozenInstanceError(AttributeError):
    pass


class Field:
    """One field of a class, as `dataclasses.Field`."""

    def __init__(
        self,
        *,
        default: Any = MISSING,
        default_factory: Any = MISSING,
        init: bool = True,
        repr: bool = True,
        hash: bool | None = None,
        compare: bool = True,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.name = self.type = ""
        self.default, self.default_factory, self.init = default, default_factory, init
        self.repr, self.hash, self.compare = repr, hash, compare
        self.metadata = metadata or {}


field = Field


def dataclass(
    *, frozen: bool = False, slots: bool = False, **other: bool
) -> Callable[[type], type]:
    """The one kind of dataclass that netplug has; any other is made by the real one."""
    if other or not (frozen and slots):
        made: Callable[[type], type] = real("dataclasses").dataclass(
            frozen=frozen, slots=slots, **other
        )
        return made
    return _make


def _make(cls: type) -> type:
    namespace = dict(cls.__dict__)
    inherited = [getattr(base, "__dataclass_fields__", {}) for base in reversed(cls.__mro__[1:])]
    own = dict(_own_fields(namespace))
    fields = {name: one for more in (*inherited, own) for name, one in more.items()}
    for name in ("__dict__", "__weakref__"):
        namespace.pop(name, None)
    kept = [one for one in fields.values() if one.compare]
    hashed = [one for one in fields.values() if (one.compare if one.hash is None else one.hash)]
    namespace |= {
        "__slots__": tuple(own),
        "__dataclass_fields__": fields,
        "__match_args__": tuple(name for name, one in fields.items() if one.init),
        "__init__": _init(cls, fields),
        "__setattr__": _set,
        "__delattr__": _delete,
    }
    namespace.setdefault("__repr__", _represent)
    if "__eq__" not in namespace:
        namespace["__eq__"] = _equal_by(_values(kept))
        namespace["__hash__"] = _hash_by(_values(hashed))
    return type(cls)(cls.__name__, cls.__bases__, namespace)


def _own_fields(namespace: dict[str, Any]) -> Iterable[tuple[str, Field]]:
    for name, hint in namespace.get("__annotations__", {}).items():
        if hint.startswith("ClassVar"):
            continue
        default = namespace.pop(name, MISSING)
        one = default if isinstance(default, Field) else Field(default=default)
        one.name, one.type = name, hint
        yield name, one


def _init(cls: type, fields: dict[str, Field]) -> Any:
    text = "".join(_init_lines(fields, after=hasattr(cls, "__post_init__")))
    if text not in compiled:
        compiled[text] = compile(text, "<record>", "exec", optimize=2)
    scope: dict[str, Any] = {"put": object.__setattr__, "FACTORY": FACTORY}
    for name, one in fields.items():
        scope[f"default_{name}"] = one.default
        scope[f"make_{name}"] = one.default_factory
    exec(compiled[text], scope)
    made = scope["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    made.__module__ = cls.__module__
    return made


def _init_lines(fields: dict[str, Field], *, after: bool) -> Iterable[str]:
    words = ["self"]
    for name, one in fields.items():
        if one.init:
            default = f"=default_{name}" if one.default is not MISSING else ""
            words.append(name + ("=FACTORY" if one.default_factory is not MISSING else default))
    yield f"def __init__({', '.join(words)}):\n"
    yield " pass\n"
    for name, one in fields.items():
        value = name if one.init else f"default_{name}"
        if one.default_factory is not MISSING:
            value = f"make_{name}() if {name} is FACTORY else {name}" if one.init else value
        yield f" put(self, {name!r}, {value})\n"
    if after:
        yield " self.__post_init__()\n"


# --- methods


def _set(self: object, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete(self: object, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _represent(self: Any) -> str:
    shown = ", ".join(
        f"{name}={getattr(self, name)!r}"
        for name, one in self.__dataclass_fields__.items()
        if one.repr
    )
    return f"{type(self).__qualname__}({shown})"


def _values(fields: Iterable[Field]) -> Callable[[Any], Any]:
    names = [one.name for one in fields]
    return attrgetter(*names) if names else lambda _: ()


def _equal_by(values: Callable[[Any], Any]) -> Any:
    def equal(self: object, other: object) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self is other or values(self) == values(other)

    return equal


def _hash_by(values: Callable[[Any], Any]) -> Any:
    def hash_of(self: object) -> int:
        return hash(values(self))

    return hash_of


# --- functions


def is_dataclass(value: Any) -> bool:
    """A dataclass, or an instance of one."""
    return hasattr(value if isinstance(value, type) else type(value), "__dataclass_fields__")


def fields(value: Any) -> tuple[Field, ...]:
    """The fields of a dataclass or of an instance of one."""
    return tuple(value.__dataclass_fields__.values())


def replace(value: Any, /, **changes: Any) -> Any:
    """A new one with the changes."""
    for name, one in value.__dataclass_fields__.items():
        if one.init and name not in changes:
            changes[name] = getattr(value, name)
    return value.__class__(**changes)


def __getattr__(name: str) -> Any:
    return from_real("dataclasses", name)
