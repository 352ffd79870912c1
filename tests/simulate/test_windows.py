"""Simulated Parquet windows: columns, order, label and truth; the same bytes always."""

import dataclasses
import hashlib
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from cerebro.errors import ConfigError
from cerebro.simulate import windows as module
from cerebro.simulate.cohort import make_spec
from cerebro.simulate.windows import MUSE, WINDOW_SAMPLES, Form, label_place, simulate_windows

FIXED = ["run", "parent_window_id", "sub_window_id", "window_start", "window_end"]


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def short():
    """Six windows a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "N_WINDOWS", {"demo": 6})
        yield


@pytest.fixture(scope="module")
def cohort(short, tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("windows") / "cohort"
    simulate_windows(out, tiny, Form())
    return out


def test_a_file_holds_one_run_in_order_with_a_list_of_samples_per_channel(cohort):
    paths = sorted((cohort / "windows").iterdir())
    assert [path.name for path in paths[:3]] == [
        "SIM3P0000_run-1.parquet", "SIM3P0000_run-2.parquet", "SIM3P0001_run-1.parquet"
    ]  # fmt: skip
    assert len(paths) == 30
    table = pq.read_table(paths[1], page_checksum_verification=True)
    assert table.column_names == ["participant", *FIXED, *MUSE]
    frame = table.to_pandas()
    assert frame["participant"].tolist() == ["SIM3P0000"] * 6
    assert frame["run"].tolist() == [2] * 6
    assert frame["parent_window_id"].tolist() == [0, 0, 0, 0, 1, 1]
    assert frame["sub_window_id"].tolist() == [0, 1, 2, 3, 0, 1]
    assert frame["window_start"].tolist() == [0, 8, 16, 24, 32, 40]
    assert frame["window_end"].tolist() == [8, 16, 24, 32, 40, 48]
    for name in MUSE:
        assert {len(samples) for samples in frame[name]} == {WINDOW_SAMPLES}
        assert frame[name][0].dtype == np.float32
        assert 2 < np.concatenate(frame[name]).std() < 100  # microvolts


def test_windows_follow_one_another_without_a_gap(cohort):
    frame = pq.read_table(cohort / "windows" / "SIM3P0001_run-1.parquet").to_pandas()
    steps = [np.abs(b[0] - a[-1]) for a, b in zip(frame["AF7"][:-1], frame["AF7"][1:], strict=True)]
    within = np.abs(np.diff(np.concatenate(frame["AF7"])))
    assert np.mean(steps) < 5 * within.mean()


@pytest.mark.parametrize(
    ("place", "columns"),
    [("column", ["participant", "remission", *FIXED, *MUSE]), ("primary", ["Participant", "Remission", *FIXED, *MUSE])],
)
def test_the_label_may_stand_in_the_files(short, cohort, tiny, tmp_path, place, columns):
    simulate_windows(tmp_path / "out", tiny, Form(remission=place))
    labels = pd.read_csv(cohort / "participants.tsv", sep="\t", index_col=0)["remission"]
    assert set(labels) == {0, 1}
    for path in (tmp_path / "out" / "windows").iterdir():
        table = pq.read_table(path)
        assert table.column_names == columns
        assert table[columns[1]].to_pylist() == [labels[path.name.partition("_")[0]]] * 6
        same = pq.read_table(cohort / "windows" / path.name)
        assert table.select(FIXED + list(MUSE)) == same.select(FIXED + list(MUSE))


def test_other_channels_are_named_in_upper_case(short, tiny, tmp_path):
    simulate_windows(tmp_path / "out", tiny, Form(("Fp1", "POz")))
    table = pq.read_table(tmp_path / "out" / "windows" / "SIM3P0000_run-1.parquet")
    assert table.column_names[-2:] == ["FP1", "POZ"]


@pytest.mark.parametrize("channels", [(), ("AF7", "AF7"), ("AF7", "E7"), ("AF7", "Fpz"), ("T3",)])
def test_channels_that_are_none_are_refused(channels):
    with pytest.raises(ConfigError, match="set --channels to names such as TP9,AF7,AF8,TP10"):
        Form(channels)


def test_an_unknown_place_of_the_label_is_refused():
    with pytest.raises(ConfigError, match="set remission to one of column, primary, table"):
        label_place("file")


def test_two_processes_and_an_interruption_give_the_same_bytes(short, cohort, tiny, tmp_path, monkeypatch):
    out, write, written = tmp_path / "cut", module.write_atomically, []

    def dies(path, *rest):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *rest)

    monkeypatch.setattr(module, "write_atomically", dies)
    with pytest.raises(KeyboardInterrupt):
        simulate_windows(out, tiny, Form())
    monkeypatch.setattr(module, "write_atomically", lambda path, *rest: (written.append(path), write(path, *rest)))
    simulate_windows(out, tiny, Form())
    assert len(written) == len(set(written)) == 30
    assert digest(out) == digest(cohort)
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="another simulation"):
        simulate_windows(out, tiny, Form(remission="column"))
    with pytest.raises(ConfigError, match="another simulation"):
        simulate_windows(out, dataclasses.replace(tiny, seed=4), Form())


@pytest.fixture(scope="module")
def scored(short, tmp_path_factory):
    """Truth of cohorts of 60 people who differ in the effect only, without writing any file."""

    def touch(path, *_):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    result = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "write_atomically", touch)
        patch.setattr(module, "N_RUNS", 1)
        for effect in (0.0, 1.1):
            out = tmp_path_factory.mktemp("scored") / "cohort"
            result[effect] = json.loads(simulate_windows(out, make_spec("demo", 60, 5, effect), Form()).read_text())
    return result


def test_the_label_can_be_found_as_well_as_the_truth_says(scored):
    truth = scored[1.1]
    assert truth["planted_r2"]["remission"] == pytest.approx(0.3 * 1.1**2)
    r = np.sqrt(truth["planted_r2"]["remission"])
    assert truth["oracle_balanced_accuracy"]["remission"] == pytest.approx(0.5 + np.arcsin(r) / np.pi, abs=0.12)
    assert 0.62 < truth["reference_auc"]["remission"] <= truth["oracle_auc"]["remission"] + 0.08
    assert truth["oracle_nrmse"]["remission"] < 0.95


def test_without_effect_the_label_cannot_be_found(scored):
    truth = scored[0.0]
    assert truth["planted_r2"]["remission"] == 0
    assert truth["oracle_nrmse"]["remission"] == pytest.approx(1, abs=0.02)
    assert truth["oracle_auc"]["remission"] == 0.5
    assert truth["reference_nrmse"]["remission"] > 0.95
    assert 0.3 < truth["reference_auc"]["remission"] < 0.7
