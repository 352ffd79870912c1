"""A model trained on one store is not judged by the same recordings under other names in another store."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cerebro.data import EEGData, ParticipantSplit, SlidingWindows
from cerebro.data.build import build
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers import Folder
from cerebro.errors import CheckpointError
from cerebro.simulate.writers import write_bdf
from cerebro.training.checkpoint import Checkpoint
from cerebro.training.seen import check_unseen
from cerebro.training.stamp import make_stamp

PEOPLE = ("a", "b", "c", "d", "e")
SPLIT = ParticipantSplit(val_ratio=0.2, test_ratio=0.2, seed=0)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Five people with a rest and a count each; in the second store all have new names, and only new counts."""
    root = tmp_path_factory.mktemp("seen")
    for number, person in enumerate(PEOPLE):
        for task in ("rest", "count"):
            rng = np.random.default_rng([number, task == "rest"])
            eeg = 30 * rng.standard_normal((3, 1000)).astype(np.float32)
            write_bdf(root / "one" / f"{person}_{task}.bdf", eeg, ("EEG Fz", "EEG Cz", "EEG Pz"), 100.0)
        (root / "two").mkdir(exist_ok=True)
        shutil.copy(root / "one" / f"{person}_rest.bdf", root / "two" / f"z{person}_rest.bdf")
        new = 30 * np.random.default_rng(number + 99).standard_normal((3, 1000)).astype(np.float32)
        write_bdf(root / "two" / f"z{person}_count.bdf", new, ("EEG Fz", "EEG Cz", "EEG Pz"), 100.0)
    made = []
    for name, prefix in (("one", ""), ("two", "z")):
        table = root / f"{name}.csv"
        table.write_text("id\n" + "".join(f"{prefix}{person}\n" for person in PEOPLE))
        reader = Folder(root / name, name, table, "id", "^([a-z]+)_", {"rest": "rest", "count": "count"}, "*.bdf")
        build(reader, Preprocessing(lowpass_hz=40.0), root / f"store_{name}")
        made.append(root / f"store_{name}")
    return made[0], made[1]


def data_of(store: Path, task: str = "count") -> EEGData:
    return EEGData(store, SlidingWindows(tasks=(task,)), SPLIT)


def test_renamed_people_are_found_by_a_recording_that_neither_windows_nor_names_show(
    stores: tuple[Path, Path], tmp_path: Path
) -> None:
    config = {"data": {}, "model": {}}
    trained = data_of(stores[0])
    stamp = make_stamp("first", trained, config, [], None)
    assert {len(digest) for digest in stamp.recordings["trained"]} == {16}
    assert len(stamp.recordings["trained"]) == 2 * len(trained.participants("train")) == 6
    torch.save(stamp.plain(), tmp_path / "stamp.pt")
    assert torch.load(tmp_path / "stamp.pt", weights_only=True)["recordings"] == stamp.recordings

    source, said = Checkpoint(Path("x.ckpt"), stamp, {}, {}), []
    other = data_of(stores[1])  # windows of counts, which are new; the rests are those of the first store
    tested = {name.removeprefix("two:z") for name in other.participants("test")}
    seen = {name.removeprefix("one:") for name in stamp.seen}
    people = {f"z{name}_rest" for name in tested & seen}
    assert people
    with pytest.raises(CheckpointError, match=f"{len(people)} recordings of test .*first: {min(people)}"):
        check_unseen("test", other, source, False, said.append)
    check_unseen("test", other, source, True, said.append)
    assert "WARNING" in said.pop()
    everyone = replace(stamp, recordings={"trained": [*other.recordings("test")], "validated": []})
    with pytest.raises(CheckpointError, match="under other names"):
        check_unseen("test", other, Checkpoint(Path("x.ckpt"), everyone, {}, {}), False, said.append)
    check_unseen("test", trained, source, False, said.append)  # its own test people are new
    check_unseen("val", trained, source, False, said.append)
    assert said == []
