import mne
import numpy as np
import pytest

from cerebro.errors import DataError
from cerebro.simulate.writers import BDF_STEP_UV, write_bdf, write_set

CHANNELS = ("E1", "E2", "Cz")


def _eeg(n_times: int) -> np.ndarray:
    eeg = np.random.default_rng(0).normal(0, 40, (3, n_times)).astype(np.float32)
    eeg[0, :2] = (-1500.0, 1500.0)[: min(2, n_times)]
    eeg[-1] = 0
    return eeg


@pytest.mark.parametrize("n_times", [4, 300, 437])
def test_mne_reads_set_files_back_exactly(tmp_path, n_times):
    eeg = _eeg(n_times)
    write_set(tmp_path / "a.set", eeg, CHANNELS, 500.0)
    raw = mne.io.read_raw_eeglab(tmp_path / "a.set", preload=True, montage_units="mm", verbose="error")
    assert raw.ch_names == list(CHANNELS)
    assert raw.info["sfreq"] == 500
    np.testing.assert_allclose(raw.get_data() * 1e6, eeg, rtol=1e-12)


@pytest.mark.parametrize("n_times", [1, 300, 437])
def test_mne_reads_bdf_files_back_to_half_a_step(tmp_path, n_times):
    eeg = _eeg(n_times)
    write_bdf(tmp_path / "a.bdf", eeg, CHANNELS, 100.0)
    raw = mne.io.read_raw_bdf(tmp_path / "a.bdf", preload=True, verbose="error")
    assert raw.ch_names == list(CHANNELS)
    assert raw.info["sfreq"] == 100
    back = raw.get_data() * 1e6
    assert back.shape == eeg.shape
    np.testing.assert_allclose(back, np.round(eeg / BDF_STEP_UV) * BDF_STEP_UV, atol=1e-9)
    assert (back[-1] == 0).all()


@pytest.mark.parametrize("write", [write_set, write_bdf])
def test_the_same_signal_gives_the_same_bytes(tmp_path, write, monkeypatch):
    write(tmp_path / "x" / "a.file", _eeg(200), CHANNELS, 100.0)
    monkeypatch.setattr("time.asctime", lambda *_: "another day")
    write(tmp_path / "y" / "a.file", _eeg(200), CHANNELS, 100.0)
    assert (tmp_path / "x" / "a.file").read_bytes() == (tmp_path / "y" / "a.file").read_bytes()


@pytest.mark.parametrize("write", [write_set, write_bdf])
def test_a_signal_that_does_not_fit_its_names_is_refused(tmp_path, write):
    with pytest.raises(DataError, match="2 channel names"):
        write(tmp_path / "a.file", _eeg(200), CHANNELS[:2], 100.0)
    bad = _eeg(200)
    bad[1, 3] = np.nan
    with pytest.raises(DataError, match="NaN"):
        write(tmp_path / "a.file", bad, CHANNELS, 100.0)
    assert not (tmp_path / "a.file").exists()


def test_bdf_refuses_volts_taken_for_microvolts_times_a_million(tmp_path):
    with pytest.raises(DataError, match="check the unit"):
        write_bdf(tmp_path / "a.bdf", _eeg(200) * 1e6, CHANNELS, 100.0)
