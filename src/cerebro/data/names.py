"""Names and messages that a terminal, a table and JSON can hold; files may be called anything, and hold anything."""

import re
from dataclasses import replace

from cerebro.data.readers.base import Entry, Finding, Scan

RULE_NAME = "unwritable-name"
NO_NAME = "its name is no UTF-8 text or holds control characters"
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters; bytes that were no UTF-8


def with_plain_names(scan: Scan) -> Scan:
    """Set aside recordings whose name no table can hold, and make each finding a line that any terminal shows.

    A name that is no UTF-8 comes from archives that were packed under another encoding.
    """
    entries = [entry for entry in scan.entries if not any(map(_UNWRITABLE.search, _names(entry)))]
    kept = {entry.key for entry in entries}
    findings = [
        replace(one, where=one.where if one.where in kept else plain(one.where), detail=plain(one.detail))
        for one in scan.findings
    ]
    findings += [
        Finding(RULE_NAME, "failed", plain(entry.key), f"rename {plain(str(entry.path))}: {NO_NAME}")
        for entry in scan.entries
        if entry.key not in kept
    ]
    return Scan(entries, findings, scan.participants)


def plain(text: str) -> str:
    r"""``text`` with what no terminal shows as escapes, such as ``\xe9`` for a byte that is no UTF-8."""
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # how Python keeps such a byte
        return f"\\x{ord(letter) & 0xFF:02x}"
    return letter.encode("unicode_escape").decode()


def _names(entry: Entry) -> tuple[str, ...]:
    return entry.key, entry.participant, entry.task, entry.session, entry.release
