"""`cerebro process-primary` and `cerebro process`: files, order, labels, store, and what is refused in one line."""

import datetime
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from cerebro.cli.main import main
from cerebro.data.primary_table import verify_order
from cerebro.data.processing import Processing, processing_of
from cerebro.data.sequences import ChannelSequences
from cerebro.data.store import Store
from cerebro.errors import DataError
from cerebro.files import lock_folder
from cerebro.simulate.writers import Trace, write_edf

CHANNELS = ("AF7", "AF8", "TP9", "TP10")
SECONDS = {"eyes-open_1": 42, "eyes-closed_2": 25}  # five and three windows of 8 s
DATE = datetime.date(2020, 1, 1)
NAME = "8s_af7-af8-tp9-tp10"
PRIMARY = f"processed/features/primary/{NAME}_primary_dataset.parquet"
CONFIG: dict[str, Any] = {
    "input": "raw",
    "participant_from": "^(p\\d+)_",
    "run_from": "_(\\d)$",
    "label": {"table": "people.csv", "participant_column": "id", "column": "outcome", "values": ["bad", "good"]},
    "recording_labels": {"closed": {"open": 0.0, "closed": 1.0}},
    "mlflow": {"enabled": False},
}


def write(name: str, seconds: int, channels: tuple[str, ...] = CHANNELS, seed: int = 0, sfreq: int = 250) -> Path:
    draw = np.random.default_rng([seed, *name.encode()])
    eeg = draw.normal(0, 20, (len(channels), seconds * sfreq))
    path = Path("raw") / f"{name}.edf"
    write_edf(
        path, [Trace(label, sfreq, row.astype(np.float32)) for label, row in zip(channels, eeg, strict=True)], "X", DATE
    )
    return path


def configure(**changes: Any) -> None:
    Path("process.yaml").write_text(yaml.safe_dump(CONFIG | changes))


def process(*flags: str, verb: str = "process-primary") -> int:
    return main([verb, "--config", "process.yaml", *flags])


def primary(path: str = PRIMARY) -> Any:
    return pq.read_table(path).to_pandas()


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same code without seconds of imports in children."""

    def run(work: Any, entries: Any, jobs: int) -> Iterator[Any]:
        for entry in entries:
            yield work.recipe.make(entry, work.available.get(entry.key, ()), work.staging)

    def look_at(look: Any, paths: Any) -> Iterator[tuple[Any, str]]:
        for path in paths:
            try:
                yield look(path), ""
            except DataError as error:
                yield None, str(error)

    monkeypatch.setattr("cerebro.data.spread.run_in_children", run)
    monkeypatch.setattr("cerebro.data.readers.folder.each_apart", look_at)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people with two recordings each, and a table of them."""
    folder = tmp_path_factory.mktemp("cohort")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for person in ("p10", "p2", "p3", "p4"):
            for state, seconds in SECONDS.items():
                write(f"{person}_{state}", seconds)
    finally:
        os.chdir(before)
    (folder / "people.csv").write_text("id,outcome\np10,good\np2,bad\np3,good\np4,bad\n")
    return folder


@pytest.fixture
def here(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None) -> Path:
    """A copy of the cohort as current folder, with a config."""
    shutil.copytree(cohort, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    configure()
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """The one line of a command that is refused; nothing is left half-written."""
    assert process(*flags) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cerebro: ")]
    assert len(lines) == 1
    assert not list(Path().glob("processed/**/*.part"))
    return lines[0]


@pytest.mark.usefixtures("here")
def test_the_data_set_has_the_columns_names_and_order_that_were_promised(capsys: pytest.CaptureFixture[str]) -> None:
    assert process() == 0
    table = primary()
    fixed = ["Participant", "Remission", "run", "parent_window_id", "sub_window_id", "window_start", "window_end"]
    assert list(table.columns) == [*fixed, "closed", *CHANNELS]
    ids = list(zip(table.Participant, table.run, table.parent_window_id, table.sub_window_id, strict=True))
    assert ids == sorted(ids)
    assert len(ids) == 4 * (5 + 3)
    assert table.groupby("Participant").Remission.unique().map(list).to_dict() == {
        "p10": [1], "p2": [0], "p3": [1], "p4": [0]
    }  # fmt: skip
    assert (table.closed == table.run - 1).all()
    assert {len(samples) for name in CHANNELS for samples in table[name]} == {2048}
    assert (table.window_end - table.window_start == 8).all()
    out = capsys.readouterr().out
    assert "label bad" in out
    assert "windows         32   0 of 32 left out" in out


@pytest.mark.usefixtures("here")
def test_the_samples_are_those_of_the_recording_without_offset() -> None:
    from cerebro.data.primary import windowed
    from cerebro.data.readers.signal_file import read_signal
    from cerebro.montage import standard_1005

    assert process() == 0
    table = primary()
    rows = table[(table.Participant == "p3") & (table.run == 2)]
    montage = standard_1005()
    recording = read_signal(Path("raw/p3_eyes-closed_2.edf"), montage, "unknown", "x")
    done = windowed(recording, Processing(channels=CHANNELS), "x")
    for number, name in enumerate(CHANNELS):
        np.testing.assert_array_equal(np.stack(rows[name].to_list()), done.eeg[:, number])
        assert np.abs(np.stack(rows[name].to_list()).mean(axis=1)).max() < 1e-3


@pytest.mark.usefixtures("here")
def test_the_file_has_a_row_group_for_each_recording_no_dictionary_and_page_checksums() -> None:
    assert process() == 0
    file = pq.ParquetFile(PRIMARY)
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [5, 3] * 4
    encodings = {
        encoding
        for group in range(file.num_row_groups)
        for column in range(file.metadata.num_columns)
        for encoding in file.metadata.row_group(group).column(column).encodings
    }
    assert not any("DICTIONARY" in encoding for encoding in encodings)
    content = bytearray(Path(PRIMARY).read_bytes())
    content[len(content) // 2] ^= 1
    Path("damaged.parquet").write_bytes(content)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table("damaged.parquet", page_checksum_verification=True)
    kept = json.loads(file.schema_arrow.metadata[b"cerebro"])
    assert kept["label"] == {"column": "outcome", "values": ["bad", "good"]}
    assert Processing.from_plain(kept["processing"]).channels == CHANNELS


@pytest.mark.usefixtures("here")
def test_the_store_says_how_it_was_made_and_has_the_labels_of_people_and_recordings() -> None:
    assert process() == 0
    store = Store.open(Path("stores/primary"))
    kept = processing_of(store.path)
    assert kept["data_hash"] == store.data_hash
    assert kept["label"]["values"] == ["bad", "good"]
    assert Processing.from_plain(kept["processing"]) == Processing(channels=CHANNELS)
    raw = {hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in Path("raw").rglob("*.edf")}
    assert set(kept["sources"].values()) == raw
    assert set(kept["sources"]) == set(store.recordings["key"])
    assert store.participants["remission"].to_dict() == {"p10": 1.0, "p2": 0.0, "p3": 1.0, "p4": 0.0}
    assert store.recordings["label/closed"].tolist() == [0.0, 1.0] * 4
    table, _ = ChannelSequences(labels=("closed",)).table(store)
    assert table.targets["closed"][:].tolist() == ([0.0] * 4 + [1.0] * 4) * 4


@pytest.mark.usefixtures("here")
def test_a_primary_file_is_prepared_by_hand_into_the_same_samples() -> None:
    assert process("--store", "") == 0
    assert not Path("stores").exists()
    config = {
        "reader": {
            "class_path": "ParquetWindows",
            "init_args": {"root": "processed", "name": "primary", "labels": ["closed"]},
        },
        "preprocessing": {"sfreq": 256.0},
    }
    Path("prepare.yaml").write_text(yaml.safe_dump(config))
    assert main(["prepare", "prepare.yaml", "--out", "by_hand"]) == 0
    assert process() == 0
    assert Store.open(Path("by_hand")).data_hash == Store.open(Path("stores/primary")).data_hash


@pytest.mark.usefixtures("here")
def test_a_second_run_makes_nothing_and_a_changed_recording_alone_is_made_again() -> None:
    assert process() == 0
    before = {path: path.stat().st_mtime_ns for path in Path("interim/windowed").rglob("*.arrow")}
    first = Path(PRIMARY).stat().st_mtime_ns
    assert len(before) == 8
    assert process() == 0
    assert {path: path.stat().st_mtime_ns for path in Path("interim/windowed").rglob("*.arrow")} == before
    assert Path(PRIMARY).stat().st_mtime_ns == first
    write("p2_eyes-open_1", 34, seed=1)
    assert process() == 0
    after = {path: path.stat().st_mtime_ns for path in Path("interim/windowed").rglob("*.arrow")}
    assert len(after) == 8
    assert len({path for path in after if before.get(path) == after[path]}) == 7
    assert len(primary()) == 31
    assert process("--lowpass_hz", "40") == 0
    assert not set(Path("interim/windowed").rglob("*.arrow")) & set(after)


@pytest.mark.usefixtures("here")
def test_another_label_needs_no_new_windows() -> None:
    assert process() == 0
    before = {path: path.stat().st_mtime_ns for path in Path("interim/windowed").rglob("*.arrow")}
    Path("people.csv").write_text("id,outcome\np10,bad\np2,good\np3,good\np4,bad\n")
    assert process() == 0
    assert {path: path.stat().st_mtime_ns for path in Path("interim/windowed").rglob("*.arrow")} == before
    table = primary()
    assert table[table.Participant == "p10"].Remission.unique().tolist() == [0]
    assert Store.open(Path("stores/primary")).participants["remission"]["p10"] == 0


@pytest.mark.usefixtures("here")
def test_a_damaged_intermediate_is_named_and_made_again_once_it_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    assert process() == 0
    path = next(Path("interim/windowed").rglob("p3*open*.arrow"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    Path(PRIMARY).unlink()
    assert path.name in refused(capsys)
    assert not Path(PRIMARY).exists()
    path.unlink()
    assert process() == 0


@pytest.mark.usefixtures("here")
def test_a_file_that_is_out_of_order_is_found_by_reading_it_back() -> None:
    assert process() == 0
    table = pq.read_table(PRIMARY)
    assert verify_order(Path(PRIMARY)) == 32
    swapped = table.take([1, 0, *range(2, 32)])
    for wrong, says in ((swapped, "stands behind"), (table, "holds several runs")):
        pq.write_table(wrong, "wrong.parquet")
        with pytest.raises(DataError, match=says):
            verify_order(Path("wrong.parquet"))


@pytest.mark.usefixtures("here")
def test_a_second_writer_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with lock_folder(Path("interim"), "cerebro process-primary"):
        assert "is being written by process" in refused(capsys)


@pytest.mark.usefixtures("here")
def test_without_a_regular_expression_runs_are_numbered_in_the_order_of_names() -> None:
    assert process("--run_from", "") == 0
    table = primary()
    assert (table.closed == (table.run == 1)).all()  # eyes-closed_2 comes first by name


@pytest.mark.usefixtures("here")
def test_input_may_be_files_and_out_another_folder() -> None:
    files = sorted(str(path) for path in Path("raw").glob("*_1.edf"))
    assert process("--input", json.dumps(files), "--out", "there", "--pattern", "*.none") == 0
    assert len(primary(f"there/{PRIMARY}")) == 20
    assert Store.open(Path("there/stores/primary")).data_hash


@pytest.mark.usefixtures("here")
def test_without_a_label_table_remission_is_empty() -> None:
    configure()
    content = yaml.safe_load(Path("process.yaml").read_text())
    del content["label"]
    Path("process.yaml").write_text(yaml.safe_dump(content))
    assert process() == 0
    assert primary().Remission.isna().all()
    assert processing_of(Path("stores/primary"))["label"] == {"column": "", "values": []}


@pytest.mark.usefixtures("here")
def test_what_is_left_out_is_counted_in_report_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    write("p2_eyes-open_3", 7)
    write("p9_eyes-open_1", 20)
    Path("raw/p3_eyes-open_7.edf").write_bytes(b"0       no header")
    shutil.copy("raw/p4_eyes-open_1.edf", "raw/p4_eyes-open_5.edf")
    Path("people.csv").write_text("id,outcome\np10,good\np2,bad\np3,good\np4,bad\np77,good\n")
    assert process() == 1  # one of nine failed
    out = capsys.readouterr().out
    report = json.loads(Path(f"processed/features/primary/{NAME}_primary_report.json").read_text())
    rules = {rule["rule"]: (rule["severity"], rule["count"]) for rule in report["rules"]}
    assert rules["no-window-left"] == ("skipped", 1)
    assert rules["participant-not-listed"] == ("skipped", 1)
    assert rules["participant-without-recording"] == ("skipped", 1)
    assert rules["same-signal-twice"] == ("skipped", 1)
    assert rules["unusable-recording"] == ("failed", 1)
    assert (report["read"], report["windows"], report["participants"]) == (8, 32, {"bad": 2, "good": 2})
    assert "p3_eyes-open_7" in out
    assert "more than max_failed_share=0.05" in out


@pytest.mark.usefixtures("here")
def test_channels_default_to_those_that_all_recordings_have(capsys: pytest.CaptureFixture[str]) -> None:
    write("p2_eyes-open_1", 42, ("AF7", "AF8", "TP9", "Cz"))
    assert process() == 0
    path = "processed/features/primary/8s_af7-af8-tp9_primary_dataset.parquet"
    assert list(primary(path).columns)[-3:] == ["AF7", "AF8", "TP9"]
    assert "2 electrodes that not all 8 recordings have are not used: " in capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_recordings_without_a_channel_are_named_or_left_out_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    write("p2_eyes-open_1", 42, ("AF7", "AF8", "TP9", "Cz"))
    line = refused(capsys, "--channels", "[TP10, AF7]")
    assert "1 of 8 recordings lack channel TP10 (p2_eyes-open_1)" in line
    assert "set channels to electrodes that all have (AF7, AF8, TP9)" in line
    assert "missing_channels: leave_out" in line
    assert process("--channels", "[TP10, AF7]", "--missing_channels", "leave_out") == 0
    table = primary("processed/features/primary/8s_tp10-af7_primary_dataset.parquet")
    assert len(table) == 27
    assert list(table.columns)[-2:] == ["TP10", "AF7"]
    assert "channels-missing" in capsys.readouterr().out


def test_the_same_bytes_come_from_any_number_of_jobs(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(cohort, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    configure(store="")
    assert process("--out", "one") == 0
    assert process("--out", "two", "--jobs", "2") == 0
    assert Path("one", PRIMARY).read_bytes() == Path("two", PRIMARY).read_bytes()


BAD = {
    "no folder": (["--input", "nowhere"], "nowhere not found; set input"),
    "no such file": (["--pattern", "*.bdf"], 'it holds .edf files: set pattern to "**/*.edf"'),
    "unknown key": (["--windows_s", "8"], "windows_s is unknown; did you mean window_s?"),
    "wrong type": (["--window_s", "long"], "window_s: found long, expected float"),
    "numbers": (["--window_s", "0.3"], "window_s=0.3 s is 76.8 samples"),
    "unknown column": (["--label.column", "result"], "has no column 'result' (found id, outcome)"),
    "other value": (["--label.values", "[bad, great]"], "holds 'good' in data row 1, expected 'bad' or 'great'"),
    "unknown ids": (["--participant_from", "(eyes)"], "none of the 1 participants of the recordings (eyes) stands in"),
    "all too short": (
        ["--window_s", "60", "--parent_window_s", "60"],
        "no recording is left; left out: no-window-left",
    ),
    "no electrode": (["--channels", "[A1, Q7]"], "channels names Q7, no electrode of montage 10-05"),
    "absent everywhere": (["--channels", "[Cz]"], "8 of 8 recordings lack channel Cz"),
    "no regex": (["--participant_from", "(p"], "is no regular expression"),
    "one run twice": (["--run_from", "^p()"], "are both run 0 of participant p10"),
    "column taken": (["--recording_labels", "{af7: {open: 1}}"], "recording_labels.af7 has the name of another column"),
    "unknown key of label": (["--label.colum", "x"], "label: key colum is unknown; did you mean column?"),
    "one value": (["--label.values", "[bad]"], "label: "),
    "jobs": (["--jobs", "0"], "--jobs 0 must be 1 or more"),
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_line_that_says_what_to_type(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags, says = BAD[case]
    assert says in refused(capsys, *flags)
    assert not Path("processed", "features", "primary").exists() or not list(Path().glob("processed/**/*.parquet"))


TABLES = {
    "both labels": ("id,outcome\np10,good\np2,bad\np2,good\np3,good\np4,bad\n", "gives participant p2 both labels"),
    "one class": ("id,outcome\np10,good\np2,good\np3,good\np4,good\n", "all of them the same (good)"),
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("case", TABLES)
def test_a_table_without_two_labels_is_refused_before_anything_is_read(
    case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text, says = TABLES[case]
    Path("people.csv").write_text(text)
    assert says in refused(capsys)
    assert not list(Path("interim").rglob("*.arrow"))


@pytest.mark.usefixtures("here")
def test_one_label_alone_left_after_reading_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for path in Path("raw").glob("p[24]_*.edf"):
        path.write_bytes(b"0       no header")
    assert "no recording with label bad is left, 4 with good are; left out: unusable-recording 4" in refused(capsys)


@pytest.mark.usefixtures("here")
def test_one_recording_under_two_labels_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy("raw/p10_eyes-open_1.edf", "raw/p2_eyes-open_3.edf")
    assert "are the same file, of participants p10 and p2 with different labels" in refused(capsys)


def test_a_config_that_is_missing_or_empty_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["process-primary"]) == 2
    assert "--config" in capsys.readouterr().err
    assert main(["process-primary", "--config", "none.yaml"]) == 2
    assert "none.yaml" in capsys.readouterr().err
    configure(input=None)
    assert "key input is empty" in refused(capsys)


def feature_table(eeg: np.ndarray, sfreq: float, channels: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Stand-in for the features of cerebro: the standard deviation of each channel."""
    assert (eeg.dtype, sfreq) == (np.float32, 256.0)
    calls.append(len(eeg))
    return {f"std_{name}": eeg[:, row].std(axis=1).astype(np.float64) for row, name in enumerate(channels)}


calls: list[int] = []


@pytest.mark.usefixtures("here")
def test_process_adds_a_table_of_features_with_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cerebro.data.feature_files.MODULE", __name__)
    calls.clear()
    assert process(verb="process") == 0
    assert calls == [5, 3] * 4
    windows, features = primary(), primary(f"processed/features/full/{NAME}_features_dataset.parquet")
    assert list(features.columns) == [*list(windows.columns)[:8], *(f"std_{name}" for name in CHANNELS)]
    for column in list(windows.columns)[:8]:
        assert features[column].tolist() == windows[column].tolist()
    np.testing.assert_allclose(features.std_TP9, [samples.std() for samples in windows.TP9], rtol=1e-5)
    assert process(verb="process") == 0
    write("p2_eyes-open_1", 34, seed=1)
    assert process(verb="process") == 0
    assert calls == [*[5, 3] * 4, 4]


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_the_data_set_is_logged_to_mlflow_once_for_each_state() -> None:
    from mlflow.tracking import MlflowClient

    configure(mlflow={"enabled": True})
    assert process("--store", "") == 0
    assert process("--store", "") == 0
    client = MlflowClient("sqlite:///mlflow.db")
    experiment = client.get_experiment_by_name("eeg_processing")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    [logged] = run.inputs.dataset_inputs
    assert logged.dataset.name == f"EEG_{NAME}_32windows_primary"
    tags = {tag.key: tag.value for tag in logged.tags}
    assert (tags["label"], tags["n_participants"], tags["channels"]) == ("outcome", "4", ",".join(CHANNELS))
    assert run.data.params["window_s"] == "8.0"
    assert run.data.metrics["num_rows"] == 32
    assert process("--store", "", "--window_s", "4") == 0
    assert len(client.search_runs([experiment.experiment_id])) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_mlflow_that_does_not_answer_is_one_line_and_the_files_stay(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "--store", "", "--mlflow.enabled", "true", "--mlflow.uri", "http://127.0.0.1:9")
    assert "does not answer" in line
    assert "--mlflow.enabled false" in line
    assert Path(PRIMARY).is_file()


def test_a_missing_store_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="for a primary data set `cerebro process-primary --config"):
        Store.open(tmp_path / "stores" / "primary")
