"""ASA electrode files, montages by name, and electrodes on a unit sphere."""

from pathlib import Path

import mne
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.errors import ConfigError, DataError
from cerebro.montage import hbn_129, montage_named, read_asa, standard_1005, unit_sphere

MUSE = ("TP9", "AF7", "AF8", "TP10")
# Millimetres in a frame of its own: turned, shifted, ears not on an axis.
PLACES = {
    "LPA": (10.0, -80.0, -20.0),
    "RPA": (10.0, 75.0, -18.0),
    "Nz": (100.0, 0.0, -15.0),
    "Fp1": (95.0, -28.0, 20.0),
    "T3": (12.0, -85.0, 20.0),
    "Cz": (8.0, 1.0, 105.0),
    "Oz": (-90.0, 2.0, 25.0),
}


def as_block(places: dict[str, tuple[float, float, float]], unit: str = "mm") -> str:
    lines = ["# ASA electrode file", "ReferenceLabel\tavg", f"UnitPosition\t{unit}", f"NumberPositions=\t{len(places)}"]
    lines += ["Positions", *(" ".join(f"{value:.4f}" for value in xyz) for xyz in places.values()), "Labels", *places]
    return "\n".join(lines) + "\n"


def as_lines(places: dict[str, tuple[float, float, float]], labels: bool = True) -> str:
    lines = ["# ASA electrode file", "ReferenceLabel\tavg", "UnitPosition\tmm", f"NumberPositions=\t{len(places)}"]
    lines += ["Positions", *(f"{name} : " + " ".join(map(str, xyz)) for name, xyz in places.items())]
    return "\n".join([*lines, *(["Labels", "\t".join(places)] if labels else [])]) + "\n"


def in_mne(path: Path) -> dict[str, np.ndarray]:
    """Positions in the head frame as MNE-Python has them, the nasion among them."""
    raw = mne.channels.read_custom_montage(path, head_size=None)
    found = mne.channels.montage.transform_to_head(raw).get_positions()
    return dict(found["ch_pos"]) | {"Nz": found["nasion"]}


def check_equal(path: Path) -> None:
    montage, expected = read_asa(path), in_mne(path)
    assert set(montage.channels) == set(expected)
    for name, position in zip(montage.channels, montage.positions, strict=True):
        np.testing.assert_allclose(position, expected[name], atol=1e-7, err_msg=name)  # metres


@pytest.mark.parametrize("text", [as_block(PLACES), as_lines(PLACES)], ids=["block", "lines"])
def test_positions_are_those_of_mne(tmp_path: Path, text: str):
    path = tmp_path / "cap.elc"
    path.write_text(text)
    check_equal(path)


def test_a_file_of_lines_needs_no_labels_and_keeps_its_order(tmp_path: Path):
    for number, labels in enumerate((True, False)):
        (tmp_path / f"{number}.elc").write_text(as_lines(PLACES, labels))
    with_labels, without = (read_asa(tmp_path / f"{number}.elc") for number in (0, 1))
    np.testing.assert_array_equal(with_labels.positions, without.positions)
    assert without.channels == tuple(name for name in PLACES if name not in ("LPA", "RPA"))
    assert without.name == "1"


@pytest.mark.parametrize("name", ["colin27_1005.elc", "colin27_1020.elc"])
def test_real_files_are_read_as_mne_reads_them(shared_data: Path, name: str):
    check_equal(shared_data / "montages" / name)


@settings(deadline=None, max_examples=50)
@given(
    st.permutations(list(PLACES)),
    st.sampled_from([("m", 1e-3), ("cm", 0.1), ("mm", 1.0)]),
    st.floats(-3, 3),
    st.tuples(*[st.floats(-50, 50)] * 3),
)
def test_order_unit_and_a_moved_head_change_no_position(tmp_path_factory, order, unit, angle, shift):
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    moved = {name: tuple((turn @ np.array(PLACES[name]) + shift) * unit[1]) for name in order}
    path = tmp_path_factory.mktemp("asa") / "cap.elc"
    path.write_text(as_block(moved, unit[0]).replace("\t", "  "))
    plain = path.with_name("plain.elc")
    plain.write_text(as_block(PLACES))
    found, expected = read_asa(path), read_asa(plain)
    for name in expected.channels:
        np.testing.assert_allclose(
            found.positions[found.channels.index(name)], expected.positions[expected.channels.index(name)], atol=2e-4
        )


def test_older_names_are_known_whichever_the_file_has(tmp_path: Path):
    path = tmp_path / "cap.elc"
    path.write_text(as_block({name.replace("T3", "T7"): xyz for name, xyz in PLACES.items()}))
    assert read_asa(path).spelling["T3"] == "T7"
    path.write_text(as_block(PLACES))
    assert read_asa(path).spelling["T3"] == "T3"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("UnitPosition\tmm\n", "", "no line UnitPosition"),
        ("UnitPosition\tmm", "UnitPosition\tinch", "line 3 has unit 'inch'"),
        ("95.0000 -28.0000 20.0000", "95.0000 -28.0000", "line 9 is no position"),
        ("95.0000 -28.0000 20.0000", "95.0000 nan 20.0000", "line 9 is no position"),
        ("95.0000 -28.0000 20.0000", "95.0000 x 20.0000", "line 9 is no position"),
        ("95.0000 -28.0000 20.0000\n", "", "6 positions and 7 names"),
        ("\nFp1\n", "\n", "7 positions and 6 names"),
        ("\nFp1\n", "\nCz\n", "names electrode Cz twice"),
        ("\nFp1\n", "\nCZ\n", "names electrode (Cz|CZ) twice"),
        ("\nNz\n", "\nIz\n", "has no NZ"),
        ("10.0000 75.0000 -18.0000", "10.0000 -80.0000 -20.0000", "LPA, RPA and Nz in one line or place"),
        ("Positions\n", "Places\n", "0 positions and 7 names"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, old: str, new: str, message: str):
    path = tmp_path / "cap.elc"
    text = as_block(PLACES)
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=message) as error:
        read_asa(path)
    assert "\n" not in str(error.value)
    assert "cap.elc" in str(error.value)


def test_a_file_whose_names_contradict_its_labels_is_one_line(tmp_path: Path):
    path = tmp_path / "cap.elc"
    path.write_text(as_lines(PLACES).replace("T3\tCz", "Cz\tT3"))
    with pytest.raises(DataError, match="calls position 5 T3 and its label Cz"):
        read_asa(path)


def test_a_montage_has_a_name_or_a_file(tmp_path: Path):
    assert montage_named("standard_1005") is standard_1005()
    assert montage_named("hbn_129") is hbn_129()
    path = tmp_path / "cap.elc"
    path.write_text(as_block(PLACES))
    assert "Fp1" in montage_named(str(path)).channels
    with pytest.raises(ConfigError, match="montage='muse' is unknown; set montage to standard_1005 or hbn_129"):
        montage_named("muse")
    with pytest.raises(DataError, match=r"other\.elc does not exist"):
        montage_named(str(tmp_path / "other.elc"))


def test_the_electrodes_of_a_muse_headset_stand_in_the_10_05_system():
    assert set(MUSE) <= set(standard_1005().channels)


def test_electrodes_on_a_sphere_are_found_with_their_directions():
    draw = np.random.default_rng(0)
    directions = draw.normal(size=(40, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    positions = 0.09 * directions + [0.01, -0.02, 0.05]
    positions[7] = np.nan
    found = unit_sphere(positions)
    np.testing.assert_allclose(np.delete(found, 7, 0), np.delete(directions, 7, 0), atol=1e-9)
    assert np.isnan(found[7]).all()


@pytest.mark.parametrize("montage", [standard_1005(), hbn_129()], ids=lambda montage: montage.name)
def test_a_head_is_centred_and_keeps_its_sides(montage):
    directions = unit_sphere(montage.positions)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    cz = directions[montage.channels.index("Cz")]
    assert cz[2] > 0.95
    if montage is standard_1005():
        left, right = (directions[montage.channels.index(name)] for name in ("T7", "T8"))
        assert left[0] < -0.9 < 0.9 < right[0]


def test_four_electrodes_in_a_plane_have_no_sphere():
    with pytest.raises(DataError, match="no sphere fits 3 known positions"):
        unit_sphere(np.eye(3))
    flat = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    with pytest.raises(DataError, match="do not lie in one plane"):
        unit_sphere(flat)
