"""Railed channels of real recordings: Muse headsets, whose converters rail at -1,000 and 999.5 microvolts."""

import mne
import numpy as np
import pandas as pd
import pytest

from cerebro.data.plausible import RAILED_SHARE, railed_samples
from cerebro.data.preprocess import Preprocessing, preprocess
from cerebro.data.readers.base import Recording

CHANNELS = ("TP9", "AF7", "AF8", "TP10")
UV_PER_COUNT = 0.48828125
RAILS_UV = (-1000.0, 999.51171875)


def load(path, sfreq):
    counts = pd.read_parquet(path, columns=list(CHANNELS)).to_numpy()
    return Recording(np.ascontiguousarray(counts.T * np.float32(UV_PER_COUNT)), CHANNELS, sfreq, "Fpz")


def test_railed_channels_of_muse_runs_are_those_that_sit_at_a_known_rail(shared_data):
    index = pd.read_csv(shared_data / "muse" / "index.tsv", sep="\t")
    index = index[(index.sfreq > 200) & ((index.frac_railed > 0) | (index.index % 8 == 0))]
    found, known = {}, {}
    for run in index.itertuples():
        recording = load(shared_data / "muse" / run.file, run.sfreq)
        share = np.isin(recording.eeg, np.float32(RAILS_UV)).mean(axis=1)
        known |= {(run.file, CHANNELS[row]): share[row] for row in np.flatnonzero(share >= RAILED_SHARE)}
        done = preprocess(recording, Preprocessing())
        found |= {(run.file, name): share for name, share in done.railed}
    assert len(known) >= 3
    assert found == pytest.approx(known, abs=1e-3)


def test_no_channel_of_wet_electrodes_is_railed(shared_data):
    paths = [*sorted((shared_data / "eegmat").glob("*.edf"))[:4], *sorted((shared_data / "eegmmidb").glob("*.edf"))]
    assert paths
    for path in paths:
        raw = mne.io.read_raw_edf(path, verbose="error")
        picks = [name for name in raw.ch_names if "ECG" not in name]
        eeg = np.asarray(raw.get_data(picks) * 1e6, np.float32)
        done = preprocess(Recording(eeg, tuple(picks), raw.info["sfreq"], "unknown"), Preprocessing())
        assert done.railed == (), path.name
        assert not railed_samples(eeg).any(), path.name
