"""Small pieces of HTML; every text from outside is escaped here."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any


def tag(name: str, content: str, **attributes: str) -> str:
    """Element around HTML ``content``; a trailing underscore of an attribute's name is dropped (``class_``)."""
    written = "".join(f' {key.rstrip("_")}="{escape(value)}"' for key, value in attributes.items())
    return f"<{name}{written}>{content}</{name}>"


def table(head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], numbers: Sequence[int] = ()) -> str:
    """Table of HTML cells; each row is (CSS class, cells); columns in ``numbers`` are set flush right."""

    def cells(kind: str, row: Sequence[str]) -> str:
        return "".join(
            tag(kind, cell, class_="number") if column in numbers else tag(kind, cell)
            for column, cell in enumerate(row)
        )

    body = "".join(tag("tr", cells("td", row), **({"class_": kind} if kind else {})) for kind, row in rows)
    return tag("div", tag("table", tag("thead", tag("tr", cells("th", head))) + tag("tbody", body)), class_="wide")


def figure(svg: str, caption: str) -> str:
    """Figure with its caption (plain text)."""
    return tag("figure", svg + tag("figcaption", escape(caption)))


def estimate(entry: Mapping[str, Any] | None, digits: int = 3) -> str:
    """``0.912 [0.88, 0.95]`` as HTML; empty where there is none."""
    if entry is None:
        return ""
    if entry["mean"] is None:
        return "undefined"
    low, high = entry["ci95"]
    bounds = f" <small>[{low:.{digits}f}, {high:.{digits}f}]</small>" if low is not None else ""
    return f"{entry['mean']:.{digits}f}{bounds}"


def percent(entry: Mapping[str, Any] | None) -> str:
    """``+3.1 % [0.4, 5.9]`` as HTML; empty where there is none."""
    if entry is None:
        return ""
    low, high = entry["ci95"]
    if entry["mean"] is None or low is None:
        return "undefined"
    return f"{100 * entry['mean']:+.1f} % <small>[{100 * low:+.1f}, {100 * high:+.1f}]</small>"
