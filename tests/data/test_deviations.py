"""Standard deviations of channels: what numpy says of the samples that are there, kept beside the store once."""

import logging

import numpy as np
import pandas as pd
import pytest

from cerebro.data import ChannelSequences, EEGData, ParticipantSplit, deviations
from cerebro.data.arrays import write_store
from cerebro.data.deviations import DEVIATIONS, PROOF, deviations_uV, sums
from cerebro.data.mixture import open_store, write_mixture
from cerebro.data.readers.base import Segment
from cerebro.data.store import Store
from cerebro.errors import DataError
from cerebro.montage import Montage

LENGTH, SFREQ = 64, 32.0
CAP = Montage("cap", ("Fz", "Cz", "Pz"), np.array([[0.0, 0.08, 0.05], [0.0, 0.0, 0.1], [0.0, -0.06, 0.08]]))
SHORT = {1: 20, 4: 5}  # windows of the recording c -> samples that were there


def write(path, seed=0, corpus="mine"):
    """Two recordings of windows (b has a channel that never changes, c short windows), one that is continuous."""
    rng = np.random.default_rng(seed)
    eeg = {key: (rng.normal(0, [[5.0], [40.0], [150.0]], (3, 5 * LENGTH))).astype(np.float32) for key in "abc"}
    eeg["b"][1] = 7.0
    is_there = np.arange(LENGTH) < np.array([SHORT.get(window, LENGTH) for window in range(5)])[:, None]
    eeg["c"] -= eeg["c"].mean(axis=1, where=is_there.ravel(), keepdims=True)
    eeg["c"][:, ~is_there.ravel()] = 0
    segments = {
        "b": tuple(Segment(window, 0, 2.0 * window, 2.0 * window + 2, LENGTH) for window in range(5)),
        "c": tuple(
            Segment(window, 0, 2.0 * window, 2.0 * window + 2, SHORT.get(window, LENGTH)) for window in range(5)
        ),
    }
    people = pd.DataFrame({"age": [1.0, 2.0, 3.0]}, index=pd.Index(list("abc"), name="participant_id"))
    names = dict.fromkeys("abc", "rest")
    whose = {key: key for key in "abc"}
    return write_store(path, eeg, CAP, SFREQ, names, whose, people, segments=segments, corpus=corpus, reference="Cz")


@pytest.fixture
def store(tmp_path):
    return write(tmp_path / "s")


def expected(store):
    """By numpy, in float64, from the samples that are there."""
    is_there = (np.arange(LENGTH) < np.array([SHORT.get(window, LENGTH) for window in range(5)])[:, None]).ravel()
    whole, short = (store.samples(number) * 0.05 for number in (1, 2))
    return np.concatenate([[np.nan] * 3, whole.std(axis=0), short[is_there].std(axis=0)])


def test_deviations_are_those_of_the_samples_that_are_there_in_microvolts(store):
    found = deviations_uV(store)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(store), rtol=1e-6)
    assert found[4] == 0  # never changes
    assert found[7] == pytest.approx(40, rel=0.15)


def test_sums_are_exact_at_the_edge_of_what_a_store_holds():
    counts = np.full((2, 70_001), -32767, np.int16)
    counts[1, ::2] = 32767
    total, square = sums(counts)
    assert total.tolist() == [-32767 * 70_001, 32767]
    assert square.tolist() == [32767**2 * 70_001] * 2


def test_they_are_measured_once_and_the_store_stays_what_it_was(store, monkeypatch):
    before = deviations_uV(store)
    monkeypatch.setattr(deviations, "_measure", lambda store: pytest.fail("measured again"))
    opened = Store.open(store.path)
    np.testing.assert_array_equal(deviations_uV(opened), before)
    assert opened.data_hash == store.data_hash
    assert opened.verify() == []
    assert {path.name for path in store.path.iterdir()} >= {DEVIATIONS, PROOF}


def test_preparing_the_store_anew_with_other_content_measures_anew(tmp_path, caplog):
    first = deviations_uV(write(tmp_path / "s"))
    other = write(tmp_path / "s", seed=1)
    assert (other.path / PROOF).exists()  # of the content before
    found = deviations_uV(other)
    np.testing.assert_allclose(found, expected(other), rtol=1e-6)
    assert not np.array_equal(found, first, equal_nan=True)
    assert caplog.messages == []


@pytest.mark.parametrize("name", [DEVIATIONS, PROOF])
def test_any_damage_is_one_line_and_measured_anew(store, name, caplog):
    right = deviations_uV(store)
    file = store.path / name
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(20):
        content = bytearray(whole)
        if trial == 0:
            content = content[: len(content) // 2]
        elif trial == 1:
            content = bytearray()
        else:
            content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        file.write_bytes(bytes(content))
        caplog.clear()
        np.testing.assert_array_equal(deviations_uV(store), right)
        assert len(caplog.messages) <= 1
        if name == DEVIATIONS:
            assert "measured anew" in caplog.messages[0]
        assert file.read_bytes() == whole  # written again


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), DataError("the disk is full")])
def test_where_they_cannot_be_kept_one_line_says_so_and_they_count_all_the_same(store, error, monkeypatch, caplog):
    def refuse(*_):
        raise error

    monkeypatch.setattr(deviations, "write_atomically", refuse)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(deviations_uV(store), expected(store), rtol=1e-6)
    (line,) = caplog.messages
    assert f"{DEVIATIONS} cannot be kept" in line
    assert "Permission denied" in line or "disk is full" in line
    assert not (store.path / PROOF).exists()


def test_a_mixture_has_those_of_its_members_in_their_order(tmp_path):
    one, two = write(tmp_path / "one", 1, "one"), write(tmp_path / "two", 2, "two")
    write_mixture(tmp_path / "mix", {"x": tmp_path / "one", "w": tmp_path / "two"}, {"x": 1.0, "w": 1.0})
    found = deviations_uV(open_store(tmp_path / "mix"))
    np.testing.assert_array_equal(found, np.concatenate([deviations_uV(two), deviations_uV(one)]))
    mixture = open_store(tmp_path / "mix")
    table, _ = ChannelSequences().table(mixture)
    rows = mixture.index["offset_row"][table.recording[:]] + table.channel[:]
    np.testing.assert_array_equal(table.deviation_uV[:], found[rows])
    for row in range(len(table)):
        name, key = mixture.recordings["key"].iloc[int(table.recording[row])].split("/")
        own = expected(one if name == "x" else two).reshape(3, 3)["abc".index(key), int(table.channel[row])]
        assert table.deviation_uV[row] == pytest.approx(own, rel=1e-6)


def test_every_batch_of_sequences_carries_them_and_windows_of_all_channels_none(store, tmp_path):
    split = ParticipantSplit(val_ratio=0.0, test_ratio=0.0, seed=0)
    data = EEGData(store.path, ChannelSequences(), split, batch_size=2)
    right = expected(store).reshape(3, 3)
    n_rows = 0
    for raw in [*data.predict_dataloader(), *data.train_dataloader()]:
        batch = raw.to_microvolts()
        assert batch.deviation.shape == (len(batch), 1)
        for row in range(len(batch)):
            mine = right[int(batch.recording[row]), int(batch.channel[row, 0])]
            assert batch.deviation[row, 0].item() == pytest.approx(mine, rel=1e-6)
            samples = batch.eeg[row, 0, : int(batch.n_valid[row])]
            assert samples[samples != 0].std() == pytest.approx(mine, rel=0.02)
            n_rows += 1
    assert n_rows >= 10
    table, _ = ChannelSequences().table(store)
    assert len(table) == 5  # six channels, one of which never changes


def test_channels_that_never_change_are_left_out_and_counted(store):
    table, left_out = ChannelSequences().table(store)
    assert (1, 1) not in set(zip(table.recording[:].tolist(), table.channel[:].tolist(), strict=True))
    assert "1 sequences left out: channels that never change" in map(str, left_out)
    with pytest.raises(DataError, match=r"no channel of .* ever changes; choose other channels or tasks") as error:
        ChannelSequences(channels=("Cz",)).table(only_flat(store))
    assert "\n" not in str(error.value)


def only_flat(store):
    """The store without the recording in which Cz changes."""
    store.index["layout"][2] = 0
    return store
