"""The simulated clinical cohort: raw EDF files and a table of labels; the same bytes always, and what was planted."""

import dataclasses
import hashlib
import json

import mne
import numpy as np
import pandas as pd
import pytest
from scipy.signal import welch
from sklearn.metrics import roc_auc_score

from cerebro.errors import ConfigError
from cerebro.simulate import clinical as module
from cerebro.simulate.clinical import (
    CAP,
    N_RUNS,
    Cap,
    auc_interval,
    cap_of,
    expected_auc,
    simulate_clinical,
)
from cerebro.simulate.cohort import make_spec, participants
from cerebro.simulate.presets import PRESETS
from cerebro.simulate.windows import MUSE, is_in_remission


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def truth_of(folder):
    return json.loads((folder / "ground_truth.json").read_text())


def read(path):
    return mne.io.read_raw_edf(path, preload=True, verbose="error")


@pytest.fixture(scope="module")
def clinic(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("clinical") / "cohort"
    simulate_clinical(out, tiny, cap_of("muse"))
    return out


def test_a_folder_holds_two_raw_recordings_of_everyone_and_the_table_of_labels(clinic, tiny):
    paths = sorted(path.name for path in (clinic / "eeg").iterdir())
    assert paths[:3] == ["sub-001_run-1.edf", "sub-001_run-2.edf", "sub-002_run-1.edf"]
    assert len(paths) == tiny.n_participants * N_RUNS
    table = pd.read_csv(clinic / "participants.tsv", sep="\t")
    assert list(table.columns) == ["participant_id", "group", "age", "sex"]
    assert table["participant_id"].tolist() == [f"sub-{number:03d}" for number in range(1, 16)]
    assert set(table["group"]) == {"non-remission", "remission"}
    assert set(table["sex"]) <= {"F", "M"}
    assert table["age"].between(5, 22).all()
    truth = truth_of(clinic)
    assert truth["label"] == {"column": "group", "values": ["non-remission", "remission"]}
    said = [truth["participants"][name]["remission"] for name in table["participant_id"]]
    assert said == [int(group == "remission") for group in table["group"]]
    assert said == [int(is_in_remission(person)) for person in participants(tiny, {})]


def test_a_recording_is_raw_at_500_hz_with_line_noise_offsets_and_drifts(clinic):
    raw = read(clinic / "eeg" / "sub-002_run-1.edf")
    assert raw.ch_names == list(MUSE)
    assert raw.info["sfreq"] == 500
    assert raw.n_times == 500 * truth_of(clinic)["duration_s"]
    eeg = raw.get_data() * 1e6  # microvolts
    np.testing.assert_allclose(eeg * 10, np.round(eeg * 10), atol=1e-3)  # steps of 0.1
    hz, power = welch(eeg, 500, nperseg=1000)
    above = {
        line: power[:, hz == line] / power[:, np.abs(hz - line) == 3].max(axis=1, keepdims=True) for line in (50, 60)
    }
    assert (above[50] > 5).sum() >= 2  # of the four, each with a size of its own beside muscle
    assert (above[60] < 3).all()
    assert np.abs(eeg.mean(axis=1)).max() > 5  # offsets of electrodes
    slow = np.abs(np.fft.rfft(eeg - eeg.mean(axis=1, keepdims=True), axis=1)) ** 2
    hz = np.fft.rfftfreq(eeg.shape[1], 1 / 500)
    assert (slow[:, hz < 0.35].sum(axis=1) > slow[:, (hz > 0.65) & (hz < 1)].sum(axis=1)).all()


def test_the_cap_of_the_10_20_system_has_21_electrodes_against_fcz(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "N_RUNS", 1)
    simulate_clinical(tmp_path / "cap", tiny, cap_of("1020"))
    raw = read(tmp_path / "cap" / "eeg" / "sub-001_run-1.edf")
    assert raw.ch_names == list(CAP)
    assert len(raw.ch_names) == 21
    assert truth_of(tmp_path / "cap")["reference_electrode"] == "FCz"


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(clinic, tiny, tmp_path):
    simulate_clinical(tmp_path / "again", tiny, cap_of("muse"), n_jobs=2)
    assert digest(tmp_path / "again") == digest(clinic)


def test_an_interrupted_simulation_continues_to_the_same_bytes(clinic, tiny, tmp_path, monkeypatch):
    out, write, written = tmp_path / "cut", module.write_edf, []

    def dies(path, *rest):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *rest)

    monkeypatch.setattr(module, "write_edf", dies)
    with pytest.raises(KeyboardInterrupt):
        simulate_clinical(out, tiny, cap_of("muse"))
    assert not (out / "ground_truth.json").exists()
    cut = written[-1].with_name(f".{written[-1].name}.7.part")
    cut.write_bytes(b"half")  # what SIGKILL within a write leaves
    monkeypatch.undo()
    kept = {path: path.stat().st_mtime_ns for path in written}
    simulate_clinical(out, tiny, cap_of("muse"))
    assert {path: path.stat().st_mtime_ns for path in written} == kept
    assert digest(out) == digest(clinic)
    with pytest.raises(ConfigError, match=r"another simulation \(format clinical"):
        simulate_clinical(out, dataclasses.replace(tiny, seed=4), cap_of("muse"))
    with pytest.raises(ConfigError, match="another simulation"):
        simulate_clinical(out, tiny, cap_of("AF7,AF8"))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("headband", "set --channels to muse or 1020"),
        ("AF7,AF7,AF8", "set --channels to muse or 1020"),
        ("AF7,AF8,Fpz", "other than the reference Fpz"),
        ("", "set --channels to muse or 1020"),
        ("TP9,TP10", "hold no frontal pair"),
        ("AF7,F8", "add one of AF7 AF8, Fp1 Fp2"),
    ],
)
def test_channels_that_cannot_be_recorded_are_refused(names, said):
    with pytest.raises(ConfigError, match=said):
        cap_of(names)


def test_a_list_of_electrodes_is_recorded_against_fpz():
    assert cap_of("F3,F4") == Cap(("F3", "F4"), "Fpz")
    assert cap_of("F3,F4,F7,F8,AF7").pairs() == [("F3", "F4"), ("F7", "F8")]


def test_the_expected_auc_is_that_of_many_people():
    rng = np.random.default_rng(0)
    for r2 in (0.0, 0.3, 0.9):
        score, other = rng.standard_normal((2, 40_000))
        feature = np.sqrt(r2) * score + np.sqrt(1 - r2) * other
        assert expected_auc(r2) == pytest.approx(roc_auc_score(score > 0, feature), abs=0.01)
    assert expected_auc(1.0) == 1


def test_the_clinical_effect_is_one_that_sixty_people_show():
    spec = make_spec("clinical")
    assert (spec.n_participants, spec.strength_name) == (60, "clinical")
    assert expected_auc(spec.strength.internalizing) > 0.95
    assert PRESETS["clinical"].rest_blocks * PRESETS["clinical"].rest_open_s == 360
    assert expected_auc(make_spec("clinical", effect=0.0).strength.internalizing) == 0.5


def test_an_interval_of_the_auc_holds_it_and_narrows_with_people():
    rng = np.random.default_rng(1)
    widths = []
    for n in (20, 200):
        label = np.repeat([0.0, 1.0], n // 2)
        guess = label + rng.standard_normal(n)
        low, high = auc_interval(label, guess, seed=0)
        assert low < roc_auc_score(label, guess) < high
        widths.append(high - low)
    assert widths[1] < 0.5 * widths[0]
    assert auc_interval(np.array([0.0, 1.0]), np.array([0.0, 1.0]), seed=0) == (1.0, 1.0)


@pytest.fixture(scope="module")
def scored(tiny, tmp_path_factory):
    """Truth of cohorts of 40 people who differ in the effect only, half a minute each, without writing any EDF file."""

    def touch(path, *_):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    result = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "write_edf", touch)
        patch.setattr(module, "N_RUNS", 1)
        for effect in (0.0, 1.0):
            spec = make_spec("clinical", 40, 5, effect)
            short = dataclasses.replace(spec.preset, rest_open_s=8.0, rest_closed_s=20.0, rest_blocks=2)
            out = tmp_path_factory.mktemp("scored") / "cohort"
            simulate_clinical(out, dataclasses.replace(spec, preset=short), cap_of("F3,F4"))
            result[effect] = out
    return result


def test_the_recordings_show_the_asymmetry_that_was_planted(scored):
    for folder in scored.values():
        people = truth_of(folder)["participants"]
        records = [json.loads(path.read_text()) for path in sorted((folder / ".simulation").glob("sub-*.json"))]
        shown = [record["asymmetry"][0] for record in records]
        planted = [person["features"]["internalizing"] for person in people.values()]
        assert np.corrcoef(shown, planted)[0, 1] > 0.7  # of half a minute


def test_the_label_can_be_found_as_well_as_the_truth_says(scored):
    truth = truth_of(scored[1.0])
    assert truth["planted_r2"]["remission"] == 0.9
    assert truth["expected_auc"]["remission"] == pytest.approx(expected_auc(0.9), abs=0.002)
    for name in ("oracle", "reference"):
        low, high = truth[f"{name}_auc_interval"]["remission"]
        assert low < truth[f"{name}_auc"]["remission"] < high
    assert truth["oracle_auc_interval"]["remission"][0] < 0.968 < truth["oracle_auc_interval"]["remission"][1]
    assert 0.7 < truth["reference_auc"]["remission"] <= truth["oracle_auc"]["remission"]


def test_without_effect_the_label_cannot_be_found(scored):
    truth = truth_of(scored[0.0])
    assert truth["planted_r2"]["remission"] == 0
    assert truth["oracle_auc"]["remission"] == truth["expected_auc"]["remission"] == 0.5
    assert truth["oracle_auc_interval"]["remission"] == [0.5, 0.5]
    low, high = truth["reference_auc_interval"]["remission"]
    assert low < 0.5 < high
