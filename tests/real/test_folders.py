"""Public recordings through the folder reader, from EDF files to a store, against MNE-Python in float64."""

import json
from fractions import Fraction
from pathlib import Path

import mne
import numpy as np
import pytest
import yaml
from scipy.signal import welch

from cerebro.cli.main import main
from cerebro.data.store import Store
from cerebro.montage import canonical_names, standard_1005

EDGE_S = 10.0
POSTERIOR = ("PO3", "POz", "PO4", "O1", "Oz", "O2")


def prepare(folder: Path, **arguments: object) -> Store:
    """Store of a folder of EDF files at 100 Hz, by the command line."""
    reader = {"class_path": "Folder", "init_args": {"pattern": "*.edf", **arguments}}
    plan = {"sfreq": 100.0, "highpass_hz": 0.5, "lowpass_hz": 45.0}
    (folder / "config.yaml").write_text(yaml.safe_dump({"reader": reader, "preprocessing": plan}))
    assert main(["prepare", str(folder / "config.yaml"), "--out", str(folder / "store")]) == 0
    assert main(["check", str(folder / "store")]) == 0
    return Store.open(folder / "store")


def stored(store: Store, number: int) -> np.ndarray:
    return store.samples(number).T * store.lsb_uV


def raw_microvolts(path: Path, channels: tuple[str, ...]) -> tuple[np.ndarray, float]:
    """Electrodes of a file in the order of ``channels``, float64, without offset."""
    raw = mne.io.read_raw_edf(path, preload=True, verbose="error")
    names = canonical_names(raw.ch_names, standard_1005())
    eeg = 1e6 * raw.get_data([names.index(name) for name in channels])
    return eeg - eeg.mean(axis=1, keepdims=True), float(raw.info["sfreq"])


@pytest.mark.parametrize(
    ("folder", "arguments"),
    [
        ("eegmmidb", {"participant_from": "^(S[0-9]{3})R", "events": "annotations"}),  # 160 Hz, 64 channels
        ("microstates", {"participant_from": "^(.*)$"}),  # 250 Hz, 30 channels
        ("eegmat", {"participant_from": "^(Subject[0-9]+)_", "pattern": "Subject0*_2.edf"}),  # 500 Hz, 19 channels
    ],
)
def test_a_store_holds_what_mne_filters_and_resamples(shared_data, tmp_path, folder, arguments):
    store = prepare(tmp_path, root=str(shared_data / folder), name=folder, **arguments)
    assert json.loads((tmp_path / "store" / "build_report.json").read_text())["failed"] == 0
    for number, key in enumerate(store.recordings["key"]):
        channels = store.montages[store.index["montage"][number]].channels
        eeg, sfreq = raw_microvolts(shared_data / folder / f"{key}.edf", channels)
        filtered = mne.filter.filter_data(eeg, sfreq, 0.5, 45.0, h_trans_bandwidth=5.0, verbose="error")
        whole = eeg.shape[1] - eeg.shape[1] % Fraction(int(sfreq), 100).numerator  # else MNE stretches time a little
        expected = mne.filter.resample(filtered[:, :whole], 100.0, sfreq, npad=0)
        edge = int(EDGE_S * 100)
        inner = slice(edge, expected.shape[1] - edge)
        # half a count of rounding, and the 0.05 microvolts that preprocessing may be off
        np.testing.assert_allclose(stored(store, number)[:, inner], expected[:, inner], atol=store.lsb_uV / 2 + 0.05)


def test_alpha_rises_with_closed_eyes_as_much_in_the_store_as_in_the_file(shared_data, tmp_path):
    """Share of 8-13 Hz in 1-40 Hz over the back of the head; the recordings are described by 0.145 and 0.629."""
    tasks = {"R01$": "open", "R02$": "closed"}
    root = shared_data / "eegmmidb"
    store = prepare(tmp_path, root=str(root), name="mm", participant_from="^(S[0-9]{3})R", tasks=tasks)
    shares = {}
    for number, (key, task) in enumerate(zip(store.recordings["key"], store.recordings["task"], strict=True)):
        rows = [store.montages[0].channels.index(name) for name in POSTERIOR]
        eeg, sfreq = raw_microvolts(root / f"{key}.edf", POSTERIOR)
        shares[str(task)] = alpha_share(stored(store, number)[rows], 100.0)
        assert shares[str(task)] == pytest.approx(alpha_share(eeg, sfreq), abs=1e-3)
    assert shares == pytest.approx({"open": 0.145, "closed": 0.629}, abs=0.01)


def alpha_share(eeg: np.ndarray, sfreq: float) -> float:
    hz, power = welch(eeg, sfreq, nperseg=int(4 * sfreq))
    alpha = power[:, (hz >= 8) & (hz <= 13)].sum(axis=1)
    return float((alpha / power[:, (hz >= 1) & (hz <= 40)].sum(axis=1)).mean())
