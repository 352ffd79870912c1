"""One signal file: what its header says against itself, its size, its samples and the table beside it."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from cerebro.data.readers import Recording
from cerebro.data.readers.mat5 import check_eeglab
from cerebro.data.readers.signal_file import read_signal
from cerebro.data.tables import number, read_table
from cerebro.errors import DataError
from cerebro.montage import standard_1005
from cerebro.simulate.writers import write_bdf, write_set

CHANNELS = ("Fz", "Cz", "Pz")
EEG = (30 * np.random.default_rng(0).standard_normal((3, 600))).astype(np.float32)


def read(path: Path) -> Recording:
    return read_signal(path, standard_1005(), "Cz", path.stem)


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.stem in message
    return message


def eeglab(**change: object) -> dict[str, object]:
    """Fields of an EEG structure; ``None`` leaves one out."""
    locations = np.zeros(3, dtype=[("labels", object)])
    locations["labels"] = list(CHANNELS)
    fields = {"nbchan": 3.0, "trials": 1.0, "pnts": 600.0, "srate": 100.0, "xmin": 0.0, "xmax": 5.99, "data": EEG}
    fields |= {"chanlocs": locations, "event": np.zeros((0, 0))}
    return {name: value for name, value in (fields | change).items() if value is not None}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_whole_eeglab_files_of_every_layout_are_read(tmp_path, compressed, flat):
    path = tmp_path / "a.set"
    savemat(path, eeglab() if flat else {"EEG": eeglab()}, appendmat=False, do_compression=compressed, oned_as="row")
    np.testing.assert_allclose(read(path).eeg, EEG, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nbchan": 4.0}, "EEG.nbchan 4, pnts 600, trials 1, but EEG.data is 3 x 600"),
        ({"pnts": 599.0}, "EEG.nbchan 3, pnts 599, trials 1, but EEG.data is 3 x 600"),
        ({"pnts": 1e12}, "but EEG.data is 3 x 600"),
        ({"pnts": 600.5}, "EEG.pnts is 600.5"),
        ({"nbchan": -3.0}, "EEG.nbchan is -3"),
        ({"trials": np.nan}, "EEG.trials is nan"),
        ({"srate": 0.0}, "EEG.srate is 0 Hz"),
        ({"srate": np.inf}, "EEG.srate is inf Hz"),
        ({"srate": 250.0}, "EEG.srate is 250 Hz, but xmin, xmax and pnts give 100 Hz"),
        ({"data": None}, "EEG has no field data"),
        ({"chanlocs": np.zeros(2, dtype=[("labels", object)])}, "chanlocs names 2 channels"),
        ({"data": EEG.reshape(2, 900)}, "but EEG.data is 2 x 900"),
    ],
)
def test_fields_of_eeglab_that_contradict_the_data_are_named(tmp_path, change, message):
    path = tmp_path / "a.set"
    savemat(path, {"EEG": eeglab(**change)}, appendmat=False, oned_as="row")
    assert message in refusal(path)


def test_an_fdt_of_another_size_is_refused(tmp_path):
    path = tmp_path / "a.set"
    savemat(path, {"EEG": eeglab(data="a.fdt")}, appendmat=False, oned_as="row")
    path.with_suffix(".fdt").write_bytes(EEG.T.astype("<f4").tobytes())
    np.testing.assert_allclose(read(path).eeg, EEG, atol=1e-4)
    path.with_suffix(".fdt").write_bytes(EEG.T.astype("<f4").tobytes() + b"1234")
    assert "a.fdt has 7,204 bytes instead of 7,200" in refusal(path)


@given(at=st.integers(0, 2**31), value=st.integers(0, 255), n=st.integers(1, 8))
def test_no_change_of_a_mat_file_makes_the_walker_fail_otherwise_than_in_one_line(
    tmp_path_factory, at: int, value: int, n: int
):
    path = tmp_path_factory.getbasetemp() / "walked.set"
    if not path.exists():
        savemat(path.with_suffix(".whole"), {"EEG": eeglab(data=EEG[:, :20], pnts=20.0)}, appendmat=False)
    content = bytearray(path.with_suffix(".whole").read_bytes())
    at %= len(content)
    content[at : at + n] = bytes([value]) * len(content[at : at + n])
    path.write_bytes(content)
    try:
        check_eeglab(path)
    except DataError as error:
        message = str(error)
        assert "\n" not in message


def edf_with(path: Path, at: int, text: str, width: int = 8) -> None:
    """A BDF file whose header says something else at one place."""
    write_bdf(path, EEG, CHANNELS, 100.0)
    content = bytearray(path.read_bytes())
    content[at : at + width] = text.ljust(width).encode("latin-1")
    path.write_bytes(content)


def n_signals(tmp_path: Path) -> int:
    write_bdf(tmp_path / "n.bdf", EEG, CHANNELS, 100.0)
    return int((tmp_path / "n.bdf").read_bytes()[252:256])


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("unit", "tV", "the unit 'tV', whose size in microvolts is unknown"),
        ("physical minimum", "nan", "physical minimum of signal 'Fz' is 'nan'"),
        ("physical maximum", "1e400", "cannot be"),
        ("digital minimum", "8388607", "digital range 8.38861e+06 to 8e+06"),
        ("samples", "0", "0 samples a record, which cannot be"),
        ("samples", "1000000000", "is truncated"),
        ("records", "999999999", "is truncated"),
        ("duration", "0", "records of 0 s"),
        ("duration", "-1", "records of -1 s"),
        ("signals", "9999", "contradict each other"),
    ],
)
def test_fields_of_edf_that_cannot_be_are_named_before_anything_is_allocated(tmp_path, field, text, message):
    n = n_signals(tmp_path)
    fixed = {"records": (236, 8), "duration": (244, 8), "signals": (252, 4)}
    columns = {"unit": 96, "physical minimum": 104, "physical maximum": 112, "digital minimum": 120, "samples": 216}
    at, width = fixed.get(field) or (256 + columns[field] * n, 8)
    if field == "physical maximum":
        edf_with(tmp_path / "a.bdf", 256 + 104 * n, text)  # minimum = maximum
        content = bytearray((tmp_path / "a.bdf").read_bytes())
        content[256 + 112 * n : 256 + 112 * n + 8] = text.ljust(8).encode()
        (tmp_path / "a.bdf").write_bytes(content)
    else:
        edf_with(tmp_path / "a.bdf", at, text[:width], width)
    assert message in refusal(tmp_path / "a.bdf")


def write_vhdr(path: Path, change: Callable[[str], str] = lambda text: text) -> None:
    path.with_suffix(".eeg").write_bytes(EEG.T.astype("<f4").tobytes())
    channels = "".join(f"Ch{i}={name},,1,µV\n" for i, name in enumerate(CHANNELS, start=1))
    text = (
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={path.stem}.eeg\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\nNumberOfChannels=3\n"
        f"SamplingInterval=10000\nDataPoints=600\n[Binary Infos]\n"
        f"BinaryFormat=IEEE_FLOAT_32\n[Channel Infos]\n{channels}"
    )
    path.write_text(change(text), encoding="utf-8")


def test_a_whole_brainvision_recording_is_read(tmp_path):
    write_vhdr(tmp_path / "a.vhdr")
    np.testing.assert_allclose(read(tmp_path / "a.vhdr").eeg, EEG, atol=1e-4)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("NumberOfChannels=3", "NumberOfChannels=2", "NumberOfChannels=2 and names 3 channels"),
        ("NumberOfChannels=3", "NumberOfChannels=1000000000", "names 3 channels"),
        ("DataPoints=600", "DataPoints=601", "is not 601 samples"),
        ("SamplingInterval=10000", "SamplingInterval=0", "SamplingInterval=0"),
        ("SamplingInterval=10000", "SamplingInterval=1O000", "SamplingInterval='1O000', expected a number"),
        ("IEEE_FLOAT_32", "INT_16", "in 2 bytes"),
        ("IEEE_FLOAT_32", "INT_17", "unknown BinaryFormat=INT_17"),
        ("DataFile=a.eeg", "DataFile=b.eeg", "names the data file 'b.eeg', which is not there"),
        ("Ch2=Cz", "Ch1=Cz", "gives Ch1 twice"),
        ("Cz,,1,", "Cz,,1e999,", "resolution of channel 'Cz'"),
        ("MULTIPLEXED", "MULTIPLEXOR", "DataOrientation=MULTIPLEXOR"),
        ("Brain Vision Data", "Brain Vision Date", "does not begin as a BrainVision header"),
    ],
)
def test_keys_of_brainvision_that_cannot_be_are_named(tmp_path, old, new, message):
    write_vhdr(tmp_path / "a.vhdr", lambda text: text.replace(old, new))
    assert message in refusal(tmp_path / "a.vhdr")


def test_fif_tags_that_lead_in_a_circle_or_beyond_the_end_are_refused(tmp_path):
    path = tmp_path / "a.fif"
    for following, n_bytes, message in ((0, 10**9, "announces 1,000,000,000 bytes"), (10**6, 4, "lies beyond its end")):
        path.write_bytes(struct.pack(">iiii", 100, 3, n_bytes, following) + bytes(4))
        assert message in refusal(path)
    path.write_bytes(struct.pack(">iiii", 100, 3, 4, 0) + bytes(4) + struct.pack(">iiii", 101, 3, 4, 4) + bytes(4))
    assert "leads back to byte 4" in refusal(path)


def test_a_number_that_no_amplifier_delivers_is_named_with_its_channel_and_time(tmp_path):
    eeg = EEG.copy()
    eeg[1, 250] = 3e9
    write_set(tmp_path / "a.set", eeg, CHANNELS, 100.0)
    assert "reaches 3e+09 microvolts in channel Cz at 2.500 s" in refusal(tmp_path / "a.set")
    eeg[1, 250] = np.nan
    savemat(tmp_path / "b.set", {"EEG": eeglab(data=eeg)}, appendmat=False, oned_as="row")
    assert "NaN or infinite samples in channel Cz" in refusal(tmp_path / "b.set")


def test_a_pointer_of_git_annex_says_what_to_type(tmp_path):
    (tmp_path / "a.set").write_text("/annex/objects/SHA256E-s12--ab.set\n")
    assert "datalad get a.set" in refusal(tmp_path / "a.set")


@pytest.mark.parametrize(
    ("names", "rule", "detail"),
    [
        (("Fz", "Cz", "Pz"), None, ""),
        (("EEG Fz", "CZ", "Pz"), None, ""),
        (("Cz", "Fz", "Pz"), "channel-names-swapped", "2 names stand elsewhere than in a_channels.tsv: Fz for Cz"),
        (
            ("Fz", "Cz", "Oz"),
            "channel-names-differ",
            "not in the signal: Oz; the other way round: Pz",
        ),
        (("Fz", "Cz"), "channel-names-differ", "the other way round: Pz"),
        (("Fz", "Cz", "Quz"), "channel-names-differ", "not in the signal: Quz"),
    ],
)
def test_names_of_channels_tsv_are_compared_with_the_signals(tmp_path, names, rule, detail):
    write_set(tmp_path / "a_eeg.set", EEG, CHANNELS, 100.0)
    (tmp_path / "a_channels.tsv").write_text("name\ttype\n" + "".join(f"{name}\tEEG\n" for name in names))
    findings = [finding for finding in read(tmp_path / "a_eeg.set").findings if finding.rule.startswith("channel-")]
    assert [finding.rule for finding in findings] == ([rule] if rule else [])
    if rule:
        assert detail in findings[0].detail
        assert findings[0].where == "a_eeg"


@given(st.text(max_size=8))
def test_a_cell_is_a_finite_number_or_missing_or_an_error(text: str):
    try:
        value = number(text)
    except ValueError:
        return
    assert np.isnan(value) or (np.isfinite(value) and "_" not in text and text.isascii())


@pytest.mark.parametrize("letter", ["\x00", "\x1a", "\x0b", "\x7f", "\x9b"])
def test_control_characters_in_a_table_are_damage(tmp_path, letter):
    (tmp_path / "a.tsv").write_text(f"name\tage\nx\t1{letter}2\n", encoding="utf-8", newline="")
    with pytest.raises(DataError, match=r"a\.tsv line 2 holds the control character") as caught:
        read_table(tmp_path / "a.tsv")
    assert letter not in str(caught.value)
