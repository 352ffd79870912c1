"""Two real recordings in a tree like those of TUH, from the EDF files to a store; real EDF files as MNE has them."""

import json
import shutil
from collections import Counter
from pathlib import Path

import mne
import numpy as np
import pytest
import yaml

from cerebro.cli.main import main
from cerebro.data.readers import TUH
from cerebro.data.readers.edf import read_header, read_microvolts
from cerebro.data.store import Store
from cerebro.montage import canonical_names, standard_1005

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "data" / "tuh.yaml"
SOURCE = {"aaaaabat": "Subject02_2.edf", "aaaaabbu": "Subject06_2.edf"}  # of eegmat, labels apart
AGES = {"aaaaabat": 41, "aaaaabbu": 230}
TEN_TWENTY = {
    *("Fp1", "Fp2", "F3", "F4", "F7", "F8", "T7", "T8", "C3", "C4", "P7", "P8", "P3", "P4", "O1", "O2"),
    *("Fz", "Cz", "Pz"),
}


def config(root: Path, folder: Path, **arguments: object) -> Path:
    content = yaml.safe_load(CONFIG.read_text())
    content["reader"]["init_args"] |= {"root": str(root), **arguments}
    path = folder / "tuh.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_tree_becomes_a_store_of_19_electrodes(shared_data, tmp_path, capsys):
    path = config(shared_data / "tuh_style", tmp_path)
    assert main(["prepare", str(path), "--plan"]) == 0
    assert "2 participants" in capsys.readouterr().out
    assert main(["prepare", str(path), "--out", str(tmp_path / "store")]) == 0
    report = json.loads((tmp_path / "store" / "build_report.json").read_text())
    assert (report["read"], report["failed"], report["skipped"]) == (2, 0, 0)
    assert [(rule["rule"], rule["count"]) for rule in report["rules"]] == [("no-electrode", 2)]
    assert "EEG A2-A1, EEG EKG1-REF" in report["rules"][0]["examples"][0]
    assert main(["check", str(tmp_path / "store")]) == 0
    store = Store.open(tmp_path / "store")
    assert store.corpus == "TUH"
    assert sorted(store.recordings["participant"]) == sorted(SOURCE)
    assert set(store.recordings["session"]) == {"s001_2012_01_01"}
    assert set(store.recordings["reference"]) == {"average"}
    assert set(store.recordings["task"]) == {"clinical"}
    assert [set(montage.channels) for montage in store.montages] == [TEN_TWENTY]
    assert store.index["n_times"].tolist() == [6200, 6200]


@pytest.mark.parametrize("patient", SOURCE)
def test_samples_are_those_of_the_original_file(shared_data, patient):
    reader = TUH(shared_data / "tuh_style")
    entry = next(entry for entry in reader.scan().entries if entry.participant == patient)
    recording = reader.load(entry)
    raw = mne.io.read_raw_edf(shared_data / "eegmat" / SOURCE[patient], preload=True, verbose="error")
    names = canonical_names(raw.ch_names, standard_1005())
    assert recording.sfreq == 500.0
    assert set(recording.channels) == TEN_TWENTY
    for name, row in zip(recording.channels, recording.eeg, strict=True):
        np.testing.assert_allclose(row, 1e6 * raw.get_data([names.index(name)])[0], atol=1e-3, err_msg=name)


def test_real_edf_files_are_read_as_mne_reads_them(shared_data):
    paths = sorted(
        path for folder in ("eegmat", "eegmmidb", "microstates") for path in (shared_data / folder).glob("*.edf")
    )
    assert len(paths) == 17
    units = Counter()
    for path in paths:
        header = read_header(path)
        raw = mne.io.read_raw_edf(path, preload=True, verbose="error")
        picks = [at for at, signal in enumerate(header.signals) if signal.label != "EDF Annotations"]
        assert [header.signals[pick].label for pick in picks] == raw.ch_names
        assert {header.sfreq(header.signals[pick]) for pick in picks} == {raw.info["sfreq"]}
        units.update(header.signals[pick].unit for pick in picks)
        np.testing.assert_allclose(read_microvolts(header, picks), 1e6 * raw.get_data(), atol=2e-3, rtol=1e-6)
    assert units == {"uV": 438, "mV": 14}


def test_ages_and_sexes_come_from_headers_that_have_them(shared_data, tmp_path):
    root = Path(shutil.copytree(shared_data / "tuh_style", tmp_path / "tree"))
    for patient, age in AGES.items():
        (path,) = root.rglob(f"{patient}*.edf")
        path.chmod(0o644)
        whole = path.read_bytes()
        field = f"{patient} F 01-JAN-1950 {patient} Age:{age}"
        path.write_bytes(whole[:8] + field.encode().ljust(80) + whole[88:])
    assert main(["prepare", str(config(root, tmp_path, demographics="header")), "--out", str(tmp_path / "store")]) == 0
    store = Store.open(tmp_path / "store")
    np.testing.assert_array_equal(store.participants["age"], [41, np.nan])
    np.testing.assert_array_equal(store.participants["sex"], [1, 1])
    assert "age-implausible" in set(store.findings["rule"])
