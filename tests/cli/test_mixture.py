import importlib
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from cerebro.cli.data_config import PrepareConfig
from cerebro.cli.main import main
from cerebro.cli.mixture import _first_look
from cerebro.data.channels import AsPrepared
from cerebro.data.mixture import open_store
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers import LaBraMHDF5
from cerebro.errors import DataError
from cerebro.simulate.writers import write_bdf
from cerebro.study.execute import store_hash

HALF = {"wide": ("Fp1", "Fp2", "C3", "Cz", "C4", "Pz", "O1", "O2"), "narrow": ("Cz", "O1", "P3")}


@pytest.fixture
def corpora(tmp_path):
    """Two folders of recordings with a config each, and the config of their mixture."""
    draw = np.random.default_rng(0)
    for name, channels in HALF.items():
        for who in range(4 if name == "wide" else 3):
            eeg = draw.normal(0, 20, (len(channels), 1500)).astype(np.float32)
            write_bdf(tmp_path / name / f"P{who}_rest.bdf", eeg, channels, 250.0)
        people = "".join(f"P{who},{20 + who}\n" for who in range(4))
        (tmp_path / name / "people.csv").write_text("id,age\n" + people)
        config(tmp_path, name)
    mix(tmp_path)
    return tmp_path


def config(folder, name, sfreq=100.0, reference="average"):
    init = {
        "root": name,
        "name": name,
        "pattern": "*.bdf",
        "participants": f"{name}/people.csv",
        "reference": reference,
    }
    init |= {"participant_column": "id", "participant_from": "^(P[0-9])_", "tasks": {"rest": "rest"}}
    content = {"reader": {"class_path": "Folder", "init_args": init}, "preprocessing": {"sfreq": sfreq}}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))


def mix(folder, **changes):
    sources = {name: {"config": f"{name}.yaml", "weight": weight} for name, weight in (("wide", 2), ("narrow", 1))}
    content = {"sources": sources, "sfreq": 100.0, "channels": {"target": "10-20-19"}} | changes
    (folder / "mixture.yaml").write_text(yaml.safe_dump(content))


def refused(folder, capsys, *argv):
    code = main(["prepare", str(folder / "mixture.yaml"), "--out", str(folder / "out"), *argv])
    out = capsys.readouterr()
    assert code == 2
    assert out.err.count("\n") == 1
    return out.err


def test_a_mixture_is_prepared_member_by_member_and_continues(corpora, capsys):
    out = corpora / "out"
    argv = ["prepare", str(corpora / "mixture.yaml"), "--out", str(out), "--jobs", "1"]
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert "member wide" in text
    assert "mixture" in text
    mixture = open_store(out)
    assert [(member.name, round(member.weight, 3)) for member in mixture.members] == [
        ("narrow", 0.333),
        ("wide", 0.667),
    ]
    assert len(mixture) == 7
    for name in HALF:
        assert json.loads((out / name / "build_report.json").read_text())["read"] > 0
    assert store_hash(out) == mixture.data_hash
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.suffix in (".i16", ".npy")}
    assert main(argv) == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.suffix in (".i16", ".npy")}
    capsys.readouterr()
    assert main(["check", str(out)]) == 0
    assert "0 errors" in capsys.readouterr().out


def test_a_mixture_whose_build_was_stopped_is_unfinished_and_the_same_command_finishes_it(corpora, capsys):
    out = corpora / "out"
    assert main(["prepare", str(corpora / "narrow.yaml"), "--out", str(out / "narrow")]) == 0  # as far as it came
    assert main(["check", str(out)]) == 2
    assert "is unfinished" in capsys.readouterr().err
    stamp = (out / "narrow" / "shards" / "00000.i16").stat().st_mtime_ns
    assert main(["prepare", str(corpora / "mixture.yaml"), "--out", str(out)]) == 0
    assert (out / "narrow" / "shards" / "00000.i16").stat().st_mtime_ns == stamp


def test_a_member_that_is_there_is_referenced(corpora, capsys):
    assert main(["prepare", str(corpora / "wide.yaml"), "--out", str(corpora / "stores" / "wide")]) == 0
    mix(corpora, sources={"wide": {"store": "stores/wide"}, "narrow": {"config": "narrow.yaml", "weight": 3}})
    assert main(["prepare", str(corpora / "mixture.yaml"), "--out", str(corpora / "out")]) == 0
    entries = json.loads((corpora / "out" / "mixture.json").read_text())["members"]
    assert [entry["path"] for entry in entries] == ["narrow", "../stores/wide"]
    mix(corpora, sources={"wide": {"store": "stores/wide"}, "both": {"store": "out"}})
    assert main(["prepare", str(corpora / "mixture.yaml"), "--out", str(corpora / "again")]) == 2
    assert "member both is a mixture itself" in capsys.readouterr().err
    assert not (corpora / "out" / "wide").exists()


def test_a_plan_names_every_member_and_builds_nothing(corpora, capsys):
    assert main(["prepare", str(corpora / "mixture.yaml"), "--plan"]) == 0
    text = capsys.readouterr().out
    assert "member narrow" in text
    assert "4 participants" in text
    assert not (corpora / "out").exists()


def test_another_rate_is_refused_before_anything_is_built(corpora, capsys):
    config(corpora, "narrow", sfreq=128.0)
    line = refused(corpora, capsys)
    assert "source narrow is prepared at 128 Hz and the mixture has 100 Hz" in line
    assert not (corpora / "out").exists()


def test_differing_references_are_refused_and_the_line_says_what_to_type(corpora, capsys):
    config(corpora, "narrow", reference="linked-ears")
    line = refused(corpora, capsys)
    assert "references of the members differ (narrow: linked-ears; wide: average)" in line
    assert "set `reference: average`" in line
    assert not list((corpora / "out").glob("*"))  # one recording of each was looked at, and none was built


def test_members_of_differing_references_are_referenced_to_the_average(corpora, capsys):
    config(corpora, "wide", reference="linked-ears")
    again = yaml.safe_load((corpora / "wide.yaml").read_text())
    again["reader"]["init_args"] |= {"name": "again", "reference": "Cz"}
    (corpora / "again.yaml").write_text(yaml.safe_dump(again))
    sources = {name: {"config": f"{name}.yaml"} for name in ("wide", "again")}
    mix(corpora, sources=sources, reference="average")
    assert main(["prepare", str(corpora / "mixture.yaml"), "--out", str(corpora / "out")]) == 0
    mixture = open_store(corpora / "out")
    assert mixture.reference == "average"
    assert np.abs(mixture.samples(0).mean(axis=1)).max() < 1  # counts: of rounding
    mix(corpora, sources=sources | {"narrow": {"config": "narrow.yaml"}}, reference="average")
    line = refused(corpora, capsys)
    assert "member narrow has no store, because not one of its recordings could be prepared" in line


def test_wrong_configs_are_refused_in_one_line(corpora, capsys):
    mix(corpora, sources={"wide": {"config": "wide.yaml", "store": "x"}})
    assert "source wide needs either config or store" in refused(corpora, capsys)
    mix(corpora, sources={"wide": {"config": "absent.yaml"}})
    assert "absent.yaml not found" in refused(corpora, capsys)
    mix(corpora, sources={"wide": {"config": "mixture.yaml"}})
    assert "source wide" in refused(corpora, capsys)
    mix(corpora, sources={"../wide": {"config": "wide.yaml"}})
    assert "names a folder" in refused(corpora, capsys)
    mix(corpora, sources={"wide": {"store": "nowhere"}})
    assert "member wide: store" in refused(corpora, capsys)
    mix(corpora, sources={"wide": {"config": "wide.yaml", "weight": -1.0}})
    assert "no shares" in refused(corpora, capsys)
    mix(corpora, channels={"target": "nothing"})
    assert "target='nothing' is unknown" in refused(corpora, capsys)
    mix(corpora, rate=100)
    assert "rate" in refused(corpora, capsys)
    mix(corpora, sources={"wide": {"config": "wide.yaml", "weight": None}})
    assert "key sources.wide.weight is empty" in refused(corpora, capsys)
    mix(corpora, sources={"wide": "wide.yaml"})
    assert "source wide: found wide.yaml, expected {config: CONFIG.yaml" in refused(corpora, capsys)
    mix(corpora, channels="10-20-19")
    assert "channels: found 10-20-19, expected" in refused(corpora, capsys)
    mix(corpora, reference=None)
    assert "key reference is empty" in refused(corpora, capsys)
    mix(corpora, channels={"electrodes": ["Cz", "cz"]})
    assert "electrodes has cz twice" in refused(corpora, capsys)
    mix(corpora, channels={"electrodes": ["Cz", "Q9"]})
    assert "electrodes Q9 are not in 10-05" in refused(corpora, capsys)
    mix(corpora)
    assert "--sources.wide.weight cannot be typed" in refused(corpora, capsys, "--sources.wide.weight", "3")
    (corpora / "narrow.yaml").write_text("preprocessing: {sfreq: fast}\n")
    assert "narrow.yaml: preprocessing.sfreq: found fast, expected float" in refused(corpora, capsys)
    (corpora / "narrow.yaml").write_text("preprocessing:\n")
    assert "narrow.yaml: key preprocessing is empty" in refused(corpora, capsys)
    config(corpora, "narrow")
    assert not (corpora / "out" / "wide").exists()
    assert "--json" in refused(corpora, capsys, "--plan", "--json", "x.json")


def test_a_rate_typed_for_all_members_must_be_the_mixtures(corpora, capsys):
    line = refused(corpora, capsys, "--preprocessing.sfreq", "125")
    assert "source narrow is prepared at 125 Hz and the mixture has 100 Hz" in line
    assert not (corpora / "out").exists()
    argv = ["--preprocessing.sfreq", "125", "--sfreq=125", "--channels.method", "pad", "--lsb_uV", "0.1"]
    assert main(["prepare", str(corpora / "mixture.yaml"), "--out", str(corpora / "out"), *argv]) == 0
    mixture = open_store(corpora / "out")
    assert (mixture.sfreq, mixture.lsb_uV, mixture.channels["method"]) == (125.0, 0.1, "pad")


def test_caps_that_place_a_channel_apart_need_channels_before_anything_is_built(corpora, capsys):
    content = yaml.safe_load((corpora / "narrow.yaml").read_text())
    content["reader"]["init_args"]["montage"] = "hbn_129"
    (corpora / "narrow.yaml").write_text(yaml.safe_dump(content))
    plain = yaml.safe_load((corpora / "mixture.yaml").read_text())
    del plain["channels"]
    (corpora / "mixture.yaml").write_text(yaml.safe_dump(plain))
    line = refused(corpora, capsys)
    assert "place channel Cz 18 mm apart in narrow or wide; set channels in" in line
    assert not list((corpora / "out").glob("*"))


def test_an_electrode_file_belongs_to_the_mixture(corpora, capsys, monkeypatch):
    text = "UnitPosition mm\nPositions\nLPA: -80 0 0\nRPA: 80 0 0\nNz: 0 100 0\nCz: 0 0 90\nO1: -30 -80 20\n"
    (corpora / "caps").mkdir()
    (corpora / "caps" / "two.elc").write_text(text)
    mix(corpora, channels={"target": "caps/two.elc", "max_distance_mm": 0.0})  # as seen from the config
    elsewhere = corpora / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["prepare", str(corpora / "mixture.yaml"), "--out", str(corpora / "out")]) == 0
    mixture = open_store(corpora / "out")
    assert AsPrepared().plan(mixture).names == ("Nz", "Cz", "O1")
    (corpora / "caps" / "two.elc").write_text(text.replace("90", "91"))
    with pytest.raises(DataError, match=r"electrode file ../caps/two.elc of .* is another than it was mixed with"):
        open_store(corpora / "out")
    assert main(["prepare", str(corpora / "mixture.yaml"), "--out", str(corpora / "out")]) == 0
    assert open_store(corpora / "out").data_hash != mixture.data_hash
    (corpora / "caps" / "two.elc").unlink()
    assert "two.elc does not exist" in refused(corpora, capsys)


def test_a_member_that_cannot_give_the_channels_is_named(corpora, capsys):
    mix(corpora, channels={"target": "10-20-19", "electrodes": ["P3"], "max_distance_mm": 0.0})
    line = refused(corpora, capsys)
    assert "member wide: no channel of montage" in line


def test_a_recording_that_ends_its_reader_costs_a_look_and_not_the_command(tmp_path, monkeypatch):
    support = str(Path(__file__).parents[1] / "data" / "support")
    monkeypatch.syspath_prepend(support)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([support, os.environ.get("PYTHONPATH", "")]))
    npy_reader = importlib.import_module("npy_reader")  # children find it by name
    for number, what in enumerate(("crash", "bug", "short", "whole")):
        npy_reader.write_recording(tmp_path, f"sub0{number}_{what}", seed=number)
    seen = _first_look(PrepareConfig(npy_reader.Arrays(tmp_path), Preprocessing(), 0.05, 0.05))
    assert seen is not None
    assert seen.montages[0].channels == ("A", "B", "C")
    assert seen.references == ("Cz",)
    assert sorted(path.stem for path in tmp_path.glob("*.opened")) == [
        "sub00_crash",
        "sub01_bug",
        "sub02_short",
        "sub03_whole",
    ]


def test_a_member_whose_recordings_are_places_in_a_file_is_looked_at_too(tmp_path):
    with h5py.File(tmp_path / "film.hdf5", "w") as file:
        dataset = file.create_dataset("P1_a/eeg", data=np.random.default_rng(0).normal(0, 20, (2, 3000)))
        dataset.attrs.update({"rsFreq": 200, "chOrder": ["O1", "O2"]})
    seen = _first_look(PrepareConfig(LaBraMHDF5(tmp_path, "film"), Preprocessing(), 0.05, 0.05))
    assert seen is not None
    assert seen.montages[0].channels == ("O1", "O2")
