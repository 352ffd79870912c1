"""EDF headers and samples: equal to MNE-Python where that is right, one line where a file cannot be true."""

from pathlib import Path

import mne
import numpy as np
import pytest
from edf_files import noise, write_edf
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.data.readers import edf
from cerebro.data.readers.edf import read_header, read_microvolts
from cerebro.errors import DataError


def of_mne(path: Path) -> dict[str, np.ndarray]:
    """Microvolts by label, of signals in a unit that MNE knows."""
    raw = mne.io.read_raw_edf(path, preload=True, verbose="error")
    return {label: 1e6 * row for label, row in zip(raw.ch_names, raw.get_data(), strict=True)}


def of_ours(path: Path, labels: list[str]) -> dict[str, np.ndarray]:
    header = read_header(path)
    picks = [i for i, signal in enumerate(header.signals) if signal.label in labels]
    rows = read_microvolts(header, picks)
    assert rows.dtype == np.float32
    return {header.signals[pick].label: row for pick, row in zip(picks, rows, strict=True)}


@pytest.mark.parametrize("block", [1, 1 << 10, 8 << 20])
def test_samples_are_those_of_mne_whatever_is_read_at_a_time(tmp_path, monkeypatch, block):
    monkeypatch.setattr(edf, "BLOCK_BYTES", block)
    signals = [
        noise("EEG FP1-REF"),
        noise("EEG FP2-REF", physical=("-0.1", "0.085"), unit="mV"),
        noise("EEG C3-REF", physical=("-1e-4", "2e-4"), unit="V"),
        noise("EEG C4-REF", physical=("-200", "187.5"), digital=("-2048", "2047")),
        noise("ECG", n_samples=100),
        noise("EEG O1-REF", physical=("500", "-500")),
    ]
    path = write_edf(tmp_path / "a.edf", signals)
    labels = [signal.label for signal in signals if signal.label not in ("ECG", "EEG O1-REF")]
    expected, found = of_mne(path), of_ours(path, labels)
    assert list(found) == labels
    for label in labels:  # MNE resamples nothing: all these have the highest rate
        span = np.ptp(expected[label])
        np.testing.assert_allclose(found[label], expected[label], atol=3e-7 * span, err_msg=label)
    inverted = of_ours(path, ["EEG O1-REF"])["EEG O1-REF"]
    np.testing.assert_allclose(inverted, signals[-1].values(), atol=1e-3)
    assert read_header(path).sfreq(read_header(path).signals[4]) == 100.0


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(1, 40), st.floats(1, 1e4), st.integers(2, 30000)), min_size=1, max_size=5),
    st.sampled_from(["1", "0.5", "2", "0,1"]),
)
def test_any_calibration_rate_and_record_gives_physical_values(tmp_path_factory, n_records, rows, record_s):
    signals = [
        noise(
            f"S{i}", n_records, n, physical=(f"{-top:.6g}"[:8], f"{top / 3:.6g}"[:8]), digital=(str(-most), str(most))
        )
        for i, (n, top, most) in enumerate(rows)
    ]
    path = write_edf(tmp_path_factory.mktemp("edf") / "a.edf", signals, record_s=record_s)
    header = read_header(path)
    assert header.record_s == float(record_s.replace(",", "."))
    for place, signal in enumerate(signals):
        values = signal.values()
        (row,) = read_microvolts(header, [place])
        np.testing.assert_allclose(row, values, rtol=1e-6, atol=1e-6 * np.abs(values).max())


def test_a_missing_unit_counts_as_microvolts_and_another_one_is_refused(tmp_path):
    path = write_edf(
        tmp_path / "a.edf", [noise("EEG C3", unit=""), noise("EEG C4", unit="%"), noise("EEG CZ", unit="\xb5V")]
    )
    header = read_header(path)
    np.testing.assert_allclose(read_microvolts(header, [0])[0], noise("EEG C3").values(), atol=1e-3)
    np.testing.assert_allclose(read_microvolts(header, [2])[0], noise("EEG CZ").values(), atol=1e-3)
    with pytest.raises(DataError, match="channel EEG C4 has unit '%', expected uV, mV or V"):
        read_microvolts(header, [1])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"physical": ("0", "0")}, r"spans 0 to 0 uV over the counts -32768 to 32767, an empty range"),
        ({"digital": ("5", "5")}, "an empty range"),
        ({"digital": ("10", "-10")}, "an empty range"),
        ({"physical": ("x", "1")}, "physical minimum 'x' in its header, expected a number"),
        ({"physical": ("1", "nan")}, "physical maximum 'nan'"),
        ({"physical": ("1", "inf")}, "physical maximum 'inf'"),
        ({"digital": ("", "1")}, "digital minimum ''"),
    ],
)
def test_a_range_that_cannot_be_is_one_line(tmp_path, wrong, message):
    path = write_edf(tmp_path / "a.edf", [noise("EEG C3", **wrong)])
    with pytest.raises(DataError, match=message) as error:
        read_microvolts(read_header(path), [0])
    assert "\n" not in str(error.value)
    assert "a.edf" in str(error.value)


def test_an_empty_range_of_a_channel_that_is_not_used_does_no_harm(tmp_path):
    path = write_edf(tmp_path / "a.edf", [noise("EEG C3"), noise("BURSTS", physical=("0", "0"))])
    assert read_microvolts(read_header(path), [0]).shape == (1, 2500)


@pytest.mark.parametrize("record_s", ["0", "-1", "one"])
def test_a_record_without_length_is_one_line(tmp_path, record_s):
    path = write_edf(tmp_path / "a.edf", [noise("EEG C3")], record_s=record_s)
    with pytest.raises(DataError, match="record"):
        read_header(path)


@pytest.mark.parametrize("cut", [1, 400, 5000, 5400])
def test_a_file_cut_anywhere_is_one_line(tmp_path, cut):
    path = write_edf(tmp_path / "a.edf", [noise("EEG C3")])
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError) as error:
        read_header(path)
    assert "\n" not in str(error.value)


def test_a_file_cut_between_header_and_samples_is_one_line(tmp_path):
    path = write_edf(tmp_path / "a.edf", [noise("EEG C3")])
    header = read_header(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="ends early"):
        read_microvolts(header, [0])


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_header(tmp_path / "a.edf")
    with pytest.raises(DataError, match="cannot be opened"):
        edf.read_patient(tmp_path / "a.edf")


def test_the_mark_of_gaps_and_the_patient_are_read(tmp_path):
    path = write_edf(tmp_path / "a.edf", [noise("EEG C3")], reserved="EDF+D")
    assert read_header(path).is_discontinuous
    assert read_header(path).patient == edf.read_patient(path) == "aaaaaaaa M 01-JAN-1950 aaaaaaaa Age:51"
    assert not read_header(write_edf(tmp_path / "b.edf", [noise("EEG C3")], reserved="EDF+C")).is_discontinuous
    path.write_bytes(b"0   ")
    assert edf.read_patient(path) == ""
