"""PhysioNet's eegmat through the folder reader and the config of the repository."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from cerebro.data.processing import processing_of
from cerebro.data.readers import Folder
from cerebro.errors import DataError

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "data" / "eegmat.yaml"
PROCESSING = CONFIG.parents[1] / "processing_eegmat.yaml"


@pytest.fixture
def eegmat(shared_data):
    arguments = yaml.safe_load(CONFIG.read_text())["reader"]["init_args"]
    places = {name: shared_data / "eegmat" / Path(arguments[name]).name for name in ("root", "participants")}
    return Folder(**(arguments | places | {"root": shared_data / "eegmat"}))


def test_seven_people_rest_and_calculate(eegmat):
    scan = eegmat.scan()
    assert len(scan.entries) == 14
    assert scan.findings == []
    assert [entry.labels["arithmetic"] for entry in scan.entries] == [0.0, 1.0] * 7
    assert [entry.task for entry in scan.entries[:2]] == ["rest", "arithmetic"]
    assert scan.participants["sex"].tolist() == [1, 1, 0, 1, 1, 1, 0]  # of the table; the EDF headers say otherwise
    assert scan.participants["age"].tolist() == [19, 17, 18, 17, 17, 19, 17]


def test_a_recording_has_19_electrodes_and_no_ear_or_heart_channel(eegmat):
    entry = eegmat.scan().entries[1]
    recording = eegmat.load(entry)
    assert (recording.sfreq, recording.eeg.shape, recording.reference) == (500.0, (19, 31000), "linked-ears")
    assert {"T7", "T8", "P7", "P8"} < set(recording.channels)
    assert not {"A1", "A2", "ECG"} & set(recording.channels)
    assert 5 < np.median(recording.eeg.std(axis=1)) < 50  # microvolts
    assert [finding.detail for finding in recording.findings] == [
        "2 of 21 channels are no electrodes and were dropped: EEG A2-A1, ECG ECG"
    ]


def test_a_truncated_copy_is_refused(eegmat, tmp_path):
    entry = eegmat.scan().entries[1]
    copy = tmp_path / entry.path.name
    copy.write_bytes(entry.path.read_bytes()[:-1000])
    mine = Folder(
        tmp_path, "cut", eegmat.participants, "Subject", r"^(Subject\d+)_", {"_2$": "arithmetic"}, pattern="*.edf"
    )
    with pytest.raises(DataError, match="is truncated"):
        mine.load(mine.scan().entries[0])


@pytest.mark.timeout(300)
def test_process_primary_makes_windows_of_4_s_with_the_labels_of_the_table(shared_data, tmp_path):
    from cerebro.cli.main import main

    root = shared_data / "eegmat"
    content = yaml.safe_load(PROCESSING.read_text()) | {"input": str(root), "mlflow": {"enabled": False}}
    content["label"]["table"] = str(root / "subject-info.csv")
    (tmp_path / "processing.yaml").write_text(yaml.safe_dump(content))
    out = tmp_path / "out"
    assert main(["process-primary", "--config", str(tmp_path / "processing.yaml"), "--out", str(out)]) == 0
    (path,) = out.glob("processed/features/primary/*_primary_dataset.parquet")
    windows = pq.read_table(path, columns=["Participant", "Remission", "run", "window_start", "FP1"]).to_pandas()
    of_people = windows.groupby("Participant")["Remission"].agg(["min", "max"])
    assert (of_people["min"] == of_people["max"]).all()
    assert of_people["max"].value_counts().to_dict() == {0: 5, 1: 2}  # Count quality
    n_windows = windows.groupby(["run", "Participant"]).size()
    assert n_windows[1].between(40, 47).all()  # 180 to 190 s at rest
    assert n_windows[2].eq(15).all()  # a minute of arithmetic
    assert {len(samples) for samples in windows["FP1"]} == {1024}
    deviation = np.array([np.std(samples) for samples in windows["FP1"]])
    assert 5 < np.median(deviation) < 50  # microvolts
    kept = processing_of(out / "stores/eegmat_primary")
    assert len(kept["sources"]) == 14
