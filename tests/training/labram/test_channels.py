"""Which official rows the channels of a store borrow."""

import math
from pathlib import Path

import numpy as np
import pytest

from cerebro.errors import CheckpointError
from cerebro.montage import hbn_129, standard_1005
from cerebro.signal import SignalSpec
from cerebro.training.labram.channels import OFFICIAL_CHANNELS, borrow_rows

FILE = Path("labram-base.pth")
NOWHERE = (math.nan,) * 3


def signal_of(channels: tuple[str, ...], positions: np.ndarray | None = None) -> SignalSpec:
    places = [NOWHERE] * len(channels) if positions is None else [tuple(map(float, place)) for place in positions]
    return SignalSpec(channels, tuple(places), 200.0, 800)


def borrowed(signal: SignalSpec, rule: str) -> dict[str, str]:
    rows = borrow_rows(signal, rule, FILE).rows
    return {channel: OFFICIAL_CHANNELS[row - 1] for channel, row in zip(signal.channels, rows, strict=True)}


def test_the_registry_has_128_places_in_the_official_order() -> None:
    assert len(OFFICIAL_CHANNELS) == len(set(OFFICIAL_CHANNELS)) == 128
    at = {name: row for row, name in enumerate(OFFICIAL_CHANNELS, start=1)}
    some = {"FP1": 1, "FP2": 3, "FZ": 20, "C3": 40, "CZ": 42, "PZ": 64, "O2": 83, "IZ": 87, "T3": 89, "A2": 96}
    assert {name: at[name] for name in some} == some
    assert (at["CCP8"], at["TPP10h"], at["FP1-F7"], at["P8-O2"]) == (112, 120, 121, 128)


def test_the_registry_is_that_of_braindecode() -> None:
    labram = pytest.importorskip("braindecode.models.labram", exc_type=ImportError)
    assert tuple(labram.LABRAM_CHANNEL_ORDER) == OFFICIAL_CHANNELS


def test_names_count_whatever_their_case_and_aliases_are_told() -> None:
    channels = ("Fp1", "o2", "T3", "T7", "VREF", "I1", "TTP7H", "fp1-f7")
    found = borrowed(signal_of(channels), "by_name")
    assert list(found.values()) == ["FP1", "O2", "T3", "T7", "CZ", "O9", "TTP7h", "FP1-F7"]
    (line,) = borrow_rows(signal_of(channels), "by_name", FILE).lines
    assert line == "channel rows: 8 of 8 channels by name (2 through another name: VREF = CZ, I1 = O9)"


def test_channels_unknown_by_name_are_one_line_that_offers_the_nearest() -> None:
    with pytest.raises(
        CheckpointError, match=r"labram-base.pth: 128 of 129 .*\(E1, E2, E3, E4, E5 and 123 others\)"
    ) as e:
        borrowed(signal_of(hbn_129().channels, hbn_129().positions), "by_name")
    assert "rows: nearest" in str(e.value)
    assert "\n" not in str(e.value)


def test_every_electrode_of_hbn_borrows_from_the_same_place_of_the_head() -> None:
    net = hbn_129()
    signal = signal_of(net.channels, net.positions)
    found = borrowed(signal, "nearest")
    known = {"E36": "C3", "E104": "C4", "E24": "F3", "E124": "F4", "E75": "OZ", "E70": "O1", "E83": "O2", "E62": "PZ"}
    known |= {"E22": "FP1", "E9": "FP2", "E33": "F7", "E122": "F8", "E96": "P8", "E58": "P7", "Cz": "CZ"}
    assert {channel: found[channel] for channel in known} == known  # EGI's own table of 10-20 equivalents
    on_cap = dict(zip((name.upper() for name in standard_1005().channels), standard_1005().positions, strict=True))
    for channel, place in zip(net.channels, net.positions, strict=True):
        other = on_cap.get(found[channel].upper())
        if other is not None and abs(place[0]) > 0.03:
            assert np.sign(place[0]) == np.sign(other[0]), f"{channel} borrows from the other side"


def test_every_borrowed_row_is_told_with_its_distance() -> None:
    lines = borrow_rows(signal_of(hbn_129().channels, hbn_129().positions), "nearest", FILE).lines
    assert lines[0] == "channel rows: 1 of 129 channels by name"
    assert lines[1].startswith("channel rows: 128 of 129 channels by position, from ")
    assert "E36 <- C3 8.2 mm" in lines[6]
    assert sum(line.count(" <- ") for line in lines) == 128
    assert lines[-1].startswith("borrowed 121-128 of 128: ")


def test_the_10_05_system_keeps_its_names_and_lends_to_its_neighbours() -> None:
    cap = standard_1005()
    found = borrowed(signal_of(cap.channels, cap.positions), "nearest")
    registry = {name.upper() for name in OFFICIAL_CHANNELS}
    named = [channel for channel in cap.channels if channel.upper() in registry]
    assert len(named) > 90
    assert all(found[channel].upper() == channel.upper() for channel in named)
    assert found["FFC3"] in ("F3", "FC3")
    assert not any("-" in name for name in found.values()), "a difference of two places has no place of its own"


def test_an_electrode_of_a_small_cap_without_known_names_borrows_from_where_it_sits() -> None:
    cap = standard_1005()
    wanted = ("AF7", "AF8", "TP9", "TP10")
    places = np.array([cap.positions[cap.channels.index(name)] for name in wanted])
    signal = signal_of(("a", "b", "c", "d"), places)
    assert tuple(borrowed(signal, "nearest").values()) == wanted
    assert "largest 0.0 mm" in borrow_rows(signal, "nearest", FILE).lines[1]


def test_a_channel_without_name_and_position_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"1 channels have neither a name of LaBraM nor a position \(X1\)"):
        borrowed(signal_of(("Cz", "X1")), "nearest")
