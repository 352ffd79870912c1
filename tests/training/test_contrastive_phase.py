"""The contrastive phase from store to record: every kind of pairs, the shuffled control, synchrony in films."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cerebro.data import EEGData, FilmWindows, ParticipantSplit, SlidingWindows
from cerebro.data.arrays import write_store
from cerebro.data.readers.base import Event
from cerebro.data.sources import EyesWindows, TaskPairs
from cerebro.encoders.labram import LaBraM
from cerebro.errors import ConfigError
from cerebro.montage import Montage
from cerebro.objectives import Contrastive, WeightedSum
from cerebro.training.keys import RunKeys, TrainerKeys
from cerebro.training.optim import Optim
from cerebro.training.phase import Phase
from cerebro.training.run import fit
from cerebro.training.synchrony import write_synchrony
from cerebro.training.tracking import MLflowKeys

SHARED, OWN = "ThePresent", "DespicableMe"  # one film drives everyone alike, the other nobody


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve people; the rhythm of the EEG follows a film second by second, in all alike or in each differently."""
    rng = np.random.default_rng(0)
    people = [f"p{i:02d}" for i in range(12)]
    cap = Montage("cap", ("Fz", "Cz", "Pz"), np.array([[0.0, 0.08, 0.05], [0.0, 0.0, 0.09], [0.0, -0.08, 0.05]]))
    rows = {f"{name}/{task}": (name, task) for name in people for task in (SHARED, OWN, "RestingState")}
    film_hz = rng.uniform(2, 20, 40)
    eeg, events = {}, {}
    for key, (_, task) in rows.items():
        start = int(rng.integers(50, 150))
        eeg[key] = (10 * rng.normal(size=(3, 4500))).astype(np.float32)
        if task != "RestingState":
            hz = np.repeat(film_hz if task == SHARED else rng.uniform(2, 20, 40), 100)
            eeg[key][:, start : start + 4000] += 30 * np.sin(2 * np.pi * hz * (np.arange(4000) % 100) / 100)
        marks = (Event(start / 100, "video_start"), Event(start / 100 + 40, "video_stop"))
        rest = (Event(1.0, "instructed_toOpenEyes"), Event(15.0, "instructed_toCloseEyes"))
        events[key] = rest if task == "RestingState" else marks
    return write_store(
        tmp_path_factory.mktemp("contrastive") / "cohort",
        eeg,
        cap,
        100.0,
        tasks={key: task for key, (_, task) in rows.items()},
        people={key: name for key, (name, _) in rows.items()},
        participants=pd.DataFrame(index=pd.Index(people, name="participant_id")),
        events=events,
    ).path


def build(signal: Any, objective: Any = Contrastive) -> Phase:
    return Phase("contrastive", signal, partial(LaBraM, conv_channels=2, depth=1, n_heads=2), objective, Optim(lr=1e-3))


def train(
    store: Path, out: Path, windows: Any, lines: list[str] | None = None, objective: Any = Contrastive, **keys: Any
):
    keys = {"batch_size": 8, "order": "pairs", "batches_per_epoch": 2, "max_eval_windows": 16} | keys
    data = EEGData(store, windows, ParticipantSplit(0.5), **keys)
    trainer = TrainerKeys(1, accelerator="cpu")
    run = RunKeys(out, mlflow=MLflowKeys(enabled=False))
    config = {"model": {"name": "contrastive"}, "data": {}}
    return fit(
        partial(build, objective=objective), data, trainer, run, config, None, ([] if lines is None else lines).append
    )


def history(out: Path) -> dict[str, Any]:
    return json.loads((out / "history.jsonl").read_text().splitlines()[-1])


FILMS = FilmWindows(1.0, 1.0, films=(SHARED, OWN))
SOURCES = {
    "film": FILMS,
    "film_any_time": FilmWindows(1.0, 1.0, films=(SHARED, OWN), positives="same_film_any_time"),
    "eyes": EyesWindows(),
    "eyes_and_time": EyesWindows(positives="same_state_and_time"),
    "tasks": TaskPairs(),
}


@pytest.mark.parametrize("is_shuffled", [False, True])
@pytest.mark.parametrize("name", SOURCES)
def test_every_kind_of_pairs_trains_two_steps(store: Path, tmp_path: Path, name: str, is_shuffled: bool) -> None:
    result = train(store, tmp_path, SOURCES[name], shuffle_pairs=is_shuffled)
    row = history(tmp_path)
    assert result["state"] == "finished"
    assert row["step"] == 2
    for side in ("train", "val"):
        assert row[f"{side}/share_of_anchors"] == 1
        assert row[f"{side}/share_of_batches_without_positive"] == 0
        assert row[f"{side}/loss"] > 0
        for part in ("positive_similarity", "negative_similarity", "alignment", "uniformity"):
            assert np.isfinite(row[f"{side}/{part}"])
    assert (tmp_path / "isc.json").exists() == name.startswith("film")


def test_synchrony_is_found_in_the_film_that_drives_people_and_not_in_the_other(store: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    train(store, tmp_path, FILMS, lines)
    found = json.loads((tmp_path / "isc.json").read_text())
    films = {(row["film"], row["vectors"]): row for row in found["films"]}
    kinds = ("recording", "embedding", "projection")
    assert set(films) == {(film, kind) for film in (SHARED, OWN) for kind in kinds}
    for kind in kinds:
        shared, own = films[SHARED, kind], films[OWN, kind]
        assert shared["p"] == pytest.approx(1 / 201)
        assert shared["isc"] > shared["shuffled_q95"] + 0.1
        assert own["p"] > 0.02
        assert abs(own["isc"]) < 0.25
        assert (shared["n_people"], shared["n_times"]) == (6, 40)
        assert shared["moment_found"] > 0.2 > 0.12 > own["moment_found"]
        assert shared["moment_chance"] == pytest.approx(1 / 40)
        if kind == "recording":
            assert kind not in found["spread"]
            continue
        assert 1 <= found["spread"][kind]["effective_rank"] <= found["spread"][kind]["n_dimensions"]
        assert 0 < found["spread"][kind]["alignment"] < 4
    said = [line for line in lines if line.startswith("isc of ThePresent, embedding: ")]
    assert len(said) == 1
    assert "(shuffled " in said[0]
    assert "(chance 2.5%)" in said[0]
    assert said[0].endswith("6 people, 40 moments")


def test_films_of_a_side_are_those_of_its_people(store: Path) -> None:
    """The linear reference is found on training participants, and measured on the others."""
    data = EEGData(store, FILMS, ParticipantSplit(0.5))
    data.setup("fit")
    for side in ("train", "val"):
        people = {int(number) for raw in data.film_dataloader(side) for number in raw.to_microvolts().participant}
        assert {data.participant_keys()[number] for number in people} == set(data.participants(side))


def test_without_two_people_in_training_the_reference_is_said_to_be_unknown(store: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    keys = {"order": "shuffled", "batch_size": 64, "max_eval_windows": 0}
    few = EEGData(store, FILMS, ParticipantSplit(11 / 12), **keys)
    few.setup("fit")
    assert len(few.participants("train")) == 1
    phase = build(few.signal)
    write_synchrony(tmp_path / "isc.json", phase, few, "32-true", torch.device("cpu"), lines.append)
    assert lines[0].startswith("isc of films, recording: unknown, for among training participants there is no moment")
    assert {row["vectors"] for row in json.loads((tmp_path / "isc.json").read_text())["films"]} == {
        "embedding",
        "projection",
    }


def test_the_synchrony_of_a_term_is_measured_and_its_remarks_are_said(store: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    objective = partial(WeightedSum, terms={"film": Contrastive}, weights={"film": 0.5})
    train(store, tmp_path, FILMS, lines, objective, order="shuffled", batch_size=4, batches_per_epoch=30)
    rows = json.loads((tmp_path / "isc.json").read_text())["films"]
    assert {row["vectors"] for row in rows} == {"recording", "film/embedding", "film/projection"}
    n_without = round(30 * history(tmp_path)["train/film/share_of_batches_without_positive"])
    assert 0 < n_without < 30
    assert (
        f"film: WARNING {n_without} of 30 training batches had no positive pair and taught nothing; set data.order "
        in (" ".join(lines))
    )


def test_data_that_cannot_give_a_pair_end_with_one_line_before_training(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"0 have a pair .* set data.order to pairs and data.windows to FilmWindows"):
        train(store, tmp_path, SlidingWindows(), order="shuffled")
    assert not (tmp_path / "last.ckpt").exists()
