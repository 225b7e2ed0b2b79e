"""YAML to dataclasses and back. What does not fit the dataclass is refused by file, field and valid values.

A field may carry `metadata={"range": (low, high)}` (inclusive, None is open, applied to every number inside a sequence)
or `metadata={"choices": (...)}`; anything else belongs into `__post_init__`, which raises ValueError.
"""

import dataclasses
import difflib
import math
import os
import re
import tempfile
import types
from collections.abc import Collection, Hashable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from horseshoe.errors import ConfigurationError, HorseshoeError

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys and reads `1e-3` as a number (YAML 1.1 would make it text)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is no plain value", key.start_mark)
            if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                where = f"duplicate key '{key.value}'"
                raise yaml.constructor.ConstructorError(None, None, where, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Safe YAML that quotes text which the loader would take for a number, such as the revision 392e7."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


def resource(path: str | Path) -> Path:
    """Locate a data file that ships with the package, named as in the repository.

    Args:
        path: such as "config/cell.yaml" or "policies/pretrained/u_shape".

    Returns:
        The file or folder, in a checkout as well as in an installed package.

    Raises:
        ConfigurationError: if there is no such file; names what lies beside it.
    """
    root = Path(str(files("horseshoe")))
    found = root / path
    if not found.exists():
        beside = (
            sorted(p.name for p in found.parent.glob("[!_.]*") if p.suffix != ".py") if found.parent.is_dir() else []
        )
        raise ConfigurationError(path, "", f"no such file in horseshoe; there: {', '.join(beside) or 'nothing'}")
    return found


def read_yaml(path: str | Path) -> Any:
    """Parse one YAML document.

    Raises:
        ConfigurationError: if the file cannot be read or is not YAML, or a key appears twice in a mapping.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise ConfigurationError(path, "", error.strerror or "cannot be read") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(path, "", "is not UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigurationError(path, line, error.problem or "is not YAML") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigurationError(path, "", f"is not YAML ({error})") from error


def load(cls: type[T], source: str | Path | Mapping[str, Any]) -> T:
    """Build a (nested) dataclass from a YAML file or a mapping.

    Args:
        cls: the dataclass.
        source: path of a YAML file, or what such a file contains.

    Raises:
        ConfigurationError: unknown, missing, mistyped or out-of-range value; names the file and the dotted field.
    """
    if isinstance(source, Mapping):
        return _convert(source, cls, "", None)
    data = read_yaml(source)
    return _convert({} if data is None else data, cls, "", source)


def dump(config: Any) -> Any:
    """Turn a dataclass (or what one may contain) into plain dicts, lists and scalars, which `load` reads back."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: dump(getattr(config, f.name)) for f in dataclasses.fields(config) if f.init}
    if isinstance(config, Mapping):
        return {key: dump(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [dump(value) for value in config]
    if isinstance(config, Path):
        return str(config)
    return config.tolist() if hasattr(config, "tolist") else config  # numpy scalars and arrays


def check_ranges(config: Any) -> None:
    """Refuse a dataclass in which a pair of numbers is no range, least first; for its `__post_init__`.

    Raises:
        ValueError: names the field.
    """
    for f in dataclasses.fields(config):
        ends = getattr(config, f.name)
        if isinstance(ends, tuple) and ends[0] > ends[1]:
            raise ValueError(f"{f.name}: {list(ends)} is no range, least first")


def save_yaml(config: Any, path: str | Path) -> None:
    """Write a dataclass or mapping as YAML; the file appears whole or not at all."""
    text = yaml.dump(dump(config), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    write_atomically(path, text)


def keep(config: Any, path: str | Path, grows: Collection[str] = (), free: Collection[str] = ()) -> None:
    """Write the settings of a run that may have begun before, with the same ones.

    Args:
        config: a dataclass.
        path: file in the run's folder.
        grows: fields that may be larger than they were.
        free: fields that may be anything.

    Raises:
        HorseshoeError: the run began with other settings; names the first one.
    """
    if Path(path).exists():
        before = load(type(config), path)
        for f in dataclasses.fields(config):
            theirs, ours = getattr(before, f.name), getattr(config, f.name)
            if theirs != ours and f.name not in free and not (f.name in grows and theirs < ours):
                raise HorseshoeError(
                    f"{path}: {f.name} is {theirs!r} there, {ours!r} here; "
                    "give another --run folder or the same settings"
                )
    save_yaml(config, path)


def write_atomically(path: str | Path, text: str) -> None:
    """Write UTF-8 text so that a reader, or a killed process, never leaves half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files private
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _convert(value: Any, hint: Any, field: str, file: str | Path | None) -> Any:
    """Check `value` against a type hint and build what the hint says."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else _build(value, hint, field, file)
    if origin in (Union, types.UnionType):
        rest = [argument for argument in arguments if argument is not type(None)]
        if value is None and len(rest) < len(arguments):
            return None
        for argument in rest[:-1]:
            try:
                return _convert(value, argument, field, file)
            except ConfigurationError:
                continue
        return _convert(value, rest[-1], field, file)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        raise ConfigurationError(file, field, f"{value!r} is not one of {', '.join(map(str, arguments))}")
    if origin in (list, tuple):
        return _sequence(value, origin, arguments, field, file)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigurationError(file, field, f"expected a mapping, got {_describe(value)}")
        return {
            _convert(k, arguments[0], field, file): _convert(v, arguments[1], _join(field, k), file)
            for k, v in value.items()
        }
    if hint is float and type(value) is int:
        return float(value)
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if type(value) is not hint:  # exact, because bool is an int
        name = "null" if hint is type(None) else hint.__name__
        raise ConfigurationError(file, field, f"expected {name}, got {_describe(value)}")
    if hint is float and math.isnan(value):
        raise ConfigurationError(file, field, "is not a number (nan)")
    return value


def _build(value: Any, cls: Any, field: str, file: str | Path | None) -> Any:
    if not isinstance(value, Mapping):
        raise ConfigurationError(file, field, f"expected a mapping, got {_describe(value)}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in value:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise ConfigurationError(file, _join(field, key), f"unknown key; {hint}valid keys: {', '.join(fields)}")
    hints = get_type_hints(cls)
    arguments = {}
    for name, spec in fields.items():
        where = _join(field, name)
        if name in value:
            arguments[name] = _convert(value[name], hints[name], where, file)
            _check(arguments[name], spec.metadata, where, file)
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise ConfigurationError(file, where, "is missing")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise ConfigurationError(file, field, str(error)) from error


def _sequence(value: Any, origin: Any, arguments: tuple[Any, ...], field: str, file: str | Path | None) -> Any:
    if not isinstance(value, list | tuple):
        raise ConfigurationError(file, field, f"expected a list, got {_describe(value)}")
    if origin is list or (len(arguments) == 2 and arguments[1] is Ellipsis):
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise ConfigurationError(file, field, f"expected {len(arguments)} values, got {len(value)}")
    items = zip(value, arguments, strict=True)
    return origin(_convert(item, hint, f"{field}[{i}]", file) for i, (item, hint) in enumerate(items))


def _check(value: Any, metadata: Mapping[str, Any], field: str, file: str | Path | None) -> None:
    if isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check(item, metadata, f"{field}[{i}]", file)
        return
    if "choices" in metadata and value is not None and value not in metadata["choices"]:
        choices = ", ".join(map(str, metadata["choices"]))
        raise ConfigurationError(file, field, f"{value!r} is not one of {choices}")
    if "range" in metadata and isinstance(value, int | float):
        low, high = (d if b is None else b for b, d in zip(metadata["range"], (-math.inf, math.inf), strict=True))
        if not low <= value <= high:
            raise ConfigurationError(file, field, f"{value} is outside [{low}, {high}]")


def _join(field: str, key: Any) -> str:
    return f"{field}.{key}" if field else str(key)


def _describe(value: Any) -> str:
    return "null" if value is None else f"{type(value).__name__} {value!r}"
