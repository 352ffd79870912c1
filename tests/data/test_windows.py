import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.data.arrays import write_store
from cerebro.data.columns import Column, Runs, column_of
from cerebro.data.windows import BufferPool, WindowReader, WindowTable, channel_rows, check_inside, signal_of
from cerebro.errors import DataError
from cerebro.montage import Montage
from cerebro.randomness import sample_keys

CAP = Montage("cap", ("Fz", "Cz", "Pz", "Oz"), np.arange(12, dtype=float).reshape(4, 3) / 100)
LENGTHS = {"a": 500, "b": 60, "c": 1000, "d": 333}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rng = np.random.default_rng(0)
    return write_store(
        tmp_path_factory.mktemp("windows") / "s",
        {key: rng.normal(0, 50, (2 if key == "d" else 4, n)).astype(np.float32) for key, n in LENGTHS.items()},
        CAP,
        100.0,
        tasks=dict.fromkeys(LENGTHS, "rest"),
        people=dict.fromkeys(LENGTHS, "p"),
        participants=pd.DataFrame({"age": [9.0]}, index=pd.Index(["p"], name="participant_id")),
        events={},
        channels={"d": ("Pz", "Fz")},
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(0, 30), st.integers(1, 40))
def test_a_batch_equals_plain_slices_of_the_recordings(store, seed, n_times, jitter, n_rows):
    jitter = min(jitter, 60 - n_times)
    rng = np.random.default_rng(seed)
    recording = rng.integers(0, 3, 25).astype(np.int32)
    lengths = store.index["n_times"][recording]
    start = (rng.random(25) * (lengths - n_times - jitter + 1)).astype(np.int64)
    reader = WindowReader(store, WindowTable(column_of(recording), column_of(start), n_times, jitter))
    rows = rng.integers(0, 25, n_rows)
    keys = sample_keys(seed, 0, rows)
    counts = reader.read(rows, keys)
    first = reader.starts(rows, keys)
    assert ((first >= start[rows]) & (first <= start[rows] + jitter)).all()
    for window, row, begin in zip(counts.numpy(), rows, first, strict=True):
        np.testing.assert_array_equal(window, store.samples(int(recording[row]))[begin : begin + n_times])
    microvolts = reader.read_microvolts(rows, keys)
    assert torch.equal(microvolts, counts.transpose(1, 2) * np.float32(store.lsb_uV))  # to the bit


def test_crops_are_a_function_of_the_key_and_reach_both_ends(store):
    table = WindowTable(column_of(np.zeros(400, np.int32)), column_of(np.full(400, 7)), n_times=20, jitter=9)
    reader, rows = WindowReader(store, table), np.arange(400)
    starts = reader.starts(rows, sample_keys(1, 2, rows))
    assert np.array_equal(np.unique(starts), np.arange(7, 17))
    assert np.array_equal(starts[50:60], reader.starts(rows[50:60], sample_keys(1, 2, rows[50:60])))
    assert not np.array_equal(starts, reader.starts(rows, sample_keys(1, 3, rows)))


def test_windows_that_leave_their_recording_are_refused(store):
    for start, jitter in ((451, 0), (-1, 0), (445, 6)):
        with pytest.raises(DataError, match="windows 1 to 1 leave their recording a"):
            WindowReader(
                store, WindowTable(column_of(np.zeros(2, np.int32)), column_of(np.array([0, start])), 50, jitter)
            )


def test_the_last_window_of_a_run_is_refused_where_it_leaves_its_recording(store):
    runs = Runs(np.array([0, 10, 1]))
    recording = Column(runs, np.array([0, 0, 1], np.int32))
    check_inside(WindowTable(recording, Column(runs, np.array([-9, 0, 0]), step=50), 50), store)
    with pytest.raises(DataError, match=r"windows 0 to 9 leave their recording a \(samples 1 to 501 of 500\)"):
        check_inside(WindowTable(recording, Column(runs, np.array([0, 1, 0]), step=50), 50), store)


def test_channels_are_rows_of_one_list_for_all_montages(store):
    signal = signal_of(store, 50, ("age",))
    assert signal.channels == CAP.channels
    assert signal.positions[2] == tuple(CAP.positions[2])
    by_montage = channel_rows(store, signal)
    names = [tuple(signal.channels[row] for row in rows) for rows in by_montage]
    assert names == [montage.channels for montage in store.montages]
    assert ("Pz", "Fz") in names


def test_columns_of_other_lengths_are_refused():
    with pytest.raises(DataError, match="column start has 3 rows and the table 2 windows"):
        WindowTable(column_of(np.zeros(2, np.int32)), column_of(np.zeros(3, np.int64)), 5)
    with pytest.raises(DataError, match="column start has other runs than the recordings"):
        WindowTable(Column(Runs(np.array([1, 3])), np.zeros(2, np.int32)), column_of(np.zeros(4, np.int64)), 5)


def test_a_table_without_pairs_spends_no_memory_on_them():
    table = WindowTable(column_of(np.zeros(1000, np.int32)), column_of(np.zeros(1000, np.int64)), 5)
    assert table.pair.first.strides == (0,)
    assert (table.pair[:] == -1).all()


def test_a_buffer_is_used_again_only_when_nobody_holds_it():
    pool = BufferPool()
    first = pool.take((4, 5, 6))
    address = first.data_ptr()
    view = first[1:, 2]
    del first
    assert pool.take((4, 5, 6)).data_ptr() != address  # a view still lives
    del view
    assert pool.take((2, 5, 6)).data_ptr() == address
    held = [pool.take((4, 5, 6)) for _ in range(20)]
    assert len({tensor.data_ptr() for tensor in held}) == 20
    for number, tensor in enumerate(held):
        tensor.fill_(number)
    assert all((tensor == number).all() for number, tensor in enumerate(held))


def test_batches_that_are_kept_stay_as_they_were(store):
    rows = np.arange(5)
    reader = WindowReader(store, WindowTable(column_of(np.zeros(5, np.int32)), column_of(np.arange(5) * 50), 50))
    kept = [reader.read(np.roll(rows, shift), sample_keys(0, 0, rows)) for shift in range(12)]
    for shift, batch in enumerate(kept):
        expected = reader.read(np.roll(rows, shift), sample_keys(0, 0, rows))
        assert torch.equal(batch, expected)


def test_montages_that_disagree_on_a_place_are_refused(store, monkeypatch):
    other = Montage("other", ("Fz",), np.array([[0.5, 0.0, 0.0]]))
    monkeypatch.setattr(store, "montages", (*store.montages, other))
    with pytest.raises(DataError, match="place channel Fz"):
        signal_of(store, 50, ())


def test_the_digest_of_a_table_knows_every_place_and_no_label():
    def table(start=(0, 5), n_times=4, n_valid=(4, 3), **other):
        columns = {"recording": np.array([0, 1], np.int32), "start": np.array(start), "n_valid": np.array(n_valid)}
        return WindowTable(**{name: column_of(one) for name, one in columns.items()}, n_times=n_times, **other)

    first = table().digest()
    assert table(pair=column_of(np.array([3, 3])), targets={"y": column_of(np.ones(2, np.float32))}).digest() == first
    others = [
        table(start=(0, 6)),
        table(n_times=5),
        table(n_valid=(4, 4)),
        table(jitter=1),
        table(channel=column_of(np.zeros(2, np.int32))),
        table(deviation_uV=column_of(np.ones(2, np.float32))),
    ]
    assert len({first, *(other.digest() for other in others)}) == 1 + len(others)
