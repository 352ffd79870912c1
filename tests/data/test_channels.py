import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.data import AsRecorded, EEGData, MapChannels, ParticipantSplit, SlidingWindows
from cerebro.data.arrays import write_store
from cerebro.data.channels import SCALP_10_20, match, match_names
from cerebro.data.store import Store
from cerebro.errors import ConfigError, DataError
from cerebro.montage import Montage, hbn_129, standard_1005

CAP, NET = standard_1005(), hbn_129()
OLD = {"T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"}


def part(cap, names, name="cap", renamed=None):
    rows = [cap.channels.index(channel) for channel in names]
    return Montage(name, tuple((renamed or {}).get(channel, channel) for channel in names), cap.positions[rows])


class StoreOf(Store):
    """Montages stand for a store where nothing else is asked for."""

    def __init__(self, *montages):
        self.montages, self.path, self.sfreq = montages, "store", 100.0


def plan_of(space, *montages):
    return space.plan(StoreOf(*montages))


def seen(space, montage, eeg):
    """Name -> signal (T,) of one window (C, T), as a model gets it, padding left out."""
    plan = plan_of(space, montage)
    rows, change = plan.rows[0], plan.maps[0]
    counts = torch.as_tensor(eeg).round().to(torch.int16).T[None]
    out = change.of_microvolts(change.of_counts(counts).transpose(1, 2).float())[0]
    assert len(out) == len(rows)
    return {plan.names[row]: signal.numpy() for row, signal in zip(rows.tolist(), out, strict=True) if row >= 0}


def noise(n, n_times=50, seed=0):
    return np.random.default_rng(seed).integers(-3000, 3000, (n, n_times)).astype(float)


def test_as_recorded_keeps_every_channel_of_every_montage():
    first, second = part(CAP, ["Fp1", "Cz"]), part(CAP, ["Cz", "O1"])
    plan = plan_of(AsRecorded(), first, second)
    assert plan.names == ("Fp1", "Cz", "O1")
    assert [rows.tolist() for rows in plan.rows] == [[0, 1], [1, 2]]


@pytest.mark.parametrize("method", ["select", "pad", "interpolate"])
@given(order=st.permutations(range(21)), subset=st.integers(5, 21))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_channels_of_a_recording_changes_nothing(method, order, subset):
    names = ([*SCALP_10_20, "AF3", "POz"] * 2)[3:24]
    order = [at for at in order if at < subset]
    montage, shuffled = part(CAP, names[:subset]), part(CAP, [names[at] for at in order])
    eeg = noise(subset)
    space = MapChannels("10-20-19", method)
    one, two = seen(space, montage, eeg), seen(space, shuffled, eeg[order])
    assert set(one) == set(two)
    for name in one:
        assert np.allclose(one[name], two[name], atol=0 if method != "interpolate" else 0.05)


@pytest.mark.parametrize("method", ["select", "pad", "interpolate"])
def test_the_target_itself_is_mapped_exactly(method):
    montage, eeg = part(CAP, SCALP_10_20[::-1]), noise(19)
    found = seen(MapChannels("10-20-19", method), montage, eeg)
    assert all(np.array_equal(found[name], row) for name, row in zip(montage.channels, eeg, strict=True))
    plan = plan_of(MapChannels("10-20-19", method), montage)
    assert plan.maps[0].pick.numel() == plan.maps[0].weights.numel() == 0  # nothing is done to a batch


def test_old_names_are_the_new_electrodes():
    montage = part(CAP, SCALP_10_20, renamed=OLD)
    found = seen(MapChannels("10-20-19", "select", max_distance_mm=0.0), montage, eeg := noise(19))
    assert set(found) == set(SCALP_10_20)
    assert np.array_equal(found["T7"], eeg[SCALP_10_20.index("T7")])
    old_target = Montage("old", ("T3", "T5"), np.zeros((2, 3)))
    assert match_names(part(CAP, ["P7", "T7"]), old_target).tolist() == [1, 0]


def test_select_gives_the_matched_channels_and_no_others():
    montage = part(CAP, ["AFz", "Fp1", "O2", "CPz"])
    found = seen(MapChannels("10-20-19", "select", max_distance_mm=0.0), montage, eeg := noise(4))
    assert set(found) == {"Fp1", "O2"}
    assert np.array_equal(found["O2"], eeg[2])


def test_pad_marks_what_is_missing_and_fills_it_with_zeros():
    montage = part(CAP, ["AFz", "O2", "Fp1"])
    space = MapChannels("10-20-19", "pad", max_distance_mm=0.0)
    plan = plan_of(space, montage)
    rows, change = plan.rows[0], plan.maps[0]
    assert rows.tolist() == [0, *[-1] * 17, 18]
    out = change.of_microvolts(change.of_counts(torch.ones(2, 5, 3, dtype=torch.int16)).transpose(1, 2).float())
    assert out.shape == (2, 19, 5)
    assert (out.any(2) == torch.from_numpy(rows >= 0)).all()


def test_channels_of_another_net_are_the_nearest_electrodes_and_none_is_given_twice():
    target = part(CAP, SCALP_10_20)
    column = match(NET, target, 0.025)
    assert len(set(column.tolist())) == 19
    names = dict(zip(SCALP_10_20, (NET.channels[at] for at in column), strict=True))
    assert names["Cz"] == "Cz"  # by name
    # EGI's table of equivalents (Luu & Ferree 2000, Electrical Geodesics Inc.), for sites where no neighbour is nearer
    published = {"Fp1": "E22", "Fp2": "E9", "F3": "E24", "F4": "E124", "C3": "E36", "C4": "E104", "Pz": "E62"}
    published |= {"P3": "E52", "P4": "E92", "O1": "E70", "O2": "E83", "Fz": "E11"}
    assert {name: names[name] for name in published} == published
    away = np.linalg.norm(NET.positions[column] - target.positions, axis=1)
    assert away.max() < 0.025


@given(seed=st.integers(0, 500), limit_mm=st.floats(1, 60))
@settings(max_examples=40, deadline=None)
def test_a_match_by_position_is_within_the_limit_and_one_to_one(seed, limit_mm):
    rng = np.random.default_rng(seed)
    places = rng.normal(0, 0.05, (9, 3))
    montage = Montage("net", tuple(f"X{i}" for i in range(9)), places)
    target = Montage("t", tuple(f"Y{i}" for i in range(6)), rng.normal(0, 0.05, (6, 3)))
    column = match(montage, target, limit_mm / 1000)
    matched = column[column >= 0]
    assert len(set(matched.tolist())) == len(matched)
    away = np.linalg.norm(places[column] - target.positions, axis=1)[column >= 0]
    assert (away <= limit_mm / 1000).all()
    free = [at for at in range(9) if at not in matched]
    left = np.flatnonzero(column < 0)
    if len(free) and len(left):  # nothing within reach is left over on both sides
        gaps = np.linalg.norm(places[free][:, None] - target.positions[left][None], axis=2)
        assert gaps.min() > limit_mm / 1000


def test_a_name_counts_more_than_a_place():
    places = part(CAP, ["O1", "O2"]).positions
    swapped = Montage("swapped", ("O2", "O1"), places)
    assert match(swapped, part(CAP, ["O1", "O2"]), 0.05).tolist() == [1, 0]


@pytest.fixture(scope="module")
def dipoles():
    """Potentials (C, T) in microvolts of dipoles 2 cm from the centre of the head at all places of the 10-05 cap."""
    rng = np.random.default_rng(3)
    inside = rng.normal(0, 1, (25, 3))
    inside = np.array([0, 0.015, 0.04]) + 0.02 * inside / np.linalg.norm(inside, axis=1, keepdims=True)
    away = CAP.positions[:, None] - inside[None]
    moment = rng.normal(0, 1, (25, 3))
    gain = (away * moment).sum(2) / np.linalg.norm(away, axis=2) ** 3
    gain /= np.abs(gain).max()
    signal = gain @ rng.normal(0, 1, (25, 200))
    return 300 * signal / np.abs(signal).max()


def test_interpolation_of_a_smooth_dipole_field_is_close(dipoles):
    names = [name for name in CAP.channels if name.upper() not in {n.upper() for n in SCALP_10_20}][::3]
    rows = [CAP.channels.index(name) for name in names]
    found = seen(MapChannels("10-20-19", "interpolate"), part(CAP, names), 100 * dipoles[rows])
    assert set(found) == set(SCALP_10_20)
    inner = [name for name in SCALP_10_20 if name not in ("A1", "A2")]
    truth = np.array([100 * dipoles[CAP.channels.index(name)] for name in inner])
    error = np.linalg.norm(np.array([found[name] for name in inner]) - truth) / np.linalg.norm(truth)
    assert error < 0.08


def test_interpolation_equals_mne(dipoles):
    import mne

    from cerebro.montage import fit_sphere

    names = [*SCALP_10_20, *CAP.channels[20:60:3]]
    names = list(dict.fromkeys(names))
    bads = ["C3", "Pz", "O2"]
    rows = [CAP.channels.index(name) for name in names]
    eeg = np.round(20 * dipoles[rows])
    info = mne.create_info(names, 100.0, "eeg")
    raw = mne.io.RawArray(eeg * 1e-6, info, verbose="error")
    places = dict(zip(names, CAP.positions[rows], strict=True))
    raw.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"), verbose="error")
    raw.info["bads"] = bads
    raw.interpolate_bads(origin=tuple(fit_sphere(CAP.positions)[0]), method={"eeg": "spline"}, verbose="error")
    good = [name for name in names if name not in bads]
    found = seen(MapChannels("10-20-19", "interpolate"), part(CAP, good), eeg[[names.index(name) for name in good]])
    for name in bads:
        assert np.abs(found[name] - 1e6 * raw.get_data(name)[0]).max() < 1e-2  # of some hundred microvolts


def test_mapped_channels_reach_the_model_in_batches(tmp_path):
    montage = part(CAP, ["AFz", "O2", "Fp1", "Cz"])
    rng = np.random.default_rng(0)
    people = [f"p{i}" for i in range(6)]
    store = write_store(
        tmp_path / "store",
        {who: rng.normal(0, 20, (4, 1000)).astype("f4") for who in people},
        montage,
        100.0,
        tasks=dict.fromkeys(people, "rest"),
        people={who: who for who in people},
        participants=pd.DataFrame(index=pd.Index(people, name="participant_id")),
    )

    def first(space):
        data = EEGData(store.path, SlidingWindows(), ParticipantSplit(0.2), batch_size=4, channels=space)
        raw = next(iter(data.train_dataloader()))
        assert raw.counts.shape == (4, 200, 4)  # the recording's own channels travel, as int16
        assert len(data.signal.channels) == (4 if isinstance(space, AsRecorded) else 19)
        return data, raw.to(torch.device("cpu")).to_microvolts()

    _, plain = first(AsRecorded())
    data, selected = first(MapChannels("10-20-19", max_distance_mm=0.0))
    assert [data.signal.channels[row] for row in selected.channel[0].tolist()] == ["Fp1", "Cz", "O2"]
    assert torch.equal(selected.eeg, plain.eeg[:, [2, 3, 1]])
    assert not selected.is_padded
    assert "montage cap: 3 of 4 channels used" in data.summary().replace("10-05", "cap")
    _, padded = first(MapChannels("10-20-19", "pad", max_distance_mm=0.0))
    assert padded.is_padded
    assert padded.eeg.shape == (4, 19, 200)
    assert torch.equal(padded.eeg[padded.channel >= 0].view(4, 3, 200), selected.eeg)
    assert not padded.eeg[padded.channel < 0].any()
    _, whole = first(MapChannels("10-20-19", "interpolate"))
    assert whole.eeg.shape == (4, 19, 200)
    assert torch.equal(whole.eeg[:, [0, 9, 18]], selected.eeg)
    assert whole.eeg.std(dim=2).min() > 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(first(MapChannels("10-20-19", "interpolate"))[1].eeg, whole.eeg)


def test_the_result_of_a_window_does_not_depend_on_its_neighbours():
    plan = plan_of(MapChannels("10-20-19", "interpolate"), part(CAP, ["AFz", "O2", "Fp1", "Cz", "C3", "P4"]))
    eeg = torch.randn(5, 6, 40, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(plan.maps[0].of_microvolts(eeg)[2:3], plan.maps[0].of_microvolts(eeg[2:3]), atol=1e-5)


def test_what_cannot_be_mapped_is_refused_in_one_line():
    nowhere = Montage("nowhere", ("X1", "X2"), np.full((2, 3), np.nan))
    with pytest.raises(DataError, match=r"channels X1, X2 of montage nowhere have no position, which is needed here"):
        plan_of(MapChannels("10-20-19"), nowhere)
    with pytest.raises(DataError, match=r"channels X1, X2 of montage nowhere have no position"):
        plan_of(MapChannels("10-20-19", "interpolate"), nowhere)
    with pytest.raises(DataError, match=r"no channel of montage nowhere \(X1, X2, ...\) is an electrode of 10-20-19"):
        plan_of(MapChannels("10-20-19", max_distance_mm=0.0), nowhere)
    with pytest.raises(DataError, match=r"channels T3 and T7 of montage twice are both electrode T7"):
        plan_of(MapChannels("10-20-19"), Montage("twice", ("T3", "T7"), np.zeros((2, 3))))
    with pytest.raises(ConfigError, match=r"target='gsn' is unknown; set channels.target to 10-20-19"):
        plan_of(MapChannels("gsn"), NET)
    with pytest.raises(ConfigError, match=r"electrodes XX are not in 10-05"):
        plan_of(MapChannels("standard_1005", electrodes=("Cz", "XX")), NET)
    with pytest.raises(ConfigError, match="max_distance_mm=-1"):
        MapChannels(max_distance_mm=-1.0)


def test_an_asa_file_is_a_target(tmp_path):
    file = tmp_path / "cap.elc"
    file.write_text(
        "ReferenceLabel avg\nUnitPosition mm\nPositions\n-86 0 0\n86 0 0\n0 95 0\n0 0 100\n-30 -90 30\n"
        "Labels\nLPA\nRPA\nNz\nCz\nO1\n"
    )
    plan = plan_of(MapChannels(str(file), electrodes=("O1", "Cz"), max_distance_mm=0.0), part(CAP, ["Cz", "O1", "O2"]))
    assert plan.names == ("O1", "Cz")
    assert plan.maps[0].pick.tolist() == [1, 0]
