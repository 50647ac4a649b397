"""Typed configuration: YAML files and `section.key=value` overrides checked by a schema.

Each component declares its settings beside itself as a `Section`; this module only reads,
merges and explains what is wrong, naming the key, the file and what is allowed.
"""

from __future__ import annotations

import difflib
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tca.errors import UsageError

MOST = 2**31 - 1
"""Bound of counts that have no other: two of them multiplied still fit 64 bits."""


class Section(BaseModel):
    """Base of every configuration section: immutable, unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


SectionT = TypeVar("SectionT", bound=Section)


@dataclass(frozen=True)
class FileOverrides:
    """Overrides that a file beside the configuration holds, as that of a sweep does.

    Attributes:
        file: where a user finds them.
        below: the key of the file that they are under.
        settings: as `section.key=value`.
    """

    file: Path
    below: str
    settings: Sequence[str]


@dataclass(frozen=True)
class _Origin:
    """Where a value was set, and the key that it is under there."""

    source: str
    below: tuple[str, ...] = ()


_COMMAND_LINE = _Origin("the command line")


def load_config(
    schema: type[SectionT],
    file: Path | None,
    overrides: Iterable[str] = (),
    last: FileOverrides | None = None,
) -> SectionT:
    """Read `file`, apply `section.key=value` overrides in order, check against `schema`.

    Values of overrides are YAML, so `train.lr=3e-4`, `model.layers=[1,2]` and `a.b=null` work.
    Those of `last` are applied after the others, and blamed on their file.

    Raises:
        UsageError: unreadable file, malformed override, or a value the schema does not allow.
    """
    tree: dict[str, Any] = {} if file is None else read_yaml(file)
    origins: dict[tuple[str, ...], _Origin] = {}
    given = [(_COMMAND_LINE, override) for override in overrides]
    if last is not None:
        origin = _Origin(str(last.file), (last.below,))
        given += [(origin, override) for override in last.settings]
    for origin, override in given:
        path, value = _parse_override(override, origin)
        _set_path(tree, path, value, override, origin)
        origins.pop(path, None)
        origins[path] = origin
    return _checked(schema, tree, _Origin(str(file) if file else "the defaults"), origins)


def check(schema: type[SectionT], tree: Mapping[str, Any], source: str) -> SectionT:
    """Validate `tree`; a failure names the key, where it was set and what is allowed.

    Raises:
        UsageError: the first value that does not fit.
    """
    return _checked(schema, tree, _Origin(source), {})


def _checked(
    schema: type[SectionT],
    tree: Mapping[str, Any],
    rest: _Origin,
    origins: dict[tuple[str, ...], _Origin],
) -> SectionT:
    """Validate `tree`; its values are from `origins` by path, the latest last, or from `rest`.

    Raises:
        UsageError: the first value that does not fit.
    """
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        problem = error.errors()[0]
        path = tuple(str(part) for part in problem["loc"])
        if problem["type"] == "value_error" and _keys_at(schema, path):
            # No single value: all that was set in the section takes part.
            below = [o.source for at, o in origins.items() if at[: len(path)] == path]
            sources = rest.source
            if below:
                sources += f" with {' and '.join(dict.fromkeys(below))}"
            section = f", in {'.'.join(path)!r}" if path else ""
            raise UsageError(f"{sources}{section}: {_message(problem)}.") from None
        latest = reversed(origins.items())
        origin = next((o for at, o in latest if path[: len(at)] == at), rest)
        raise UsageError(_explain(schema, path, problem, origin)) from None


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        UsageError: the file is missing, is not YAML or is not a mapping.
    """
    try:
        tree = _parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the configuration {file}: {error.strerror}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        detail = " ".join(str(error).split())
        raise UsageError(f"{file} is not valid YAML: {detail}.") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UsageError(f"{file} must hold `section:` blocks, not a {type(tree).__name__}.")
    return tree


def dump_yaml(tree: Mapping[str, Any]) -> str:
    """Return a mapping as YAML, in its own order."""
    return yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True)


def dump_commented(section: Section, indent: str = "") -> str:
    """Return every key of a section as YAML, each described in the line above it."""
    lines = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        about = textwrap.wrap(field.description or "", 96 - len(indent))
        lines += [f"{indent}# {line}" for line in about]
        if isinstance(value, Section):
            lines += [f"{indent}{name}:", dump_commented(value, indent + "  ")]
            continue
        # Flow style is on one line whatever the value.
        plain = section.model_dump(mode="json", include={name})[name]
        text = yaml.safe_dump(
            plain, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True
        )
        lines.append(f"{indent}{name}: {text.removesuffix('...' + chr(10)).strip()}")
    return "\n".join(lines) + ("" if indent else "\n")


class _Loader(yaml.SafeLoader):
    """YAML without what would be dropped or cut in silence: a repeated key, a zero character."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"the key {key.value!r} is there twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        if isinstance(node, yaml.ScalarNode) and "\0" in node.value:
            problem = "a value holds a zero character"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_scalar(node)


def _parse(text: str) -> Any:
    """Return the YAML document in `text`; a date that is none is a ValueError."""
    return yaml.load(text, _Loader)


def _parse_override(override: str, origin: _Origin) -> tuple[tuple[str, ...], Any]:
    key, equals, text = override.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise UsageError(
            f"cannot read the override {override!r} of {origin.source}; write section.key=value."
        )
    try:
        value = _parse(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UsageError(f"the value of the override {override!r} is not valid YAML.") from None
    # YAML 1.1 reads 3e-4 as a string; no setting of ours is a string that looks like a number.
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return path, value
    return path, value


def _set_path(
    tree: dict[str, Any], path: tuple[str, ...], value: Any, override: str, origin: _Origin
) -> None:
    node: Any = tree
    for depth, part in enumerate(path[:-1], 1):
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise UsageError(
                f"{origin.source} has {override!r}, but {'.'.join(path[:depth])!r} is {node!r} "
                "and no block of keys; write it as one."
            )
    node[path[-1]] = value


def _message(problem: Mapping[str, Any]) -> str:
    message = problem["msg"].removeprefix("Value error, ").rstrip(".")
    return str(message[0].lower() + message[1:])


def _explain(
    schema: type[Section], path: tuple[str, ...], problem: Mapping[str, Any], origin: _Origin
) -> str:
    where = origin.source
    key = ".".join((*origin.below, *path))
    if problem["type"] == "extra_forbidden":
        allowed = _keys_at(schema, path[:-1])
        close = difflib.get_close_matches(path[-1], allowed, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{where} has an unknown key {key!r}; {hint}Allowed are: {', '.join(allowed)}."
    if problem["type"] == "missing":
        return f"{where} lacks the key {key!r}, which has no default."
    if problem["type"] in ("model_type", "dict_type"):
        keys = ", ".join(_keys_at(schema, path))
        block = f"a block of keys ({keys})" if keys else "a block of keys"
        return f"{where} sets {key!r} to {problem['input']!r}: it must be {block}."
    return f"{where} sets {key!r} to {problem['input']!r}: {_message(problem)}."


def _keys_at(schema: type[Section], path: tuple[str, ...]) -> list[str]:
    """Return the keys of the section at `path`, looking through `X | None`.

    A dictionary has some only where its type lists them.
    """
    current: Any = schema
    for part in path:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return []
        current = field.annotation
        if isinstance(current, types.UnionType) or typing.get_origin(current) is typing.Union:
            current = next(
                (a for a in typing.get_args(current) if hasattr(a, "model_fields")), None
            )
    if typing.get_origin(current) is dict:
        key = typing.get_args(current)[0]
        return list(typing.get_args(key)) if typing.get_origin(key) is typing.Literal else []
    return list(getattr(current, "model_fields", {}))
