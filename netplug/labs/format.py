"""lab.yaml -> Lab: its keys, and errors that name key, rule and remedy."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from netplug.errors import ConfigError, InputError
from netplug.fixtures import Topology, import_containerlab, load, parse_topology
from netplug.fixtures.load import SHIPPED
from netplug.fixtures.schema import did_you_mean, parse_yaml
from netplug.labs.checks.base import Check
from netplug.labs.faults.base import Fault
from netplug.labs.vary import Values, compute_values, substitute
from netplug.labs.world import HOST

FILE, TEXT, SOLUTION = "lab.yaml", "text.md", "solution.sh"
NUMBER = re.compile(r"^\d+-")


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _parse_check(value: Any) -> Check:
    """`{reach: {from: red, to: blue}}`: one word, and its keys."""
    if isinstance(value, Check):
        return value
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError("a check is one word with its keys, such as {reach: {from: a, to: b}}")
    from netplug.labs.checks.registry import CHECKS  # late: a bare topology needs none of them

    ((word, keys),) = value.items()
    if word not in CHECKS:
        raise ValueError(f"unknown check {word!r}; {did_you_mean(str(word), CHECKS)}")
    try:
        return CHECKS[word].model_validate(keys if isinstance(keys, dict) else {})
    except ValidationError as error:
        raise ValueError(f"{word}: {explain(error, CHECKS[word])}") from error


def _parse_fault(value: Any) -> Fault:
    """`{port_down: {node: wire, dev: red-eth0}}`: a fault of the catalogue, and its places."""
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError("a fault is one word with its places, such as {lo_down: {node: a}}")
    from netplug.labs.faults.catalogue import FAULTS

    ((word, places),) = value.items()
    if word not in FAULTS:
        raise ValueError(f"unknown fault {word!r}; {did_you_mean(str(word), FAULTS)}")
    wanted = {str(key): str(item) for key, item in dict(places or {}).items()}
    return FAULTS[word].at(wanted)


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem: key, rule, nearest known key. A wrong key explains a missing one."""
    item = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        fields = model.model_fields.items()
        known = [str(field.alias or name) for name, field in fields]
        return f"unknown key {path}; {did_you_mean(str(item['loc'][-1]), known)}"
    if item["type"] == "missing":
        return f"the key {path} is needed"
    if item["type"] == "value_error":
        return f"{path}: {item['ctx']['error']}" if path else str(item["ctx"]["error"])
    return f"{path}: {item['msg']}, found {item['input']!r}"


class Step(_Keys):
    """One thing to do. `task` says it in a sentence; text.md has the rest under `## ID`."""

    id: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    task: str
    check: tuple[Annotated[Check, BeforeValidator(_parse_check)], ...]
    hint: str = ""


class Source(_Keys):
    """A shipped topology with words replaced, such as its subnet."""

    name: str
    replace: dict[str, str] = {}


class Faults(_Keys):
    """What is broken at the start: `pick` of them, chosen by the seed."""

    pick: int = Field(default=1, ge=1)
    of: tuple[Annotated[Fault, BeforeValidator(_parse_fault)], ...]


class LabFile(_Keys):
    """The keys of lab.yaml."""

    title: str
    about: str = ""
    minutes: int = Field(default=20, ge=1, le=60)
    needs: tuple[str, ...] = ()
    topology: str | Source | dict[str, Any] = {}
    node: str = HOST
    sudo: str = ""
    vary: dict[str, str] = {}
    steps: tuple[Step, ...] = ()
    faults: Faults | None = None


class Lab:
    """A lab, its variables replaced. `folder` is None for a bare topology."""

    def __init__(
        self, name: str, keys: LabFile, topology: Topology, *, folder: Path | None, values: Values
    ) -> None:
        self.name = name
        self.keys = keys
        self.topology = topology
        self.folder = folder
        self.values = values
        self.warnings: tuple[str, ...] = ()  # what a containerlab file says and we cannot do

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.keys.steps

    def read(self, name: str) -> str:
        """The text of one of its files, variables replaced; "" where there is none."""
        if self.folder is None or not (self.folder / name).is_file():
            return ""
        return substitute((self.folder / name).read_text(encoding="utf-8"), self.values)

    @property
    def runs_code(self) -> list[str]:
        """What it would execute of its own: Python checks."""
        checks = (check for step in self.steps for check in step.check)
        return [check.call for check in checks if check.word == "python"]  # type: ignore[attr-defined]


def read_lab(path: Path, *, seed: int = 0) -> Lab:
    """The lab in a folder, or the bare topology of a file, containerlab's (*.clab.yml) too.

    Raises InputError, ConfigError.
    """
    if os.path.isdir(path):
        return _read_folder(path, seed)
    name = path.name.removesuffix(".clab.yml").removesuffix(".clab.yaml")
    if name == path.name:
        return Lab(path.stem, LabFile(title=path.stem), load(path), folder=None, values={})
    try:
        imported = import_containerlab(path.read_text(encoding="utf-8"), source=path.name)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InputError(f"{path} cannot be read", why) from error
    lab = Lab(name, LabFile(title=name), imported.topology, folder=None, values={})
    lab.warnings = imported.warnings
    return lab


def _read_folder(folder: Path, seed: int) -> Lab:
    file = folder / FILE
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        hint = f"a lab is a folder with {FILE}, {TEXT} and {SOLUTION}; see: netplug lab new"
        raise InputError(f"{folder} is no lab", f"{FILE}: {error.strerror}", hint) from error
    plain = parse_yaml(text, source=str(file))
    if not isinstance(plain, Mapping):
        raise ConfigError(f"{file} is no lab", "keys are expected at the top")
    values = compute_values(plain.get("vary") or {}, seed, source=str(file))
    data = parse_yaml(substitute(text, values), source=str(file))
    try:
        keys = LabFile.model_validate(data)
    except ValidationError as error:
        raise ConfigError(str(file), explain(error, _model_of(error))) from error
    topology = _read_topology(keys, folder)
    _check_steps(keys, str(file))
    return Lab(lab_name(folder), keys, topology, folder=folder, values=values)


def lab_name(folder: Path) -> str:
    """The folder's name without the number that gives its place in a course."""
    return NUMBER.sub("", folder.name) or folder.name


def _model_of(error: ValidationError) -> type[BaseModel]:
    place = error.errors()[0]["loc"][:1]
    inner: dict[Any, type[BaseModel]] = {("steps",): Step, ("faults",): Faults}
    return inner.get(place, LabFile) if len(error.errors()[0]["loc"]) > 1 else LabFile


def _read_topology(keys: LabFile, folder: Path) -> Topology:
    wanted = keys.topology
    if isinstance(wanted, dict):
        return parse_topology(wanted, name=folder.name)
    source = Source(name=wanted) if isinstance(wanted, str) else wanted
    path = folder / source.name if Path(source.name).suffix else SHIPPED / f"{source.name}.yaml"
    if not path.exists():
        return load(source.name)  # which says what there is
    text = path.read_text(encoding="utf-8")
    for old, new in source.replace.items():
        text = text.replace(old, new)
    return parse_topology(parse_yaml(text, source=path.name), name=path.stem)


def _check_steps(keys: LabFile, source: str) -> None:
    ids = [step.id for step in keys.steps]
    for name in ids:
        if ids.count(name) > 1:
            raise ConfigError(f"{source}: steps", f"{name} is there twice", "rename one")
    for step in keys.steps:
        if not step.check:
            raise ConfigError(f"{source}: steps.{step.id}", "a step needs a check")
    if keys.faults and keys.faults.pick > len(keys.faults.of):
        why = f"{keys.faults.pick} are to be picked of {len(keys.faults.of)}"
        raise ConfigError(f"{source}: faults.pick", why)
