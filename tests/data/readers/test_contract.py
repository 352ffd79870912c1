"""What every reader promises; a new reader is picked up by itself and needs one line in ``CASES``."""

import json
from pathlib import Path

import edfio
import numpy as np
import pytest

from cerebro.data.readers import HBN, TUH, Folder, Reader
from cerebro.simulate.writers import write_bdf, write_set

SFREQ = 200.0


def eeg_50_microvolts(n_channels: int) -> np.ndarray:
    """Sines of 50 microvolts, another frequency in each channel, (C, T)."""
    time = np.arange(round(10 * SFREQ)) / SFREQ
    frequencies = np.linspace(2, 40, n_channels)[:, None]
    return (50 * np.sin(2 * np.pi * frequencies * time)).astype(np.float32)


def hbn(folder: Path) -> tuple[Reader, tuple[str, ...]]:
    (folder / "participants.tsv").write_text("participant_id\trelease_number\tsex\tage\nsub-A\tR1\tM\tn/a\n")
    path = folder / "sub-A" / "eeg" / "sub-A_task-RestingState_eeg.set"
    reader = HBN(folder)
    channels = reader.montage().channels
    write_set(path, eeg_50_microvolts(len(channels)), channels, SFREQ)
    path.with_suffix(".json").write_text(json.dumps({"SamplingFrequency": SFREQ}))
    return reader, channels


def folder(folder: Path) -> tuple[Reader, tuple[str, ...]]:
    (folder / "people.csv").write_text("id,sex\nA,n/a\n")
    channels = ("Fp1", "Fp2", "T7", "Oz")
    write_bdf(folder / "A_rest.bdf", eeg_50_microvolts(4), ("FP1", "EEG Fp2-REF", "T3", "Oz"), SFREQ)
    return Folder(folder, "mine", folder / "people.csv", "id", "^(A)_", {"rest": "rest"}, pattern="*.bdf"), channels


def tuh(folder: Path) -> tuple[Reader, tuple[str, ...]]:
    eeg = eeg_50_microvolts(4)
    labels = ("EEG FP1-REF", "EEG FP2-REF", "EEG T3-REF", "EEG O1-REF")
    edf = edfio.Edf(
        [
            edfio.EdfSignal(row.astype(float), SFREQ, label=label, physical_dimension="uV", physical_range=(-300, 300))
            for row, label in zip(eeg, labels, strict=True)
        ]
    )
    path = folder / "edf/000/aaaaaaaa/s001_2015/01_tcp_ar/aaaaaaaa_s001_t000.edf"
    path.parent.mkdir(parents=True)
    edf.write(path)
    return TUH(folder, min_electrodes=4), ("Fp1", "Fp2", "T7", "O1")


CASES = {HBN: hbn, TUH: tuh, Folder: folder}
READERS = [reader for reader in Reader.__subclasses__() if reader.__module__.startswith("cerebro.")]


@pytest.mark.parametrize("kind", READERS, ids=lambda kind: kind.__name__)
def test_a_reader_gives_microvolts_rate_and_names_of_its_montage(kind, tmp_path):
    assert kind in CASES, f"add a case for {kind.__name__} to CASES in {Path(__file__).name}"
    reader, channels = CASES[kind](tmp_path)
    scan = reader.scan()
    (entry,) = scan.entries
    recording = reader.load(entry)
    montage = reader.montage()
    assert recording.eeg.dtype == np.float32
    assert recording.sfreq == SFREQ
    assert set(recording.channels) == set(channels) <= set(montage.channels)
    places = [montage.channels.index(name) for name in recording.channels]
    assert places == sorted(places)
    expected = dict(zip(channels, eeg_50_microvolts(len(channels)), strict=True))
    for name, row in zip(recording.channels, recording.eeg, strict=True):
        np.testing.assert_allclose(row, expected[name], atol=0.02, err_msg=name)


@pytest.mark.parametrize("kind", READERS, ids=lambda kind: kind.__name__)
def test_a_scan_is_sorted_names_its_participants_and_says_the_same_twice(kind, tmp_path):
    reader, _ = CASES[kind](tmp_path)
    first, second = reader.scan(), reader.scan()
    assert first.entries == second.entries
    assert first.findings == second.findings
    keys = [entry.key for entry in first.entries]
    assert keys == sorted(set(keys))
    assert {entry.participant for entry in first.entries} <= set(first.participants.index)
    assert first.participants.index.name == "participant_id"
    assert reader.corpus
