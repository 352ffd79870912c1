"""Refuse a YAML file that could mislead or exhaust a program, before any loader builds objects from it.

The check walks over parser events, which is linear in the size of the file: no alias is expanded, no tag is followed
and no object is built.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from cerebro.errors import ConfigError

MAX_BYTES = 2_000_000  # the largest config or resolved config is a few kilobytes
MAX_DEPTH = 50
MAX_VALUES = 100_000  # after expanding aliases


def check_yaml(path: Path) -> None:
    """Raise ConfigError unless ``path`` holds one plain YAML mapping.

    Refused are: a missing, oversized or undecodable file, a syntax error, a key given twice in one mapping, a tag, an
    alias to itself, aliases that multiply to more than 100,000 values, nesting deeper than 50, a second document, and
    a number that is not finite.

    Parameters
    ----------
    path : Path
        File to check. Files that it names are not followed; check each when it is read.

    Raises
    ------
    ConfigError
        One line: file, line, what was found and how to mend it.
    """
    if not path.is_file():
        raise ConfigError(f"config {path} not found; check the path (paths are relative to the current folder).")
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"config {path} has {path.stat().st_size:,} bytes, more than {MAX_BYTES:,}; is it a config?")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"config {path} is not UTF-8 text; save it as UTF-8.") from None
    try:
        _walk(text, path)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError(f"config {path}{place}: no valid YAML ({problem}); mend that line.") from None


@dataclass
class _Open:
    """A mapping or sequence whose end has not come yet."""

    is_mapping: bool
    anchor: str | None
    n_values: int = 1
    n_children: int = 0
    keys: set[str] = field(default_factory=set)


def _walk(text: str, path: Path) -> None:
    open_nodes: list[_Open] = []
    anchors: dict[str, int] = {}  # anchor -> values below it, aliases expanded
    n_documents = 0

    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark is not None else 1
        at_key = bool(open_nodes) and open_nodes[-1].is_mapping and open_nodes[-1].n_children % 2 == 0
        if isinstance(event, yaml.DocumentStartEvent):
            n_documents += 1
            if n_documents > 1:
                raise _refusal(path, line, "a second document (---)", "keep one document per file")
        if isinstance(event, yaml.NodeEvent) and not open_nodes and not isinstance(event, yaml.MappingStartEvent):
            raise _refusal(path, line, "no mapping at the top", "write 'key: value' lines")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise _refusal(path, line, f"the tag {tag}", "write the plain value without a tag")
        if at_key and isinstance(event, yaml.NodeEvent) and not isinstance(event, yaml.ScalarEvent):
            raise _refusal(path, line, "a key that is no plain text", "use a word as key")

        size = 0
        if isinstance(event, yaml.ScalarEvent):
            size = 1
            if at_key:
                _check_key(event.value, open_nodes[-1].keys, path, line)
            elif event.style is None and not _is_finite(event.value):
                raise _refusal(path, line, f"the number {event.value}", "give a finite number")
            if event.anchor is not None:
                anchors[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor is None or event.anchor in {node.anchor for node in open_nodes}:
                raise _refusal(path, line, f"the alias *{event.anchor} inside itself", "write the value out")
            if event.anchor not in anchors:
                raise _refusal(path, line, f"the alias *{event.anchor} without its anchor", "write the value out")
            size = anchors[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append(_Open(isinstance(event, yaml.MappingStartEvent), event.anchor))
            if len(open_nodes) > MAX_DEPTH:
                raise _refusal(path, line, f"nesting deeper than {MAX_DEPTH}", "flatten it")
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = open_nodes.pop()
            size = closed.n_values
            if closed.anchor is not None:
                anchors[closed.anchor] = size

        if size and open_nodes:
            open_nodes[-1].n_children += 1
            open_nodes[-1].n_values += size
        if size > MAX_VALUES or (open_nodes and open_nodes[-1].n_values > MAX_VALUES):
            raise _refusal(path, line, f"more than {MAX_VALUES:,} values with its aliases", "write less in one file")
    if n_documents == 0:
        raise ConfigError(f"config {path} is empty; write 'key: value' lines.")


def _check_key(key: str, keys: set[str], path: Path, line: int) -> None:
    if key in keys:
        raise _refusal(path, line, f"the key '{key}' for the second time", "keep one of the two")
    keys.add(key)


def _is_finite(value: str) -> bool:
    """Whether a plain scalar is text or a finite number, also in YAML's own spelling (``.nan``, ``-.inf``)."""
    try:
        return math.isfinite(float(value.replace(".nan", "nan").replace(".inf", "inf").lower()))
    except ValueError:
        return value.lower().lstrip("+-") not in (".nan", ".inf")


def _refusal(path: Path, line: int, found: str, remedy: str) -> ConfigError:
    return ConfigError(f"config {path}, line {line}: found {found}; {remedy}.")
