"""Spherical splines on a real recording of 64 electrodes, five of them hidden, beside MNE-Python's own."""

from pathlib import Path

import numpy as np
import pytest

from cerebro.dsp.spherical_spline import spline_weights
from cerebro.montage import canonical_name, fit_sphere, standard_1005

HIDDEN = ["C3", "Fz", "O1", "T8", "AF7"]


@pytest.fixture(scope="module")
def raw(shared_data: Path):
    import mne

    path = next((shared_data / "eegmmidb").rglob("*R01.edf"))
    raw = mne.io.read_raw_edf(path, preload=True, verbose="error")
    raw.rename_channels({name: canonical_name(name, standard_1005()) for name in raw.ch_names})
    raw.set_montage("standard_1005", verbose="error")
    return raw.filter(1, 40, verbose="error")


def of_mne(raw, origin):
    with_bads = raw.copy()
    with_bads.info["bads"] = list(HIDDEN)
    with_bads.interpolate_bads(origin=origin, method={"eeg": "spline"}, verbose="error")
    return 1e6 * with_bads.get_data(picks=HIDDEN)


def test_hidden_channels_are_those_that_mne_rebuilds(raw):
    cap = standard_1005()
    centre, _ = fit_sphere(cap.positions)
    row = {name: at for at, name in enumerate(cap.channels)}
    there = [name for name in raw.ch_names if name not in HIDDEN]
    places, hidden = (cap.positions[[row[name] for name in names]] - centre for names in (there, HIDDEN))
    ours = spline_weights(places, hidden) @ (1e6 * raw.get_data(picks=there))
    assert np.abs(ours - of_mne(raw, tuple(centre))).max() < 1e-6  # microvolts
    # left alone, MNE centres the sphere on the electrodes of the recording, here 5 mm higher than that of the cap
    assert 0.1 < np.sqrt(((ours - of_mne(raw, "auto")) ** 2).mean()) < 0.5
    truth = 1e6 * raw.get_data(picks=HIDDEN)
    errors = [np.linalg.norm(found - truth) for found in (ours, of_mne(raw, "auto"))]
    assert errors[0] < 1.02 * errors[1] < 0.3 * np.linalg.norm(truth)
