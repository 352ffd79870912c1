from pathlib import Path

import h5py
import numpy as np
import pytest

from cerebro.data.pieces import Recipe, make_piece
from cerebro.data.preprocess import Preprocessing
from cerebro.data.readers import LaBraMHDF5
from cerebro.errors import ConfigError, DataError


def write_labram(path: Path, groups: dict[str, np.ndarray], channels: tuple[str, ...], sfreq: int = 200) -> None:
    """A file as LaBraM's data set maker leaves it (upper-case names, chunks of a second, no checksum)."""
    with h5py.File(path, "a") as file:
        for name, eeg in groups.items():
            dataset = file.create_group(name).create_dataset("eeg", data=eeg, chunks=(len(eeg), sfreq))
            dataset.attrs.update({"lFreq": 0.1, "hFreq": 75.0, "rsFreq": sfreq, "chOrder": list(channels)})


def noise(seed: int = 0, n_channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 20, (n_channels, 3000))


def test_groups_are_recordings_in_microvolts_with_their_people(tmp_path):
    write_labram(tmp_path / "one.hdf5", {"P1_a": noise(0) / 1e6, "P2_a": noise(1) / 1e6}, ("O1", "FP1", "HEO"))
    write_labram(tmp_path / "two.h5", {"P1_b": noise(2) / 1e6}, ("O1", "FP1", "HEO"))
    (tmp_path / "notes.txt").write_text("no data")
    reader = LaBraMHDF5(tmp_path, "seed", unit="V", task="film")
    scan = reader.scan()
    people = [(entry.key, entry.participant, entry.task) for entry in scan.entries]
    assert people == [("one/P1_a", "P1", "film"), ("one/P2_a", "P2", "film"), ("two/P1_b", "P1", "film")]
    assert list(scan.participants.index) == ["P1", "P2"]
    recording = reader.load(scan.entries[1])
    assert recording.channels == ("Fp1", "O1")
    assert (recording.sfreq, recording.is_ready) == (200.0, False)
    np.testing.assert_allclose(recording.eeg, noise(1)[[1, 0]], rtol=1e-5)
    assert [finding.rule for finding in recording.findings] == ["no-electrode"]
    (tmp_path / "staging").mkdir()
    outcome = make_piece(Recipe(reader, Preprocessing(), 0.05, "code"), scan.entries[1], (), tmp_path / "staging")
    assert outcome.record.n_times == 1500


def test_the_same_samples_under_two_names_have_one_hash(tmp_path):
    write_labram(tmp_path / "a.h5", {"P1_a": noise(), "P2_a": noise(), "P3_a": noise(1)}, ("O1", "O2", "OZ"))
    hashes = [entry.source_sha256 for entry in LaBraMHDF5(tmp_path / "a.h5", "x").scan().entries]
    assert hashes[0] == hashes[1] != hashes[2]
    assert [entry.source_sha256 for entry in LaBraMHDF5(tmp_path / "a.h5", "x").scan(False).entries] == [""] * 3


def test_what_does_not_fit_is_said_in_one_line(tmp_path):
    write_labram(tmp_path / "a.h5", {"P1_a": noise(), "_": noise(1)}, ("O1", "O2", "OZ"))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["no_rate/eeg"] = noise(2)
        file["P4_other/eeg"] = noise(3)
        file["P4_other/eeg"].attrs.update({"rsFreq": 200, "chOrder": ["O1", "O2"]})
        file["P5_ecg/eeg"] = noise(3)
        file["P5_ecg/eeg"].attrs.update({"rsFreq": 200, "chOrder": ["E", "C", "G"]})
        file["labels"] = np.arange(3)
    reader = LaBraMHDF5(tmp_path / "a.h5", "x")
    scan = reader.scan()
    assert [finding.where for finding in scan.findings] == ["a/_"]
    found = {}
    for entry in scan.entries:
        try:
            found[entry.key] = str(len(reader.load(entry).eeg))
        except DataError as error:
            found[entry.key] = str(error)
    assert found["a/P1_a"] == "3"
    assert "no attribute rsFreq" in found["a/no_rate"]
    assert "3 rows and 2 names" in found["a/P4_other"]
    assert "no channel of montage" in found["a/P5_ecg"]
    assert all("\n" not in text for text in found.values())


def test_wrong_settings_and_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="has no group"):
        LaBraMHDF5(tmp_path, "x", participant_from="P.")
    with pytest.raises(ConfigError, match="no regular expression"):
        LaBraMHDF5(tmp_path, "x", participant_from="(")
    with pytest.raises(DataError, match="not found"):
        LaBraMHDF5(tmp_path / "none.h5", "x").scan()
    with pytest.raises(DataError, match=r"holds no \.h5 or \.hdf5 file"):
        LaBraMHDF5(tmp_path, "x").scan()
    write_labram(tmp_path / "a.h5", {"P1_a": noise()}, ("O1", "O2", "OZ"))


def test_a_damaged_file_or_group_is_a_finding_and_the_rest_goes_on(tmp_path):
    for name in ("a.h5", "b.h5"):
        write_labram(tmp_path / name, {"P1_a": noise(), "P2_a": noise(1)}, ("O1", "O2", "OZ"))
    whole = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(whole[: len(whole) // 2])
    with h5py.File(tmp_path / "b.h5") as file:
        at = h5py.h5o.get_info(file["P1_a"].id).addr  # of the group's header
    whole = bytearray((tmp_path / "b.h5").read_bytes())
    whole[at : at + 16] = bytes(16)
    (tmp_path / "b.h5").write_bytes(whole)
    scan = LaBraMHDF5(tmp_path, "x").scan()
    assert [entry.key for entry in scan.entries] == ["b/P2_a"]
    assert [(found.where, found.rule, found.severity) for found in scan.findings] == [
        ("a.h5", "unusable-file", "failed"),
        ("b/P1_a", "unusable-recording", "failed"),
    ]
    assert "a.h5 does not open as HDF5" in scan.findings[0].detail
    assert "b.h5, group P1_a is damaged" in scan.findings[1].detail
