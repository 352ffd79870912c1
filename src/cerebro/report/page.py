"""A finished study as one self-contained HTML page: nothing on it is loaded from anywhere."""

from collections.abc import Callable
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import BinaryIO

from cerebro.files import write_atomically
from cerebro.report.background import curves, data, participants, reproduce
from cerebro.report.classes import classes
from cerebro.report.evidence import Evidence, gather
from cerebro.report.html import tag
from cerebro.report.outcome import convergence, gains, predictions, scores, summary, validation
from cerebro.report.representation import films, masked, pairs, probes, tokenizer
from cerebro.report.windows import masked_windows

SECTIONS: tuple[tuple[str, Callable[[Evidence], str]], ...] = (
    ("Scores", scores),
    ("Validation", validation),
    ("What each phase brought", gains),
    ("How soon", convergence),
    ("Who was tested", participants),
    ("Learning curves", curves),
    ("What the codes keep", tokenizer),
    ("What hidden tokens tell", masked),
    ("How hidden windows are rebuilt", masked_windows),
    ("Similarity of pairs", pairs),
    ("What people share in a film", films),
    ("What the encoder knows", probes),
    ("Classes by participant", classes),
    ("Predictions", predictions),
    ("Data", data),
    ("Reproduce", reproduce),
)


def write_report(folder: Path, out: Path) -> Path:
    """Write the page about the study in ``folder`` to ``out``; gives ``out``.

    Raises
    ------
    DataError
        If the study is not finished.
    """
    evidence = gather(folder)
    made = [(title, render(evidence)) for title, render in SECTIONS]
    shown = [(title, body) for title, body in made if body]
    anchors = {title: title.lower().replace(" ", "-") for title, _ in shown}
    links = tag("nav", "".join(tag("a", escape(title), href=f"#{anchors[title]}") for title, _ in shown))
    body = "".join(tag("section", tag("h2", escape(title), id=anchors[title]) + content) for title, content in shown)
    name = escape(str(evidence.study["name"]))
    head = tag("p", "cerebro study", class_="kind") + tag("h1", name) + summary(evidence) + links
    style = files("cerebro.report").joinpath("page.css").read_text()
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name} - cerebro</title><style>{style}</style></head>"
        f"<body><main><header>{head}</header>{body}</main></body></html>\n"
    )
    write_atomically(out, lambda file: _write(file, page))
    return out


def _write(file: BinaryIO, page: str) -> None:
    file.write(page.encode())
