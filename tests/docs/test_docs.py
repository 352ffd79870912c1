"""The documentation holds: what is marked to run runs, links lead somewhere, generated tables are those of the code.

Marks stand after the language of a code block: ``run`` (python: executed; console: each ``$ cerebro ...`` line is run)
and ``file=NAME`` (the block is written there before the next one runs). Blocks of a page run in order in one workspace
that holds the repository's configs and recipes, a tiny store in the place of ``stores/demo`` and a few recordings in
``recordings``. ``python tests/docs/test_docs.py`` rewrites the generated tables.
"""

import dataclasses
import inspect
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docstring_parser
import numpy as np
import pandas as pd
import pytest
import yaml

from cerebro.cli.fit import make_parser
from cerebro.cli.main import VERBS, main
from cerebro.cli.process_config import Recordings
from cerebro.data.arrays import write_store
from cerebro.data.channels import ChannelSpace
from cerebro.data.feature_list import FEATURES
from cerebro.data.preprocess import Preprocessing
from cerebro.data.processing import Processing
from cerebro.data.readers.base import Event, Reader
from cerebro.data.readers.table_file import TableFormat
from cerebro.data.sources import WindowSource
from cerebro.data.two_labels import Label
from cerebro.encoders import Encoder
from cerebro.errors import ConfigError
from cerebro.montage import Montage, hbn_129
from cerebro.objectives import Masking, Objective
from cerebro.readouts import Readout
from cerebro.simulate.writers import write_bdf
from cerebro.study.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md") if (ROOT / name).is_file()),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "changes" / "README.md",
]
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
GENERATED = re.compile(r"(<!-- generated: ([^>]+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
# What makes a documented command cheap on the tiny store.
CHEAP = "--mlflow.enabled false --trainer.max_epochs 1 --trainer.accelerator cpu --data.batches_per_epoch 3 "
CHEAP += "--data.batch_size 16 --data.max_eval_windows 16"
ALONE = ("run", "report", "simulate")  # too long for a block that is marked to run, unless with --dry-run


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """(Language, marks, text) of each code block."""
    for language, marks, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        yield language, marks.strip(), text


def commands(text: str) -> list[list[str]]:
    """Arguments of each ``$ cerebro ...`` line (``$`` may be absent in all of them); ``\\`` continues a line."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    prompt = "$ " if any(line.startswith("$ ") for line in lines) else ""
    typed = [line.removeprefix(prompt) for line in lines if line.startswith(f"{prompt}cerebro ")]
    return [shlex.split(line, comments=True)[1:] for line in typed]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


RUNNABLE = [page for page in PAGES if any("run" in marks.split() for _, marks, _ in blocks(page))]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configs, recipes, a tiny store of twelve people and a folder of recordings of six."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("configs", "recipes"):
        shutil.copytree(ROOT / name, folder / name)
    draw = np.random.default_rng(0)
    full = hbn_129()
    cap = Montage("hbn_129", full.channels[:8], full.positions[:8])
    film = (Event(1.0, "video_start"), Event(21.0, "video_stop"))
    trials = [(5.0 * i + 1, "left_target", 5.0 * i + 2 + 0.1 * i, "left_buttonPress") for i in range(4)]
    events = tuple(Event(at, name) for first in trials for at, name in (first[:2], first[2:]))
    people = [f"sub-P{i:02d}" for i in range(12)]
    rows = {f"{who}/{task}": (who, task) for who in people for task in ("ThePresent", "contrastChangeDetection")}
    write_store(
        folder / "stores" / "demo",
        {key: draw.normal(0, 20, (8, 2300)).astype(np.float32) for key in rows},
        cap,
        100.0,
        tasks={key: task for key, (_, task) in rows.items()},
        people={key: who for key, (who, _) in rows.items()},
        participants=pd.DataFrame(
            {"p_factor": [np.nan, *np.linspace(-1, 1, 11)], "release_number": ["R1"] * 9 + ["R5"] * 3},
            index=pd.Index(people, name="participant_id"),
        ),
        events={key: film if task == "ThePresent" else events for key, (_, task) in rows.items()},
        corpus="HBN",
    )
    for who in range(1, 7):
        for state in ("open", "closed"):
            eeg = draw.normal(0, 20, (4, 3000)).astype(np.float32)
            write_bdf(folder / "recordings" / f"P{who:02d}_{state}.bdf", eeg, ("Fp1", "Fp2", "O1", "O2"), 250.0)
    table = "".join(f"P{who:02d},{20 + who},{'MF'[who % 2]}\n" for who in range(1, 7))
    (folder / "recordings" / "people.csv").write_text("id,age,sex\n" + table)
    return folder


@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_what_a_page_marks_to_run_runs(
    page: Path, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "docs"}
    for language, marks, text in blocks(page):
        if found := re.search(r"file=(\S+)", marks):
            Path(found[1]).parent.mkdir(parents=True, exist_ok=True)
            Path(found[1]).write_text(text, encoding="utf-8")
        if "run" not in marks.split():
            continue
        if language == "python":
            exec(compile(text, f"{name_of(page)} in a block", "exec"), names)
            continue
        for words in commands(text):
            cheap = CHEAP.split() if words[0] == "fit" else []
            assert words[0] not in ALONE or "--dry-run" in words, f"{words}: too long for a test; drop the mark"
            assert main([*words, *cheap]) == 0, f"cerebro {shlex.join(words)}: {capsys.readouterr().err}"
    if page.stem == "first_study":
        check_run_folder(tmp_path / "outputs" / "challenge1")


def check_run_folder(run: Path) -> None:
    """Every file and every key of run.json that a phase leaves is named in the reference."""
    told = (ROOT / "docs" / "reference" / "run_folder.md").read_text(encoding="utf-8")
    record = yaml.safe_load((run / "run.json").read_text())
    missing = [name for name in [*(path.name for path in run.iterdir()), *record] if f"`{name}`" not in told]
    assert not missing, f"run_folder.md does not name {missing}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_that_are_shown_exist(page: Path) -> None:
    for _, _, text in (block for block in blocks(page) if block[0] in ("console", "bash", "sh")):
        for words in commands(text):
            assert words[0] in VERBS or words[0].startswith("-"), f"{name_of(page)}: cerebro {words[0]} is no verb"
            for word in words:
                if word.startswith(("configs/", "recipes/")) and f"file={word}" not in page.read_text():
                    assert (ROOT / word).is_file(), f"{name_of(page)} names {word}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_yaml_that_is_shown_is_yaml(page: Path) -> None:
    for language, _, text in blocks(page):
        if language == "yaml":
            assert yaml.safe_load(text), name_of(page)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = page if not path else (page.parent / path).resolve()
        assert found.exists(), f"{name_of(page)} links to {target}"
        if anchor:
            heads = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]
            assert anchor in slugs, f"{name_of(page)} links to {target}; {found.name} has {slugs}"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    missing = [
        page for page in pages if page != "README.md" and not page.startswith("decisions/") and page not in index
    ]
    assert missing == []


def test_the_readme_shows_the_recipe_of_the_demo() -> None:
    shown = [text for language, _, text in blocks(ROOT / "README.md") if language == "yaml"]
    assert shown == [(ROOT / "recipes" / "demo.yaml").read_text(encoding="utf-8")]


def test_the_recipe_page_has_every_key(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "reference" / "recipe.md").read_text(encoding="utf-8")
    (tmp_path / "r.yaml").write_text("qqqqqq: 1\n")
    with pytest.raises(ConfigError) as refusal:
        read_recipe(tmp_path / "r.yaml")
    known = str(refusal.value).partition("known keys are ")[2].rstrip(".").split(", ")
    assert len(known) > 5
    assert [key for key in known if f"| `{key}" not in page] == []


# ------------------------------------------------------------------------------------------------ generated tables


def cell(text: Any) -> str:
    return " ".join(str(text).split()).replace("``", "`").replace("|", "\\|")


def fit_keys() -> str:
    """Every key of a phase YAML, from the real parser."""
    parser = make_parser("fit")
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for action in parser._actions:
        is_key = action.dest not in ("help", "config", "print_config") and not action.dest.endswith(".help")
        if is_key and action.help != "Path to a configuration file.":
            default = "required" if action.required else f"`{plain(action.default)}`"
            rows.append(f"| `{action.dest}` | {default} | {cell((action.help or '').replace('%%', '%'))} |")
    return "\n".join(rows) + "\n"


def plain(value: Any) -> str:
    """A default as a YAML writes it."""
    if isinstance(value, tuple):
        return str(list(value)).replace("'", "").replace("(", "[").replace(")", "]")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, type):
        return value.__name__
    if dataclasses.is_dataclass(value):
        return "{" + ", ".join(f"{name}: {plain(one)}" for name, one in vars(value).items() if one != "") + "}"
    if hasattr(value, "class_path"):
        return str(value.class_path).rpartition(".")[2]
    return str(value) if value != "" else '""'


def constructor(cls: type) -> str:
    """Parameters of a class that a YAML sets, with their defaults."""
    described = {entry.arg_name: entry for entry in docstring_parser.parse(cls.__doc__ or "").params}
    rows = [f"**{cls.__name__}**: {cell(docstring_parser.parse(cls.__doc__ or '').short_description)}", ""]
    taken = {"self", "encoder", "signal", "n_outputs", "n_patches"}
    if cls.__name__ == "FrozenTokenizer":
        taken = {"self", "signal"}
    parameters = [p for name, p in inspect.signature(cls).parameters.items() if name not in taken]
    own = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    made = {one.name: one.default_factory() for one in own if one.default_factory is not dataclasses.MISSING}
    if parameters:
        rows += ["| key | default | meaning |", "|---|---|---|"]
    for parameter in parameters:
        value = made.get(parameter.name, parameter.default)
        default = "required" if value is parameter.empty else f"`{plain(value)}`"
        names = [n for n in described if parameter.name in re.split(r",\s*", n)]
        entry = described[names[0]] if names else None
        meaning = "" if entry is None else entry.description or f"one of {entry.type_name}"
        rows.append(f"| `{parameter.name}` | {default} | {cell(meaning)} |")
    return "\n".join(rows) + "\n"


def family(base: type) -> Callable[[], str]:
    return lambda: "\n".join(
        constructor(cls)
        for cls in sorted(base.__subclasses__(), key=lambda cls: cls.__name__)
        if cls.__module__.startswith("cerebro.")
    )


def verbs() -> str:
    rows = [f"| `cerebro {verb}` | {what} |" for verb, (_, _, what) in VERBS.items()]
    return "\n".join(["| command | what it does |", "|---|---|", *rows]) + "\n"


def dependencies() -> str:
    """Dependencies with the reasons that stand beside them in pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    rows = ["| package | for |", "|---|---|"]
    for requirement in tomllib.loads(text)["project"]["dependencies"]:
        reason = re.search(rf'^\s*"{re.escape(requirement)}",\s*# (.+)$', text, re.MULTILINE)
        assert reason, f"{requirement} has no reason beside it in pyproject.toml"
        rows.append(f"| `{requirement}` | {cell(reason[1])} |")
    return "\n".join(rows) + "\n"


def features() -> str:
    """Every kind of column of a table of features."""
    rows = [f"| `{one.pattern}` | {one.unit} | {cell(one.meaning)} | {cell(one.source)} |" for one in FEATURES]
    return "\n".join(["| column | unit | value in a window | source |", "|---|---|---|---|", *rows]) + "\n"


TABLES: dict[str, Callable[[], str]] = {
    "keys of cerebro fit": fit_keys,
    "encoders": family(Encoder),
    "objectives": family(Objective),
    "masks": family(Masking),
    "readouts": family(Readout),
    "windows": family(WindowSource),
    "channels": family(ChannelSpace),
    "readers": family(Reader),
    "preprocessing": lambda: constructor(Preprocessing),
    "processing": lambda: constructor(Processing),
    "recordings of processing": lambda: constructor(Recordings),
    "label of processing": lambda: constructor(Label),
    "table of processing": lambda: constructor(TableFormat),
    "verbs": verbs,
    "dependencies": dependencies,
    "features": features,
}


@pytest.mark.parametrize("name", TABLES)
def test_generated_tables_are_those_of_the_code(name: str) -> None:
    found = [
        text
        for page in PAGES
        for _, title, text, _ in GENERATED.findall(page.read_text(encoding="utf-8"))
        if title == name
    ]
    assert found, f"no page holds the table {name!r}"
    assert all(text == TABLES[name]() for text in found), "run `python tests/docs/test_docs.py` to rewrite the tables"


def rewrite() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        made = GENERATED.sub(lambda match: match[1] + TABLES[match[2]]() + match[4], text)
        if made != text:
            page.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    rewrite()
