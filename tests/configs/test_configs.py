"""Every YAML of the repository: it parses, says its command, and a phase trains two steps on a small made-up store."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import cerebro.cli.fit  # noqa: F401  Lightning logs to the stream there is when it is imported: not that of one test
from cerebro.cli.main import VERBS, main
from cerebro.cli.mixture_config import read_mixture_config
from cerebro.cli.prepare import read_config
from cerebro.cli.process_config import Recordings, read_processing
from cerebro.data.arrays import write_store
from cerebro.data.mixture import write_mixture
from cerebro.data.processing import Processing
from cerebro.data.readers.base import Event, Segment
from cerebro.montage import Montage, hbn_129, standard_1005
from cerebro.study.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    path.relative_to(ROOT).as_posix() for place in ("configs", "recipes") for path in ROOT.glob(f"{place}/**/*.yaml")
)
CONTENT = {name: yaml.safe_load((ROOT / name).read_text()) for name in FILES}
PHASES = [name for name, content in CONTENT.items() if "model" in content]
DATA = [name for name, content in CONTENT.items() if "reader" in content]
MIXTURES = [name for name, content in CONTENT.items() if "sources" in content]
PROCESSING = [name for name, content in CONTENT.items() if "input" in content]
RECIPES = [name for name, content in CONTENT.items() if "phases" in content]
PARTS = [name for name, content in CONTENT.items() if "class_path" in content]  # that others include
PART_KEYS = {"encoders": "--model.encoder", "objectives": "--model.objective"}
MOST = {"depth": 2, "n_layers": 2, "decoder_depth": 1, "n_codes": 512, "teacher_layers": 2, "predictor_depth": 1}
MOST |= {"feedforward": 64, "predictor_feedforward": 64, "n_contexts": 2}
TUAB_SPLIT = ["--data.split.test_releases", "[R5, eval]"]  # as configs/labram_tuh/abnormal.yaml asks for
N_PEOPLE = 14
N_TIMES = 2000  # samples of a recording: one window of Signal-JEPA's pretraining
EVERY = 4  # channel of HBN's net is used: enough that two batches hold more patches than a codebook has codes
TUH_CHANNELS = ("Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "Cz", "A1")
SMALL = {
    "--data.batch_size": "8",
    "--data.batches_per_epoch": "2",
    "--data.max_eval_windows": "16",
    "--trainer.max_epochs": "1",
    "--trainer.accumulate_grad_batches": "1",
    "--mlflow.enabled": "false",
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store in place of each that configs name: of HBN's form, of TUH's, the mixture of both, and one of windows."""
    folder = tmp_path_factory.mktemp("configs")
    hbn, tuh = write_hbn(folder / "hbn"), write_tuh(folder / "tuh")
    channels = CONTENT["configs/data/mixture.yaml"]["channels"]
    mixture = write_mixture(folder / "mixture", {"hbn": hbn, "tuh": tuh}, {"hbn": 0.5, "tuh": 0.5}, "average", channels)
    named = {str(content["data"]["store"]) for name, content in CONTENT.items() if name in PHASES}
    windows = write_windows(folder / "windows")
    made = {"stores/mixture": mixture.path, "stores/mixture/tuh": tuh}
    made |= {"stores/windows": windows, "stores/muse_windows": windows}
    made |= {name: windows for name in named if name.endswith("primary")}
    return {name: made.get(name, hbn) for name in named}


def write_hbn(path: Path) -> Path:
    """Fourteen people, four of R5: film, trials with responses, rest and arithmetic, at some electrodes of the net."""
    rng = np.random.default_rng(0)
    people = [f"p{number:02d}" for number in range(N_PEOPLE)]
    film = (Event(0.5, "video_start"), Event(10.5, "video_stop"))
    trials = tuple(
        event
        for start, response_time in ((1.0, 0.9), (4.0, 1.3), (7.0, 1.7))
        for event in (Event(start, "right_target"), Event(start + response_time, "right_buttonPress"))
    )
    events = {"ThePresent": film, "contrastChangeDetection": trials, "rest": (), "arithmetic": ()}
    rows = {f"{name}/{task}": (name, task) for name in people for task in events}
    factors = ("p_factor", "attention", "internalizing", "externalizing", "age")
    participants = pd.DataFrame(rng.normal(size=(N_PEOPLE, len(factors))), people, factors)
    participants["sex"] = np.arange(N_PEOPLE) % 2.0
    participants["release_number"] = np.where(np.arange(N_PEOPLE) % 7 < 5, "R1", "R5")
    net = hbn_129()
    montage = Montage(net.name, net.channels[::EVERY], net.positions[::EVERY])
    return write_store(
        path,
        {key: rng.normal(0, 30, (len(montage.channels), N_TIMES)).astype(np.float32) for key in rows},
        montage,
        100.0,
        tasks={key: task for key, (_, task) in rows.items()},
        people={key: name for key, (name, _) in rows.items()},
        participants=participants.rename_axis("participant_id"),
        events={key: events[task] for key, (_, task) in rows.items()},
        labels={key: {"arithmetic": float(task == "arithmetic")} for key, (_, task) in rows.items()},
        corpus="HBN",
        reference="average",
    ).path


def write_tuh(path: Path) -> Path:
    """Twelve patients, four of the release ``eval``, half of them abnormal; electrodes of the 10-20 system."""
    rng = np.random.default_rng(1)
    people = [f"t{number:02d}" for number in range(12)]
    cap = standard_1005()
    return write_store(
        path,
        {who: rng.normal(0, 30, (len(TUH_CHANNELS), 6000)).astype(np.float32) for who in people},
        Montage("tuh", TUH_CHANNELS, cap.positions[[cap.channels.index(name) for name in TUH_CHANNELS]]),
        100.0,
        tasks=dict.fromkeys(people, "clinical"),
        people={who: who for who in people},
        participants=pd.DataFrame(index=pd.Index(people, name="participant_id")),
        releases={who: "eval" if number % 3 == 2 else "train" for number, who in enumerate(people)},
        labels={who: {"abnormal": float(number % 2)} for number, who in enumerate(people)},
        corpus="TUH",
        reference="average",
    ).path


def write_windows(path: Path) -> Path:
    """Fourteen people with five windows of 8 s at 256 Hz each, from a headband, with labels as of Muse runs."""
    rng = np.random.default_rng(2)
    people = [f"w{number:02d}" for number in range(N_PEOPLE)]
    names, cap = ("AF7", "AF8", "TP9", "TP10"), standard_1005()
    length, n_windows = 2048, 5
    labels = {"remission": 2, "sex": 2, "age": 11, "p_factor": 7, "count_quality": 2}
    participants = pd.DataFrame({name: np.arange(N_PEOPLE) % n / 1.0 for name, n in labels.items()}, people)
    windows = tuple(Segment(number, 0, 8.0 * number, 8.0 * number + 8.0, length) for number in range(n_windows))
    return write_store(
        path,
        {who: rng.normal(0, 20, (len(names), n_windows * length)).astype(np.float32) for who in people},
        Montage("headband", names, cap.positions[[cap.channels.index(name) for name in names]]),
        256.0,
        tasks=dict.fromkeys(people, "recording"),
        people={who: who for who in people},
        participants=participants.rename_axis("participant_id"),
        labels={
            who: {"session": float(number % 2), "response_time": 0.4 + 0.01 * number, "arithmetic": float(number % 2)}
            for number, who in enumerate(people)
        },
        corpus="windows",
        segments=dict.fromkeys(people, windows),
    ).path


def test_every_file_is_a_phase_a_recipe_data_or_a_part() -> None:
    assert sorted(PHASES + DATA + MIXTURES + PROCESSING + RECIPES + PARTS) == FILES
    assert min(map(len, (PHASES, DATA, RECIPES, PARTS))) > 0


@pytest.mark.parametrize("name", FILES)
def test_a_file_opens_with_what_it_is_and_the_command_that_takes_it(name: str) -> None:
    text = (ROOT / name).read_text()
    opening = re.match(r"(?:#.*\n)*", text)
    assert opening
    assert opening[0].startswith("# ")
    command = re.search(r"^# COMMAND: cerebro ([\w-]+) .*?(\S+\.yaml)", opening[0], re.MULTILINE)
    if name in PARTS:
        assert command is None, "a part has no command of its own"
    else:
        assert command, "write `# COMMAND: cerebro ...` into the opening comment"
        assert command[1] in VERBS
        assert command[2] == name


@pytest.mark.parametrize("name", PHASES)
def test_a_phase_parses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", str(ROOT / name), "--print_config"]) == 0
    resolved = yaml.safe_load(capsys.readouterr().out)
    assert resolved["model"]["name"] == CONTENT[name]["model"]["name"]
    assert resolved["model"]["encoder"]["class_path"].startswith("cerebro.encoders.")


@pytest.mark.parametrize("name", PARTS)
def test_a_part_parses_where_it_is_included(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    phase = next(phase for phase in PHASES if "encoder" in CONTENT[phase]["model"])
    key = PART_KEYS[Path(name).parent.name]
    assert main(["fit", "--config", str(ROOT / phase), key, str(ROOT / name), "--print_config"]) == 0
    part = yaml.safe_load(capsys.readouterr().out)["model"][key.removeprefix("--model.")]
    assert part["class_path"].endswith(f".{CONTENT[name]['class_path']}")
    assert part["init_args"].items() >= CONTENT[name].get("init_args", {}).items()


@pytest.mark.parametrize("name", DATA)
def test_a_data_config_parses(name: str) -> None:
    made = read_config(ROOT / name)
    assert type(made.reader).__name__ == CONTENT[name]["reader"]["class_path"]


@pytest.mark.parametrize("name", PROCESSING)
def test_a_config_of_processing_parses(name: str) -> None:
    recordings, plan = read_processing("process-primary", ROOT / name)
    assert recordings.name == CONTENT[name]["name"]
    assert plan.window_s == CONTENT[name]["window_s"]


def test_the_documented_config_of_processing_has_the_defaults_and_names_every_key() -> None:
    recordings, plan = read_processing("process-primary", ROOT / "configs" / "processing.yaml")
    assert plan == Processing()
    assert plan.window_samples == 2048
    own = Recordings(input=recordings.input, label=recordings.label)
    assert recordings == own
    text = (ROOT / "configs" / "processing.yaml").read_text()
    keys = [one.name for kind in (Recordings, Processing) for one in fields(kind)]
    assert [key for key in keys if not re.search(rf"^(?:# )?{key}:", text, re.MULTILINE)] == []


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_parses_and_the_configs_of_its_members_are_there(name: str) -> None:
    config = read_mixture_config(ROOT / name)
    members = {Path(source.config).resolve().relative_to(ROOT).as_posix() for source in config.sources.values()}
    assert members <= set(DATA)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_parses_and_its_configs_are_there(name: str) -> None:
    recipe = read_recipe(ROOT / name)
    assert recipe.name == Path(name).stem
    assert {phase.config.resolve().relative_to(ROOT).as_posix() for phase in recipe.phases.values()} <= set(PHASES)


def out_of(name: str) -> str:
    """Folder of the run that a config makes here: named by the config where it is by the sizes, which are shrunk."""
    folder: str = CONTENT[name].get("out", "outputs/{name}")
    for sizes in ("{pretrained}", "{model}"):
        folder = folder.replace(sizes, Path(name).stem)
    return folder.replace("{name}", CONTENT[name]["model"]["name"])


def shrunk(name: str, folder: Path) -> Path:
    """The config with its parts written out, and depths and codebooks that two batches can fill."""

    def walk(node: Any, place: Path) -> Any:
        if isinstance(node, dict):
            found = {key: walk(value, place) for key, value in node.items()}
            kept = {key: value for key, value in found.items() if key != "pretrain_config"}  # see `Family.fit`
            return {key: min(value, MOST[key]) if key in MOST else value for key, value in kept.items()}
        if isinstance(node, list):
            return [walk(value, place) for value in node]
        if isinstance(node, str) and node.endswith(".yaml"):
            part = (place / node).resolve()
            return walk(yaml.safe_load(part.read_text()), part.parent)
        return node

    path = folder / name.replace("/", "_")
    path.write_text(yaml.safe_dump(walk(CONTENT[name], (ROOT / name).parent)))
    return path


class Family:
    """Phases of one folder of configs, run by hand one after another as their comments say."""

    def __init__(self, folder: Path, stores: dict[str, Path]) -> None:
        self.folder, self.stores = folder, stores
        folder.mkdir()

    def fit(self, name: str) -> Path:
        """Run a phase after those that it starts from; gives the folder of the run."""
        model = CONTENT[name]["model"]
        out = self.folder / out_of(name)
        if not (out / "run.json").exists():
            for source in (entry["source"] for entry in model.get("init", [])):
                self.fit(self._maker_of(name, source))
            found = CONTENT[name].get("pretrain_config")  # here its run lies elsewhere: see `out_of`
            init = [] if not found else [{"source": f"{self.fit(str(Path(name).with_name(found)))}/best.ckpt"}]
            small = [part for flag in SMALL.items() for part in flag]
            config, store = shrunk(name, self.folder), self.stores[CONTENT[name]["data"]["store"]]
            releases = TUAB_SPLIT if (store / "mixture.json").exists() else []
            here = ["--data.store", str(store), "--out", out_of(name)]
            given = ["--model.init", json.dumps(init)] if init else []
            assert main(["fit", "--config", str(config), *here, *small, *releases, *given]) == 0
        return out

    def _maker_of(self, name: str, source: str) -> str:
        siblings = [other for other in PHASES if Path(other).parent == Path(name).parent]
        makers = [other for other in siblings if source == f"{out_of(other)}/best.ckpt"]
        assert len(makers) == 1, f"{name} starts from {source}, which {len(makers)} configs beside it make"
        return makers[0]


@pytest.fixture(scope="module")
def families(stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Family]:
    """Family by folder of configs."""
    place = tmp_path_factory.mktemp("families")
    return {
        folder: Family(place / folder.replace("/", "_"), stores) for folder in {str(Path(n).parent) for n in PHASES}
    }


@pytest.mark.parametrize("name", PHASES)
def test_a_phase_trains_two_steps_and_is_tested(
    name: str, families: dict[str, Family], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    family = families[str(Path(name).parent)]
    monkeypatch.chdir(family.folder)
    out = family.fit(name)
    report = json.loads((out / "run.json").read_text())
    assert report["state"] == "finished"
    assert report["best"]["metric"] == CONTENT[name].get("monitor", "val/loss")
    if CONTENT[name]["data"]["split"].get("val_ratio") == 0:  # nobody validates
        assert report["best"]["value"] is None
    else:
        assert np.isfinite(report["best"]["value"])
    (row,) = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert row["step"] == 2
    n_found = int("pretrain_config" in CONTENT[name])
    assert len(report["transfers"]) == len(CONTENT[name]["model"].get("init", [])) + n_found
    assert main(["test", "--config", str(out / "config.yaml")]) == 0
    assert ("constant predictor" in capsys.readouterr().out) == bool(CONTENT[name]["data"].get("targets"))
