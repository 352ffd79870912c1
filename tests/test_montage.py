from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.errors import DataError
from cerebro.montage import (
    COMMON_REFERENCES,
    OLD_NAMES_10_20,
    Montage,
    canonical_name,
    canonical_names,
    hbn_129,
    standard_1005,
)

SYSTEMS = [hbn_129(), standard_1005()]
HBN, TEN_05 = SYSTEMS
ELECTRODES = [(system, channel) for system in SYSTEMS for channel in system.channels]


def position(montage: Montage, channel: str) -> np.ndarray:
    return montage.positions[montage.channels.index(channel)]


def test_hbn_has_e1_to_e128_and_cz_in_that_order():
    assert HBN.channels == (*(f"E{n}" for n in range(1, 129)), "Cz")
    assert HBN.positions.shape == (129, 3)


def test_hbn_positions_are_those_of_the_vendors_file(shared_data: Path):
    lines = (shared_data / "montages" / "GSN-HydroCel-129.sfp").read_text().split("\n")
    points = {name: np.array(xyz, float) for name, *xyz in (line.split() for line in lines if line.strip())}
    left, right, nasion = points["FidT9"], points["FidT10"], points["FidNz"]
    x = (right - left) / np.linalg.norm(right - left)
    origin = left + x * ((nasion - left) @ x)  # the nasion's foot on the line through the ears
    y = (nasion - origin) / np.linalg.norm(nasion - origin)
    axes = np.stack([x, y, np.cross(x, y)])
    found = np.stack([axes @ (points[channel] - origin) for channel in HBN.channels])
    scale = np.linalg.norm(HBN.positions) / np.linalg.norm(found)
    np.testing.assert_allclose(HBN.positions, scale * found, atol=1e-6)  # metres
    assert 0.005 < scale < 0.015  # the file is in centimetres


@pytest.mark.parametrize("montage", SYSTEMS, ids=lambda montage: montage.name)
def test_positions_lie_on_a_head(montage: Montage):
    radius = np.linalg.norm(montage.positions - [0, 0, 0.045], axis=1)
    assert np.isfinite(montage.positions).all()
    assert (radius > 0.05).all()
    assert (radius < 0.14).all()
    assert position(montage, "Cz")[2] > 0.1


def test_left_is_left_and_front_is_front():
    assert position(TEN_05, "T7")[0] < -0.05 < 0.05 < position(TEN_05, "T8")[0]
    assert position(TEN_05, "Oz")[1] < -0.05 < 0.05 < position(TEN_05, "Fpz")[1]


def test_no_two_electrodes_share_a_place():
    for montage in SYSTEMS:
        distance = np.linalg.norm(montage.positions[:, None] - montage.positions[None], axis=-1)
        assert distance[~np.eye(len(distance), dtype=bool)].min() > 1e-3


def test_montages_are_made_once_and_cannot_be_changed():
    assert hbn_129() is hbn_129()
    with pytest.raises(ValueError, match="read-only"):
        HBN.positions[0] = 0


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("EEG FP1-REF", "Fp1"), ("EEG Fp1", "Fp1"), ("FP1-LE", "Fp1"), ("fp1", "Fp1"), ("Fp1.", "Fp1"),
        ("Cz..", "Cz"), ("EEG CZ-REF", "Cz"), ("EEG Cz", "Cz"), ("T3", "T7"), ("EEG T6-LE", "P8"),
        (" EEG  O1-Ref ", "O1"), ("EEG A1-REF", "A1"), ("AFP3H", "AFp3h"), ("TP9", "TP9"), ("EEG P4-AVG", "P4"),
    ],
)  # fmt: skip
def test_labels_of_real_files_name_their_electrode(label: str, name: str):
    assert canonical_name(label, TEN_05) == name


@pytest.mark.parametrize(
    ("label", "name"), [("E1", "E1"), ("e128", "E128"), ("EEG E7", "E7"), ("Cz", "Cz"), ("E129", "Cz"), ("VREF", "Cz")]
)
def test_labels_of_the_net_name_their_electrode(label: str, name: str):
    assert canonical_name(label, HBN) == name


@pytest.mark.parametrize("montage", SYSTEMS, ids=lambda montage: montage.name)
@pytest.mark.parametrize(
    "label",
    [
        "EEG A2-A1", "A1-A2", "ECG ECG", "ECG", "EEG EKG1-REF", "EMG-REF", "EOG", "EOG F9", "ECG C3", "PHOTIC-REF",
        "FP1-F7", "EEG FP1-F7", "EEG FP1-F7-REF", "F7-T3", "EEG C3-A2", "EEG 20-REF", "EEG T1-REF", "EEG ROC-REF",
        "EEG C3P-REF", "IBI", "SUPPR", "STI 014", "Status", "EDF Annotations", "EEG", "REF", "EEG REF", "LE", "-REF",
        "", " ", "E0", "E130", "E01", "FP1-REF-0", "FP1 F7", "Fp1Fp2", "POL Fp1", "GSR1", "Resp", "1", "EEG 001",
    ],
)  # fmt: skip
def test_labels_that_are_no_single_electrode_are_none(label: str, montage: Montage):
    assert canonical_name(label, montage) is None


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(ELECTRODES),
    st.sampled_from(["", "EEG ", "eeg ", "EEG   "]),
    st.sampled_from(["", *(f"-{reference}" for reference in COMMON_REFERENCES), "-Ref", " - REF", "..."]),
    st.sampled_from([str, str.upper, str.lower]),
)
def test_every_decoration_of_an_electrode_leads_back_to_it(electrode, prefix, suffix, change_case):
    montage, channel = electrode
    assert canonical_name(prefix + change_case(channel) + suffix, montage) == channel


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(ELECTRODES),
    st.sampled_from(ELECTRODES),
    st.sampled_from(["", "EEG "]),
    st.sampled_from(["", "-REF"]),
)
def test_a_difference_of_two_electrodes_is_no_electrode(first, second, prefix, suffix):
    label = f"{prefix}{first[1]}-{second[1]}{suffix}"
    assert [canonical_name(label, montage) for montage in SYSTEMS] == [None, None]


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(ELECTRODES), st.sampled_from(["ECG", "EKG", "EMG", "EOG", "MEG", "RESP", "POL", "STIM", "DC"]))
def test_another_kind_of_signal_is_no_electrode(electrode, kind):
    montage, channel = electrode
    assert canonical_name(f"{kind} {channel}", montage) is None


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=12), st.sampled_from(SYSTEMS))
def test_any_text_gives_a_channel_of_the_montage_or_none(label, montage):
    name = canonical_name(label, montage)
    assert name is None or (name in montage.channels and canonical_name(name, montage) == name)


@pytest.mark.parametrize(("old", "new"), OLD_NAMES_10_20.items())
def test_old_names_are_aliases_and_no_channels(old: str, new: str):
    assert canonical_name(old, TEN_05) == new
    assert old not in TEN_05.channels


def test_ear_lobes_of_a_clinical_recording_are_found():
    assert canonical_names(["C3", "A1", "A2", "ECG"], TEN_05) == ("C3", "A1", "A2", None)


def test_a1_of_a_biosemi_cap_is_no_ear_lobe():
    labels = [f"{bank}{number}" for bank in "AB" for number in range(1, 33)]
    assert set(canonical_names(labels, TEN_05)) == {None}


def test_two_labels_of_one_electrode_are_refused():
    with pytest.raises(DataError, match=r"'T3' and 'EEG T7-REF' all mean electrode T7"):
        canonical_names(["T3", "Cz", "EEG T7-REF"], TEN_05)


def test_positions_must_fit_the_channels():
    with pytest.raises(DataError, match=r"2 channels and positions of shape \(1, 3\)"):
        Montage("cap", ("a", "b"), np.zeros((1, 3)))
    with pytest.raises(DataError, match="twice"):
        Montage("cap", ("a", "A"), np.zeros((2, 3)))
