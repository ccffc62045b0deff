"""YAML as recipes mean it, with the file and line of every key; overrides; writing.

Read by YAML 1.2's rules where 1.1 surprises: `1e-8` is a number, `off` and `no` are words, a date is text. A key
given twice is an error.
"""

from __future__ import annotations

import csv
import re
import sys
from dataclasses import dataclass, field
from typing import Any

import yaml

from aifeedback.errors import RecipeError

Path = tuple[str | int, ...]
_DEPTH = 32
_FLOAT = re.compile(
    r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_INT = re.compile(r"^(?:[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars."""


class _Dumper(yaml.SafeDumper):
    """Quotes what either dialect would misread; short lists on one line."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag.rpartition(":")[2] in ("null", "merge")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def _short_list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.SequenceNode:
    flow = all(isinstance(item, (int, float)) or (isinstance(item, str) and len(item) < 30) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flow)


_Dumper.add_representer(list, _short_list)


@dataclass
class Document:
    """Plain data and where each key stands: "recipes/x.yaml:31" or "override train.steps=5"."""

    data: dict[str, Any]
    label: str
    places: dict[Path, str] = field(default_factory=dict)

    def place(self, path: Path) -> str:
        """Where a key stands, or the nearest section above it; of a section that an override made, the override."""
        for length in range(len(path), 0, -1):
            above = path[:length]
            within = (place for key, place in self.places.items() if key[:length] == above)
            if found := self.places.get(above) or next(within, None):
                return found
        return f"{self.label}:1"

    def order(self, path: Path) -> int:
        """The line of a key in the file; overrides come after all lines."""
        line = self.place(path).rpartition(":")[2]
        return int(line) if line.isdigit() else sys.maxsize


def shown(path: Path) -> str:
    """Write a path as in an override: `train.betas.0`, `judge.scorers."hpsv2.1".dtype`."""
    return ".".join(f'"{part}"' if "." in str(part) else str(part) for part in path)


def parse(text: str, label: str) -> Document:
    """Read a recipe's text.

    Raises:
        RecipeError: not YAML, a key given twice, or not keys and values at the top.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        document = Document({}, label)
        if not isinstance(node, yaml.MappingNode):
            raise RecipeError(f"{label}: must hold keys and values, got {'nothing' if node is None else 'a value'}")
        _note_places(node, (), document)
        document.data = loader.construct_document(node)
    except yaml.YAMLError as error:
        raise RecipeError(_yaml_message(error, label)) from error
    finally:
        loader.dispose()
    return document


def override(document: Document, text: str) -> None:
    """Apply `key.path=value` in place; the value is YAML, a missing section is made.

    Raises:
        RecipeError: not of this form, or a path through something that is not a section.
    """
    key, equals, value_text = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"override {text!r}: must read key.path=value")
    try:
        value = yaml.load(value_text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise RecipeError(f"override {text!r}: the value is not YAML: {_reason(error)}") from error
    path: Path = tuple(part.strip() for part in next(csv.reader([key], delimiter=".")))
    if not all(path):
        raise RecipeError(f"override {text!r}: an empty name between two dots, expected key.path=value")
    _put(document.data, path, value, text)
    for place in [place for place in document.places if place[: len(path)] == path]:
        del document.places[place]
    document.places[path] = f"override {text}"


def write(data: dict[str, Any]) -> str:
    """Write data so that `parse` gives it back."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _note_places(node: yaml.Node, path: Path, document: Document) -> None:
    if len(path) > _DEPTH:
        raise RecipeError(f"{document.label}: nested more than {_DEPTH} deep")
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note(item, (*path, index), document, item)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise RecipeError(f"{shown((*path, key.value))}: given twice [{document.label}:{line}]")
            seen.add(key.value)
            _note(key, (*path, key.value), document, value)


def _note(mark: yaml.Node, path: Path, document: Document, value: yaml.Node) -> None:
    document.places[path] = f"{document.label}:{mark.start_mark.line + 1}"
    _note_places(value, path, document)


def _put(data: Any, path: Path, value: Any, text: str) -> None:
    for depth, part in enumerate(path[:-1]):
        if isinstance(data, list):
            data = data[_index(data, part, text)]
            continue
        if data.get(part) is None:
            data[part] = {}
        data = data[part]
        if not isinstance(data, (dict, list)):
            raise RecipeError(f"override {text!r}: {shown(path[: depth + 1])} is a value, not a section")
    if isinstance(data, list):
        data[_index(data, path[-1], text)] = value
    else:
        data[path[-1]] = value


def _index(data: list[Any], part: str | int, text: str) -> int:
    if not str(part).isdigit() or int(part) >= len(data):
        raise RecipeError(f"override {text!r}: {part!r} is no index into a list of {len(data)}")
    return int(part)


def _reason(error: yaml.YAMLError) -> str:
    return str(getattr(error, "problem", None) or error)


def _yaml_message(error: yaml.YAMLError, label: str) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"not YAML: {_reason(error)} [{label}{f':{mark.line + 1}' if mark else ''}]"
