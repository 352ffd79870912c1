import datetime

import mne
import numpy as np
import pytest

from cerebro.errors import DataError
from cerebro.simulate.writers import BDF_STEP_UV, Trace, write_bdf, write_edf, write_set

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


DAY = datetime.date(2007, 5, 3)
PATIENT = "zzzzaaaa F 01-JAN-1997 zzzzaaaa Age:10"


def traces(seconds=4):
    rng = np.random.default_rng(0)
    return [
        Trace(label, sfreq, rng.normal(0, 40, seconds * sfreq).astype(np.float32))
        for label, sfreq in (("EEG FP1-REF", 250), ("EEG T3-REF", 250), ("EMG-REF", 100))
    ]


def test_mne_reads_edf_files_of_several_rates_back_to_half_a_step(tmp_path):
    write_edf(tmp_path / "a.edf", traces(), PATIENT, DAY)
    raw = mne.io.read_raw_edf(tmp_path / "a.edf", include="EEG (FP1|T3)-REF", preload=True, verbose="error")
    assert raw.info["sfreq"] == 250
    assert str(raw.info["meas_date"].date()) == str(DAY)
    for trace, row in zip(traces(), raw.get_data() * 1e6, strict=False):
        np.testing.assert_allclose(row, trace.values, atol=0.0501)
    assert (tmp_path / "a.edf").read_bytes()[8:88] == PATIENT.encode().ljust(80)


def test_the_same_signals_give_the_same_edf_and_a_mark_changes_only_the_mark(tmp_path):
    for name, mark in (("a", ""), ("b", ""), ("c", "EDF+D")):
        write_edf(tmp_path / name, traces(), PATIENT, DAY, mark)
    plain, again, marked = ((tmp_path / name).read_bytes() for name in "abc")
    assert plain == again
    assert marked == plain[:192] + b"EDF+D" + plain[197:]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Trace("EMG", 100, np.zeros(300, np.float32)), r"last \[3.0, 4.0\] s"),
        (Trace("EMG", 100, np.full(400, 4000, np.float32)), "reach 4000"),
        (Trace("EMG", 100, np.full(400, np.nan, np.float32)), "reach nan"),
    ],
)
def test_signals_that_do_not_fit_an_edf_file_are_one_line(tmp_path, wrong, message):
    with pytest.raises(DataError, match=message):
        write_edf(tmp_path / "a.edf", [*traces(), wrong], PATIENT, DAY)
    assert not (tmp_path / "a.edf").exists()
