"""Reduce jsonargparse's messages to one line: what was found, what was expected, what to type next."""

import difflib
import re
from collections.abc import Iterable

_TYPE = re.compile(r"<class '(?:\w+\.)*(\w+)'>")
_MODULES = re.compile(r"\b(?:typing|cerebro|collections|torch|pathlib)(?:\.\w+)*\.(?=[A-Z])")


def one_line(verb: str, message: str, keys: Iterable[str]) -> str:
    """One line for a message of the parser of ``verb``; ``keys`` are the dotted keys that it knows."""
    text = _MODULES.sub("", _TYPE.sub(r"\1", message))
    if found := re.search(r"[Ii]mporting '([^']+)' is not allowed", text):
        return (
            f"class {found.group(1)} is outside the allow list; set class_path to a class of cerebro, torch.nn, "
            "torch.optim or lightning.pytorch."
        )
    if found := re.search(r"unrecognized arguments: (\S+)", text):
        return _unknown(verb, found.group(1).lstrip("-").split("=")[0], keys)
    if found := re.search(r"Group '([^']+)' does not accept option '([^']+)'", text):
        return _unknown(verb, f"{found.group(1)}.{found.group(2)}", keys)
    if found := re.search(r"[Kk]ey '([^']+)' is not expected|[Oo]ption '([^']+)' is not accepted", text):
        where = re.search(r'Parser key "([^"]+)"', text)
        name = found.group(1) or found.group(2)
        prefix = f"{where.group(1)}." if where and not name.startswith(where.group(1)) else ""
        return _unknown(verb, f"{prefix}{name}", keys)
    if found := re.search(r"Key '([^']+)' is required|[Kk]ey \"([^\"]+)\" is required", text):
        key = found.group(1) or found.group(2)
        return f"key {key} is missing; add it to the config or type --{key} VALUE."
    flat = " ".join(text.split())
    if found := re.search(r'Parser key "([^"]+)": Expected an? (.+?)\. Got value: (.+)$', flat):
        key, expected, value = found.groups()
        return f"{key}: found {value[:120]}, expected {expected}; mend the config or type --{key} VALUE."
    if found := re.search(r"(?:File|Path) does not exist: '?([^']+)'?", flat):
        return f"config {found.group(1)} not found; check the path (paths in a YAML are relative to that file)."
    return f"{_shortened(flat)} (cerebro {verb} --help lists the keys)."


def _unknown(verb: str, key: str, keys: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(keys), n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}?" if close else f"cerebro {verb} --help lists the keys."
    return f"key {key} is unknown; {hint}"


def _shortened(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:200]} ... {text[-90:]}"
