"""Reduce jsonargparse's messages to one line: what was found, what was expected, what to type next."""

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable

_TYPE = re.compile(r"<class '(?:\w+\.)*(\w+)'>")
_MODULES = re.compile(r"\b(?:typing|cerebro|collections|torch|pathlib)(?:\.\w+)*\.(?=[A-Z])")
_WHOLE = re.compile(r"\.? ?Got value: (?:Namespace\(|\{'class_path').*$")  # the arguments around the mistake


def one_line(verb: str, message: str, keys: Iterable[str], classes: Iterable[str] = ()) -> str:
    """One line for a message of the parser of ``verb``.

    Parameters
    ----------
    verb : str
        Verb of cerebro.
    message : str
        What jsonargparse said.
    keys : iterable of str
        Dotted keys that the parser knows.
    classes : iterable of str
        Names of the classes that a config may use.
    """
    text = " ".join(_MODULES.sub("", _TYPE.sub(r"\1", message)).split())
    flat = _WHOLE.sub("", text)
    keys = list(keys)
    places = re.findall(r'Parser key "([^"]+)"', flat)
    if found := re.search(r"[Ii]mporting '([^']+)' is not allowed", text):
        return (
            f"class {found.group(1)} is outside the allow list; set class_path to a class of cerebro, torch.nn, "
            "torch.optim or lightning.pytorch."
        )
    if found := re.search(r"Expected a dot import path string: (\S+)", flat):
        return _unknown_class(found.group(1).rstrip("."), ".".join(places), sorted(set(classes)))
    if found := re.search(r"unrecognized arguments: (\S+)", flat):
        return _unknown(verb, found.group(1).lstrip("-").split("=")[0], keys)
    if found := re.search(r"[Kk]ey '([^']+)' is not expected|[Oo]ption '([^']+)' is not accepted", flat):
        return _unknown_in(verb, found.group(1) or found.group(2), places, _owner(message), keys)
    if found := re.search(r"does not accept option '([^']+)'", flat):
        group = re.search(r"[Gg]roup '([^']+)'", flat)
        return _unknown(verb, f"{group.group(1)}.{found.group(1)}" if group else found.group(1), keys)
    if found := re.search(r"Key '([^']+)' is required|[Kk]ey \"([^\"]+)\" is required", flat):
        key = ".".join([*places, found.group(1) or found.group(2)])
        return f"key {key} is missing; add it to the config{_typed(verb, places, key)}."
    if found := re.search(r"following arguments are required: (.+)$", flat):
        first, *others = found.group(1).split(", ")
        also = f" (and {', '.join(others)})" if others else ""
        typed = f", or type --{first} VALUE" if first in keys else ""
        return f"key {first} is missing{also}; add it to the config (--config FILE){typed}."
    if found := re.search(r'Parser key "[^"]+": Expected an? ([^"]+?)\. Got value: (.+)$', flat):
        expected, value = found.groups()
        key = ".".join(places)
        return (
            f"{key}: found {value[:120]}, expected {_in_words(expected)}; mend the config{_typed(verb, places, key)}."
        )
    if found := re.search(r"(?:(?:File|Path) does not exist|Path is not a file): '?([^']+)'?", flat):
        return f"config {found.group(1)} not found; check the path (paths in a YAML are relative to that file)."
    return f"{_shortened(flat)} (cerebro {verb} --help lists the keys)."


def _in_words(expected: str) -> str:
    """What a YAML would hold, for a type whose name does not say it."""
    if expected == "bool":
        return "true or false"
    if choices := re.fullmatch(r"Literal\[('[^']*'(?:, '[^']*')*)\]", expected):
        return " or ".join(re.findall(r"'([^']*)'", choices.group(1)))
    return expected


def _unknown(verb: str, key: str, keys: Iterable[str]) -> str:
    known = [name for name in keys if not name.endswith(".help")]
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}?" if close else f"cerebro {verb} --help lists the keys."
    return f"key {key} is unknown; {hint}"


def _unknown_in(verb: str, key: str, places: list[str], owner: str, keys: Iterable[str]) -> str:
    """For a key below a class, whose constructor says which keys there are."""
    full = key if places and key.startswith(places[0]) else ".".join([*places, key])
    parameters = _parameters(owner)
    if not parameters:
        return _unknown(verb, full, keys)
    close = difflib.get_close_matches(key, parameters, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}?" if close else f"its keys are {', '.join(parameters)}."
    return f"key {full} is unknown to {owner.rpartition('.')[2]}; {hint}"


def _unknown_class(name: str, place: str, classes: list[str]) -> str:
    close = difflib.get_close_matches(name.rpartition(".")[2], classes, n=1, cutoff=0.6)
    known = f"choose from {', '.join(classes)}." if classes else "give the full path of a class of cerebro."
    return f"class {name} is unknown in {place}; {f'did you mean {close[0]}?' if close else known}"


def _owner(message: str) -> str:
    """Class path whose key was refused, "" if the message names none."""
    flat = " ".join(message.split())
    found = re.search(r"(?:accepted|expected)\. Got value: Namespace\(class_path='([^']+)'", flat)
    found = found or re.search(r"given class_path '([^']+)'[^']*(?:[Oo]ption|[Kk]ey) '", flat)
    return found.group(1) if found else ""


def _parameters(path: str) -> list[str]:
    """Constructor keys of one of cerebro's own classes that a config may set."""
    module, _, name = path.rpartition(".")
    if not module.startswith("cerebro."):
        return []
    builder = getattr(importlib.import_module(module), name)
    given = ("self", "encoder", "signal") if "objectives" in module or "readouts" in module else ("self", "signal")
    return [parameter for parameter in inspect.signature(builder).parameters if parameter not in given]


def _typed(verb: str, places: list[str], key: str) -> str:
    """How to type a key on the command line, where that is unambiguous."""
    if verb == "prepare":
        return ""
    if len(places) <= 1:
        return f" or type --{key} VALUE"
    return f" or type --{places[0]}.init_args.{places[1]} VALUE" if len(places) == 2 else ""


def _shortened(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:200]} ... {text[-90:]}"
