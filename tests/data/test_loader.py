import threading

import numpy as np
import pandas as pd
import pytest
import torch

from cerebro.data.arrays import write_store
from cerebro.data.loader import FETCH_AHEAD_BYTES, BatchLoader, BatchMaker
from cerebro.data.sampling import FixedOrder, PairedOrder, ShuffledOrder
from cerebro.data.sources import RandomCrops
from cerebro.data.store import Store
from cerebro.data.targets import resolve
from cerebro.data.windows import WindowReader, channel_rows, signal_of
from cerebro.errors import CheckpointError, ConfigError, DataError
from cerebro.montage import Montage

CAP = Montage("cap", ("Fz", "Cz"), np.zeros((2, 3)))
KEYS = [f"r{i}" for i in range(5)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rng = np.random.default_rng(0)
    people = pd.DataFrame(
        {"age": [5.0, 6.0, np.nan, 8.0, 9.0]}, index=pd.Index([f"p{i}" for i in range(5)], name="participant_id")
    )
    return write_store(
        tmp_path_factory.mktemp("loader") / "s",
        {key: rng.normal(0, 50, (2, 900 + 200 * i)).astype(np.float32) for i, key in enumerate(KEYS)},
        CAP,
        100.0,
        tasks=dict.fromkeys(KEYS, "rest"),
        people={key: f"p{i}" for i, key in enumerate(KEYS)},
        participants=people,
        events={},
    )


def loader_of(store, batch_size=4, is_training=True, rank=0, world_size=1, batches_per_epoch=0, n_threads=1):
    table, _ = RandomCrops().table(store)
    labels = resolve(("age",), table, store.participants, np.ones(5, bool))
    channels = channel_rows(store, signal_of(store, table.n_times, ("age",)))
    maker = BatchMaker(WindowReader(store, table), labels, channels, seed=3)
    rows, montage = np.arange(len(table)), np.zeros(len(table), int)
    if is_training:
        order = ShuffledOrder(rows, montage, batch_size, batches_per_epoch, 3, world_size)
    else:
        order = FixedOrder(rows, montage, batch_size)
    return BatchLoader(maker, order, is_training, rank, world_size, n_threads)


def frozen(batch):
    """Everything of a batch as comparable bytes."""
    tensors = [batch.counts, batch.key, batch.sample, batch.participant, batch.recording, batch.n_valid, batch.channel]
    return tuple(tensor.clone().numpy().tobytes() for tensor in tensors)


def test_a_batch_carries_everything_that_is_known_of_its_windows(store):
    loader = loader_of(store)
    batch = next(iter(loader))
    assert not batch.is_padded
    assert bool((batch.channel >= 0).all() & (batch.n_valid == batch.counts.shape[1]).all())
    table = loader.maker.reader.table
    assert batch.counts.shape == (4, 200, 2)
    assert np.array_equal(batch.recording, table.recording[batch.sample.numpy()])
    assert torch.equal(batch.participant, batch.recording)  # person i made recording i
    assert batch.channel.tolist() == [[0, 1]] * 4
    assert batch.n_valid.tolist() == [200] * 4
    assert batch.pair.tolist() == [-1] * 4
    assert torch.equal(batch.known["age"], batch.participant != 2)
    known = batch.known["age"]
    assert torch.equal(batch.targets["age"][known], (batch.participant[known] + 5).float())
    starts = loader.maker.reader.starts(batch.sample.numpy(), batch.key.numpy())
    for row in range(4):
        expected = store.samples(int(batch.recording[row]))[starts[row] : starts[row] + 200]
        assert np.array_equal(batch.counts[row], expected)
    eeg = batch.to_microvolts().eeg
    assert torch.allclose(eeg, batch.counts.transpose(1, 2) * store.lsb_uV)


def test_an_epoch_holds_every_window_once_and_the_next_is_another(store):
    loader = loader_of(store)
    epochs = [torch.cat([batch.sample for batch in loader]) for _ in range(2)]
    n = len(loader.maker.reader.table)
    assert all(sorted(epoch.tolist()) == list(range(n)) for epoch in epochs)
    assert not torch.equal(*epochs)
    assert loader.state_dict() == {"epoch": 2, "step": 0}


@pytest.mark.parametrize("batches_per_epoch", [0, 3])
def test_a_run_resumed_at_any_step_sees_what_it_would_have_seen(store, batches_per_epoch):
    whole = loader_of(store, batches_per_epoch=batches_per_epoch)
    expected, states = [], [whole.state_dict()]
    for _ in range(3):
        for batch in whole:
            expected.append(frozen(batch))
            states.append(whole.state_dict())
    assert len(expected) == 3 * len(whole)
    for stop, state in enumerate(states):
        resumed = loader_of(store, batches_per_epoch=batches_per_epoch)
        resumed.load_state_dict(state)
        rest = [frozen(batch) for _ in range(3 - state["epoch"]) for batch in resumed]
        assert rest == expected[stop:]


def test_batches_read_ahead_do_not_count_as_consumed(store):
    loader = loader_of(store)
    batches = iter(loader)
    assert loader.state_dict() == {"epoch": 0, "step": 0}
    next(batches)
    assert loader.state_dict() == {"epoch": 0, "step": 1}
    for _ in range(len(loader) - 1):
        next(batches)
    assert loader.state_dict() == {"epoch": 1, "step": 0}  # without asking for one more


def test_set_epoch_keeps_a_position_inside_that_epoch(store):
    loader = loader_of(store)
    loader.load_state_dict({"epoch": 2, "step": 1})
    loader.set_epoch(2)
    assert loader.state_dict() == {"epoch": 2, "step": 1}
    loader.set_epoch(3)
    assert loader.state_dict() == {"epoch": 3, "step": 0}
    loader.load_state_dict({"epoch": 2, "step": len(loader)})
    assert loader.state_dict() == {"epoch": 3, "step": 0}
    with pytest.raises(CheckpointError, match="resume with the same data settings"):
        loader.load_state_dict({"epoch": 0, "step": len(loader) + 1})


def test_evaluation_starts_over_each_time_with_the_same_crops(store):
    loader = loader_of(store, is_training=False)
    first = [frozen(batch) for batch in loader]
    next(iter(loader))
    assert [frozen(batch) for batch in loader] == first
    samples = torch.cat([batch.sample for batch in loader])
    assert torch.equal(samples, torch.arange(len(loader.maker.reader.table)))
    assert len(first) == len(loader)


@pytest.mark.parametrize("n_threads", [0, 2, 4])
def test_any_number_of_threads_gives_the_same_batches_and_positions(store, n_threads):
    alone, several = loader_of(store), loader_of(Store.open(store.path), n_threads=n_threads)
    for _ in range(2):  # epochs
        for one, other in zip(alone, several, strict=True):
            assert frozen(one) == frozen(other)
            assert alone.state_dict() == several.state_dict()


def test_the_disk_is_asked_for_every_window_before_it_is_read_and_never_once_all_is_at_hand(store, monkeypatch):
    opened = Store.open(store.path)
    loader = loader_of(opened)
    loader.maker.reader.bytes_per_window = FETCH_AHEAD_BYTES // 8  # two batches at once
    asked = []
    monkeypatch.setattr(loader.maker.reader, "will_need", lambda rows, keys: asked.extend(rows.tolist()))
    seen = [row for batch in loader for row in batch.sample.tolist()]
    assert sorted(asked) == sorted(seen)
    assert opened.verify() == []
    assert opened.is_at_hand
    asked.clear()
    list(loader)
    assert asked == []


def test_two_ranks_partition_every_global_batch(store):
    whole = loader_of(store, batch_size=4)
    ranks = [loader_of(store, batch_size=4, rank=rank, world_size=2) for rank in range(2)]
    for batch, a, b in zip(whole, *ranks, strict=False):
        assert torch.equal(batch.sample, torch.cat([a.sample, b.sample]))
        assert torch.equal(batch.counts, torch.cat([a.counts, b.counts]))
        assert torch.equal(batch.key, torch.cat([a.key, b.key]))
    with pytest.raises(ConfigError, match="multiple of 2"):
        loader_of(store, batch_size=3, world_size=2)


def test_an_error_of_the_reading_thread_reaches_the_loop_and_the_thread_ends(store, monkeypatch):
    loader = loader_of(store)
    read = loader.maker.reader.read
    seen = []

    def fail_late(rows, keys):
        seen.append(rows)
        if len(seen) == 4:
            raise DataError("the store is damaged")
        return read(rows, keys)

    monkeypatch.setattr(loader.maker.reader, "read", fail_late)
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    with pytest.raises(DataError, match="the store is damaged"):
        next(batches)
    assert loader.state_dict() == {"epoch": 0, "step": 3}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cerebro-read-ahead")]


def test_a_disk_that_cannot_be_read_is_told_though_batches_still_come(store, monkeypatch):
    loader = loader_of(store)

    def fail(rows, keys):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(loader.maker.reader, "will_need", fail)
    with pytest.raises(OSError, match="Input/output error"):
        list(loader)


def test_leaving_a_loop_early_ends_the_thread(store):
    batches = iter(loader_of(store))
    next(batches)
    assert [thread for thread in threading.enumerate() if thread.name.startswith("cerebro-read-ahead")]
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cerebro-read-ahead")]


def test_couples_pass_through_the_loader(store):
    loader = loader_of(store)
    n = len(loader.maker.reader.table)
    pair, person = np.arange(n) % 4, loader.maker.reader.table.recording[:]
    loader.order = PairedOrder(np.arange(n), pair, person, 4, 0, seed=0)
    for batch in loader:
        couples = batch.participant.reshape(-1, 2)
        assert (couples[:, 0] != couples[:, 1]).all()
    order = PairedOrder(np.arange(n), pair, person, 6, 0, seed=0)
    with pytest.raises(ConfigError, match="multiple of 4"):  # three rows each would cut a couple
        BatchLoader(loader.maker, order, is_training=True, rank=0, world_size=2)


def test_a_loader_without_signals_gives_the_same_batches_in_the_same_order(store, monkeypatch):
    loader = loader_of(store)
    loader.load_state_dict({"epoch": 1, "step": 2})
    bare = loader.without_signals()
    expected = list(loader)
    assert bare.state_dict() == {"epoch": 1, "step": 2}

    def read(self, rows, keys):
        raise AssertionError("a signal was read")

    monkeypatch.setattr(WindowReader, "read", read)
    monkeypatch.setattr(WindowReader, "read_microvolts", read)
    found = list(bare)
    assert len(found) == len(expected) > 0
    for batch, other in zip(found, expected, strict=True):
        for name in ("key", "sample", "participant", "recording", "n_valid", "channel", "pair"):
            assert torch.equal(getattr(batch, name), getattr(other, name))
        assert torch.equal(batch.targets["age"].nan_to_num(), other.targets["age"].nan_to_num())
        assert batch.is_padded == other.is_padded
        assert len(batch) == len(other)
        assert batch.to_microvolts().eeg.shape == other.to_microvolts().eeg.shape
