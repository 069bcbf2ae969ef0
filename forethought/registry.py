"""Names to factories: how the tables of synthesizers, attacks, judges, sources and training methods are looked up.

A table maps a name to an `Entry`. A spec is a table name or any `module:function`, with options after it:
`persona`, `mypkg.attacks:wiki`, `persona(name=ADA)`, `lat(depths=[0, 0.5])`. A factory's signature is its configuration.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from forethought.errors import ForethoughtError, nearest


@dataclass(frozen=True)
class Entry:
    """One line of a table. `where` is `module:factory`, imported only when used; `about` is what --list shows, and `cost` what one prompt
    takes where that does not follow from what it `needs`."""

    where: str
    about: str
    paper: str = ""
    needs: str = ""
    cost: str = ""


SPEC = re.compile(r"\s*([\w.:\-]+)\s*(?:\((.*)\))?\s*", re.DOTALL)
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
OPTION = re.compile(r"""(?:"[^"]*"|'[^']*'|\[[^\]]*\]|[^,])+""")


def parse_spec(spec: str) -> tuple[str, dict[str, Any]]:
    """`name(a=1, b=x)` -> `("name", {"a": 1, "b": "x"})`; values are read as YAML."""
    match = SPEC.fullmatch(spec)
    if not match:
        raise ForethoughtError(f"cannot read '{spec}'. Write a name, or a name with options: name(option=value).")
    options = {}
    for part in filter(None, (p.strip() for p in OPTION.findall(match[2] or ""))):
        key, eq, value = part.partition("=")
        if not eq:
            raise ForethoughtError(f"cannot read option '{part}' in '{spec}'. Write name(option=value).")
        options[key.strip()] = read_value(value)
    return match[1], options


def read_value(text: str) -> Any:
    """A value as YAML reads it; and 5e-4, which YAML 1.1 takes for text, as the number that is meant."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ForethoughtError(f"cannot read the value '{text}': {' '.join(str(error).split())}") from error
    return float(value) if isinstance(value, str) and NUMBER.fullmatch(value) else value


def resolve(kind: str, table: Mapping[str, Entry], spec: str, **given: Any) -> Any:
    """What the factory that `spec` names makes from the spec's options and from what is `given` (a policy, say).

    Raises ForethoughtError for an unknown name (with the nearest one), an option that the factory does not take, or a value that its
    annotation does not allow.
    """
    name, options = parse_spec(spec)
    if name in table:
        where = table[name].where
    elif ":" in name:
        where = name
    else:
        raise ForethoughtError(f"unknown {kind} '{name}'.{nearest(name, table)}")
    module, _, attribute = where.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
        known = inspect.signature(factory, eval_str=True).parameters
    except (ImportError, AttributeError, NameError, ValueError, TypeError) as error:
        raise ForethoughtError(f"cannot load {kind} '{name}' from '{where}': {error}") from error
    for key, value in options.items():
        if key not in known or key in given:
            raise ForethoughtError(f"{kind} '{name}' has no option '{key}'.{nearest(key, set(known) - set(given))}")
        options[key] = _checked(f"{kind} '{name}', option '{key}'", known[key].annotation, value)
    try:
        return factory(**options, **given)
    except TypeError as error:
        raise ForethoughtError(f"{kind} '{name}': {error}") from error


def options_of(entry: Entry, given: Container[str] = ("policy", "config")) -> str:
    """The options of a table's line with their defaults as a spec writes them, `streams=3, by=auto`; one without a default stands alone.
    Read from the source, since some factories need torch to be imported."""
    module, _, name = entry.where.partition(":")
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    made = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name).args
    names = [a.arg for a in (*made.posonlyargs, *made.args, *made.kwonlyargs)]
    last = [None] * (len(names) - len(made.defaults) - len(made.kw_defaults)) + [*made.defaults, *made.kw_defaults]
    return ", ".join(f"{n}={_written(d)}" if d else n for n, d in zip(names, last, strict=True) if n not in given)


def _written(value: ast.expr) -> str:
    try:
        found = ast.literal_eval(value)
    except ValueError:
        return "..."
    if isinstance(found, str):
        plain = re.fullmatch(r"[^,()\[\]'\"]+", found) and not re.search(r":(\s|$)", found)
        return found if plain else repr(found)
    return json.dumps(found)


def _checked(where: str, annotation: Any, value: Any) -> Any:
    if annotation is inspect.Parameter.empty:
        return value
    try:
        return TypeAdapter(annotation, config=ConfigDict(coerce_numbers_to_str=True)).validate_python(value)
    except ValidationError as error:
        raise ForethoughtError(f"{where}: {error.errors()[0]['msg']} (got {value!r}).") from error
