"""Sequences: all windows of a channel of a recording, and padding that changes nothing."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.data import ChannelSequences, EEGData, ParticipantSplit, SlidingWindows, sequences
from cerebro.data.arrays import write_store
from cerebro.data.columns import column_of
from cerebro.data.loader import BatchLoader
from cerebro.data.readers.base import Segment
from cerebro.data.sequences import SequenceReader, reader_of
from cerebro.data.store import Store
from cerebro.data.windows import WindowReader, WindowTable
from cerebro.encoders.labram import LaBraM
from cerebro.errors import ConfigError, DataError
from cerebro.montage import Montage

LENGTH, SFREQ = 64, 32.0
CAP = Montage("cap", ("Fz", "Cz", "Pz"), np.array([[0.0, 0.08, 0.05], [0.0, 0.0, 0.1], [0.0, -0.06, 0.08]]))
N_WINDOWS = {"a_run-1": 4, "a_run-2": 7, "b_run-1": 5, "c_run-1": 2, "d_run-1": 6, "e_run-1": 5}
N_VALID = {"a_run-2": {6: 30}, "b_run-1": {1: 20}, "c_run-1": {1: LENGTH - 1}}  # windows that were shorter
TWO_CHANNELS = ("d_run-1", "e_run-1")


def eeg_of(key):
    """Windows of a recording (C, W, L), zero where they were shorter."""
    n = N_WINDOWS[key]
    n_channels = 2 if key in TWO_CHANNELS else 3
    rng = np.random.default_rng(sorted(N_WINDOWS).index(key))
    eeg = rng.normal(0, 50, (n_channels, n, LENGTH)).astype(np.float32)
    for window, n_valid in N_VALID.get(key, {}).items():
        eeg[:, window, n_valid:] = 0
    return eeg.reshape(n_channels, -1)


def write(path, keys=tuple(N_WINDOWS), **other):
    segments = {
        key: tuple(
            Segment(window, 0, 2.0 * window, 2.0 * window + 2, N_VALID.get(key, {}).get(window, LENGTH))
            for window in range(N_WINDOWS[key])
        )
        for key in keys
    }
    people = sorted({key[0] for key in keys})
    return write_store(
        path,
        **{
            "eeg": {key: eeg_of(key) for key in keys},
            "montage": CAP,
            "sfreq": SFREQ,
            "tasks": {key: "film" if key[0] == "d" else "rest" for key in keys},
            "people": {key: key[0] for key in keys},
            "participants": pd.DataFrame(
                {"remission": np.arange(len(people)) % 2.0}, index=pd.Index(people, name="participant_id")
            ),
            "channels": {key: ("Fz", "Pz") for key in keys if key in TWO_CHANNELS},
            "segments": segments,
        }
        | other,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write(tmp_path_factory.mktemp("sequences") / "s")


def test_a_row_is_one_channel_of_one_recording_to_the_end_of_its_last_sample(store):
    table, left_out = ChannelSequences().table(store)
    keys = store.recordings["key"].tolist()
    assert keys == sorted(N_WINDOWS)
    expected = [(key, c) for key in keys for c in range(2 if key in TWO_CHANNELS else 3)]
    assert [(keys[r], int(c)) for r, c in zip(table.recording[:], table.channel[:], strict=True)] == expected
    valid = {key: n * LENGTH for key, n in N_WINDOWS.items()} | {"a_run-2": 6 * LENGTH + 30, "c_run-1": 2 * LENGTH - 1}
    assert table.n_valid[:].tolist() == [valid[key] for key, _ in expected]
    assert table.n_times == 7 * LENGTH
    assert table.start[:].tolist() == [0] * len(expected)
    assert [str(omission) for omission in left_out] == [
        "1 windows inside sequences end in zeros: they were shorter than the others"
    ]


@pytest.mark.parametrize("pooled_bytes", [0, 1 << 30])
def test_a_batch_is_as_long_as_its_longest_sequence_and_zero_behind_each(store, pooled_bytes, monkeypatch):
    monkeypatch.setattr(sequences, "POOLED_BYTES", pooled_bytes)
    table, _ = ChannelSequences().table(store)
    reader = SequenceReader(store, table)
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, len(table)):
        rows = rng.choice(len(table), size, replace=False)
        counts = reader.read(rows, rows)
        longest = max(N_WINDOWS[sorted(N_WINDOWS)[int(table.recording[row])]] for row in rows.tolist()) * LENGTH
        assert counts.shape == (size, longest, 1)
        assert counts.dtype == torch.int16
        for row, sequence in zip(rows.tolist(), counts[:, :, 0].numpy(), strict=True):
            recording, n_valid = int(table.recording[row]), int(table.n_valid[row])
            whole = store.samples(recording)[:, table.channel[row]]
            np.testing.assert_array_equal(sequence[:n_valid], whole[:n_valid])
            assert not sequence[n_valid:].any()


def test_a_buffer_that_is_used_again_holds_nothing_of_the_batch_before(store, monkeypatch):
    monkeypatch.setattr(sequences, "POOLED_BYTES", 0)
    table, _ = ChannelSequences().table(store)
    reader = SequenceReader(store, table)
    longest, short = int(table.n_valid[:].argmax()), int(table.n_valid[:].argmin())
    both = np.array([short, longest])
    expected = reader.read(both, both).clone()
    for _ in range(3):
        reader.read(np.array([longest, longest]), both)
        assert torch.equal(reader.read(both, both), expected)


def test_long_sequences_are_cut_to_their_first_windows_and_counted(store):
    table, left_out = ChannelSequences(max_windows=4).table(store)
    assert table.n_times == 4 * LENGTH
    assert set(table.n_valid[:].tolist()) == {4 * LENGTH, 2 * LENGTH - 1}
    assert str(left_out[0]) == "7 windows left out: behind the first 4"
    reader = SequenceReader(store, table)
    for row in range(len(table)):
        n = int(table.n_valid[row])
        expected = store.samples(int(table.recording[row]))[:n, table.channel[row]]
        np.testing.assert_array_equal(reader.read(np.array([row]), np.array([row]))[0, :n, 0], expected)


def test_channels_and_tasks_can_be_chosen(store):
    table, _ = ChannelSequences(channels=("Pz",)).table(store)
    assert table.channel[:].tolist() == [2, 2, 2, 2, 1, 1]
    table, left_out = ChannelSequences(tasks=("film", "sleep")).table(store)
    assert set(table.recording[:].tolist()) == {4}
    assert "task sleep is not in the store" in map(str, left_out)
    with pytest.raises(ConfigError, match=r"has no channel O1; set channels"):
        ChannelSequences(channels=("O1",)).table(store)
    with pytest.raises(DataError, match=r"finds no sequence .*task sleep is not in the store"):
        ChannelSequences(tasks=("sleep",)).table(store)
    with pytest.raises(ConfigError, match="max_windows=-1 is negative"):
        ChannelSequences(max_windows=-1)


def test_labels_of_recordings_become_targets_where_they_are_named(tmp_path):
    labels = {"a_run-1": {"speed": 0.5, "mood": 1.0}, "b_run-1": {"speed": 0.25}}
    store = write(tmp_path / "s", labels=labels)
    table, _ = ChannelSequences(labels=("speed",), channels=("Fz",)).table(store)
    assert list(table.targets) == ["speed"]
    np.testing.assert_array_equal(table.targets["speed"][:], [0.5, np.nan, 0.25, np.nan, np.nan, np.nan])
    assert ChannelSequences().table(store)[0].targets == {}
    with pytest.raises(ConfigError, match=r"have no label age; set labels to some of mood, speed\.") as error:
        ChannelSequences(labels=("age",)).table(store)
    assert "\n" not in str(error.value)


def test_continuous_recordings_are_left_out_and_windows_of_two_lengths_refused(store, tmp_path):
    keys = ("a_run-1", "b_run-1")
    mixed = write(
        tmp_path / "mixed", keys, segments={"a_run-1": tuple(Segment(i, 0, 0.0, 2.0, LENGTH) for i in range(4))}
    )
    table, left_out = ChannelSequences().table(mixed)
    assert set(table.recording[:].tolist()) == {0}
    assert str(left_out[0]) == "1 recordings left out: continuous, no windows side by side"
    whole = WindowTable(
        column_of(np.array([1], np.int32)),
        column_of(np.array([0])),
        64,
        channel=column_of(np.array([0], np.int32)),
        n_valid=column_of(np.array([9])),
    )
    with pytest.raises(DataError, match=r"recording b_run-1 of .* has no windows side by side"):
        SequenceReader(mixed, whole)
    halves = {
        "a_run-1": tuple(Segment(i, 0, 0.0, 2.0, 32) for i in range(8)),
        "b_run-1": (Segment(0, 0, 0.0, 9.0, 320),),
    }
    with pytest.raises(DataError, match=r"windows of .* have 32 and 320 samples"):
        ChannelSequences().table(write(tmp_path / "halves", keys, segments=halves))
    none = write(tmp_path / "none", keys, segments={})
    with pytest.raises(DataError, match=r"finds no sequence .*2 recordings left out.*prepare it with ParquetWindows"):
        ChannelSequences().table(none)
    assert isinstance(reader_of(none, SlidingWindows().table(none)[0]), WindowReader)


@pytest.mark.parametrize(("n_valid", "channel"), [(5 * LENGTH, 0), (0, 0), (LENGTH, 3), (LENGTH, -1)])
def test_a_sequence_that_leaves_its_recording_is_refused(store, n_valid, channel):
    table = WindowTable(
        column_of(np.array([0], np.int32)),
        column_of(np.array([0])),
        LENGTH,
        channel=column_of(np.array([channel], np.int32)),
        n_valid=column_of(np.array([n_valid])),
    )
    with pytest.raises(DataError, match="sequence 0 leaves its recording a_run-1"):
        SequenceReader(store, table)


def test_a_flipped_bit_is_met_by_the_sequence_that_holds_it_and_no_other(tmp_path):
    store = write(tmp_path / "s")
    ChannelSequences().table(store)  # looks at all samples once, for their deviation
    shard = store.path / "shards" / "00000.i16"
    content = bytearray(shard.read_bytes())
    content[int(store.index["offset"][2]) * 2 + 10] ^= 1
    shard.write_bytes(bytes(content))
    opened = Store.open(store.path)
    table, _ = ChannelSequences().table(opened)
    reader = SequenceReader(opened, table)
    damaged = np.flatnonzero(table.recording[:] == 2)[:1]
    with pytest.raises(DataError, match="is damaged"):
        reader.read(damaged, damaged)
    others = np.flatnonzero(table.recording[:] != 2)
    assert reader.read(others, others).shape[0] == len(others)


def data_of(store, **keys):
    return EEGData(
        store.path,
        ChannelSequences(),
        ParticipantSplit(val_ratio=0.2, test_ratio=0.2, seed=1),
        **({"targets": ("remission",), "batch_size": 4} | keys),
    )


def test_a_data_module_delivers_sequences_with_labels_and_channels(store):
    data = data_of(store)
    assert data.signal.n_times == 7 * LENGTH
    assert data.signal.channels == CAP.channels
    seen = []
    for raw in data.predict_dataloader():
        batch = raw.to_microvolts()
        longest = -(-int(batch.n_valid.max()) // LENGTH) * LENGTH
        assert batch.eeg.shape == (len(batch), 1, longest)
        assert batch.channel.shape == (len(batch), 1)
        assert batch.is_padded == bool((batch.n_valid < longest).any())
        for row in range(len(batch)):
            recording = int(batch.recording[row])
            key = store.recordings["key"].iloc[recording]
            name = CAP.channels[int(batch.channel[row, 0])]
            names = store.montages[store.index["montage"][recording]].channels
            eeg = eeg_of(key)[names.index(name)]
            n_valid = int(batch.n_valid[row])
            offset = store.offsets_uV(recording)[names.index(name)]
            np.testing.assert_allclose(batch.eeg[row, 0, :n_valid], (eeg - offset)[:n_valid], atol=0.026)
            person = store.participants.index[int(batch.participant[row])]
            assert batch.targets["remission"][row] == store.participants.loc[person, "remission"]
            seen.append((key, name))
    assert len(seen) == len(set(seen)) == len(data.table) == 16


def frozen(batch):
    tensors = [batch.counts, batch.key, batch.sample, batch.participant, batch.recording, batch.n_valid, batch.channel]
    return tuple(tensor.clone().numpy().tobytes() for tensor in tensors)


def test_reading_ahead_changes_no_batch_and_two_ranks_share_the_batches_of_one(store):
    loader = data_of(store).train_dataloader()
    ahead = [frozen(batch) for batch in loader]
    assert ahead == [frozen(loader.batch(0, step)) for step in range(len(loader))]
    assert len(set(ahead)) > 1
    ranks = [BatchLoader(loader.maker, loader.order, True, rank, world_size=2) for rank in range(2)]
    for step in range(len(loader)):
        whole = loader.batch(0, step)
        samples, n_valid = whole.sample.clone(), whole.n_valid.clone()
        counts = whole.counts.clone()
        if len(samples) % 2:
            continue
        parts = [rank.batch(0, step) for rank in ranks]
        assert torch.equal(torch.cat([part.sample for part in parts]), samples)
        assert torch.equal(torch.cat([part.n_valid for part in parts]), n_valid)
        rows = [row for part in parts for row in part.counts[:, :, 0]]
        for row, mine, n in zip(rows, counts[:, :, 0], n_valid.tolist(), strict=True):
            assert torch.equal(row[:n], mine[:n])


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(16)), size=st.integers(2, 8))
def test_a_masked_mean_is_the_same_alone_and_in_any_batch(store, order, size):
    table, _ = ChannelSequences().table(store)
    reader = SequenceReader(store, table)

    def means(rows):
        counts = reader.read(np.array(rows), np.array(rows))[:, :, 0].double()
        n_valid = torch.from_numpy(table.n_valid[np.array(rows)])
        is_there = torch.arange(counts.shape[1]) < n_valid[:, None]
        return (counts.where(is_there, torch.nan)).nanmean(dim=1)

    rows = list(order)[:size]
    alone = torch.cat([means([row]) for row in rows])
    assert torch.equal(means(rows), alone)


def test_an_encoder_gives_the_same_tokens_alone_and_padded(store):
    data = data_of(store, batch_size=16)
    torch.manual_seed(0)
    encoder = LaBraM(data.signal, patch_samples=LENGTH, conv_channels=4, depth=2, n_heads=4).eval()
    loader = data.predict_dataloader()
    n_compared = 0
    with torch.no_grad():
        for raw in loader:
            batch = raw.to_microvolts()
            tokens, valid = encoder(batch), encoder.valid(batch)
            for row, sample in enumerate(batch.sample.numpy()):
                one = loader.maker.make(np.array([sample]), 0).to_microvolts()
                n = int(encoder.valid(one).sum())
                assert int(valid[row].sum()) == n
                torch.testing.assert_close(tokens[row, :, :n], encoder(one)[0, :, :n], rtol=1e-4, atol=1e-5)
                n_compared += batch.eeg.shape[-1] > one.eeg.shape[-1]
    assert n_compared > 3
