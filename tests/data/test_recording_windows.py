"""Recordings as samples: all channels side by side, the same numbers as the sequences of one channel."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.data import (
    ChannelSequences,
    EEGData,
    MapChannels,
    ParticipantSplit,
    RecordingWindows,
    SlidingWindows,
)
from cerebro.data.arrays import write_store
from cerebro.data.columns import column_of
from cerebro.data.deviations import deviations_uV
from cerebro.data.loader import BatchLoader
from cerebro.data.mixture import write_mixture
from cerebro.data.readers.base import Segment
from cerebro.data.recording_reader import RecordingReader
from cerebro.data.sequences import SequenceReader, reader_of
from cerebro.data.store import Store
from cerebro.data.windows import WindowReader, WindowTable
from cerebro.errors import ConfigError, DataError
from cerebro.montage import Montage

LENGTH, SFREQ = 64, 32.0
CAP = Montage("cap", ("Fz", "Cz", "Pz"), np.array([[0.0, 0.08, 0.05], [0.0, 0.0, 0.1], [0.0, -0.06, 0.08]]))
N_WINDOWS = {"a_run-1": 4, "a_run-2": 7, "b_run-1": 5, "c_run-1": 2, "d_run-1": 6, "e_run-1": 5}
SHORT = {"a_run-2": {6: 30}, "b_run-1": {1: 20}, "c_run-1": {1: LENGTH - 1}}  # windows that were shorter
TWO_CHANNELS = ("d_run-1", "e_run-1")
SPLIT = ParticipantSplit(val_ratio=0.2, test_ratio=0.2, seed=1)
ALL_TRAIN = ParticipantSplit(val_ratio=0.0, test_ratio=0.0, seed=0)
FLAT = {"b_run-1": 1, "e_run-1": 0}  # channel that never changes


def eeg_of(key):
    n, n_channels = N_WINDOWS[key], 2 if key in TWO_CHANNELS else 3
    eeg = np.random.default_rng(sorted(N_WINDOWS).index(key)).normal(0, 50, (n_channels, n, LENGTH))
    for window, n_valid in SHORT.get(key, {}).items():
        eeg[:, window, n_valid:] = 0
    if key in FLAT:
        eeg[FLAT[key]] = 0
    return eeg.reshape(n_channels, -1).astype(np.float32)


def segments_of(key, step_s=2.0):
    short = SHORT.get(key, {})
    return tuple(Segment(i, 0, step_s * i, step_s * i + 2, short.get(i, LENGTH)) for i in range(N_WINDOWS[key]))


def write(path, keys=tuple(N_WINDOWS), **other):
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
            "segments": {key: segments_of(key) for key in keys},
            "labels": {"a_run-1": {"speed": 0.5}, "b_run-1": {"speed": 0.25}},
        }
        | other,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write(tmp_path_factory.mktemp("recordings") / "s")


def data_of(store, windows=None, **keys):
    return EEGData(
        store.path,
        windows or RecordingWindows(labels=("speed",)),
        **({"targets": ("remission", "speed"), "batch_size": 4, "split": SPLIT} | keys),
    )


def batches_of(data, on_cpu=True):
    data.for_device(torch.device("cpu" if on_cpu else "meta"))
    return [raw.to_microvolts() for raw in data.predict_dataloader()]


def test_a_row_is_a_recording_to_the_end_of_its_last_sample(store):
    table, left_out = RecordingWindows().table(store)
    assert store.recordings["key"].tolist() == sorted(N_WINDOWS)
    assert table.recording[:].tolist() == list(range(6))
    assert table.start[:].tolist() == [0] * 6
    n_valid = {key: n * LENGTH for key, n in N_WINDOWS.items()} | {
        "a_run-2": 6 * LENGTH + 30,
        "c_run-1": 2 * LENGTH - 1,
    }
    assert table.n_valid[:].tolist() == [n_valid[key] for key in sorted(n_valid)]
    assert table.n_times == 7 * LENGTH
    assert [columns.tolist() for columns in table.columns] == [[0, 1, 2], [0, 1]]
    assert [str(omission) for omission in left_out] == [
        "2 channels left out: they never change in their recording",
        "1 windows inside sequences end in zeros: they were shorter than the others",
    ]


def test_a_sample_of_some_windows_never_crosses_recordings_and_the_last_one_may_be_shorter(store):
    table, left_out = RecordingWindows(windows_per_sample=3).table(store)
    found = {
        key: [(int(start) // LENGTH, int(n)) for start, n in zip(table.start[mine], table.n_valid[mine], strict=True)]
        for number, key in enumerate(sorted(N_WINDOWS))
        if len(mine := np.flatnonzero(table.recording[:] == number))
    }
    three = 3 * LENGTH
    assert found == {
        "a_run-1": [(0, three), (3, LENGTH)],
        "a_run-2": [(0, three), (3, three), (6, 30)],
        "b_run-1": [(0, three), (3, 2 * LENGTH)],
        "c_run-1": [(0, 2 * LENGTH - 1)],
        "d_run-1": [(0, three), (3, three)],
        "e_run-1": [(0, three), (3, 2 * LENGTH)],
    }
    assert table.n_times == three
    assert "1 windows inside sequences end in zeros" in str(left_out[-1])
    single, left_out = RecordingWindows(windows_per_sample=1, max_windows=4).table(store)
    assert len(single) == 4 + 4 + 4 + 2 + 4 + 4
    assert sorted(single.n_valid[:].tolist())[:3] == [20, LENGTH - 1, LENGTH]
    assert [str(omission) for omission in left_out][1:] == ["7 windows left out: behind the first 4"]


@pytest.mark.parametrize("on_cpu", [True, False])
def test_samples_deviations_and_labels_are_those_of_the_sequences_of_one_channel(store, on_cpu):
    expected = {}
    for batch in batches_of(data_of(store, ChannelSequences(labels=("speed",)))):
        for row in range(len(batch)):
            place = int(batch.recording[row]), int(batch.channel[row, 0])
            n = int(batch.n_valid[row])
            labels = [float(batch.targets[name][row]) for name in ("remission", "speed")]
            expected[place] = (
                batch.eeg[row, 0, :n],
                float(batch.deviation[row, 0]),
                labels,
                int(batch.participant[row]),
            )
    n_seen = 0
    for batch in batches_of(data_of(store), on_cpu):
        assert batch.deviation.shape == batch.channel.shape == batch.eeg.shape[:2]
        assert batch.eeg.shape[2] == -(-int(batch.n_valid.max()) // LENGTH) * LENGTH
        for row, column in np.ndindex(*batch.channel.shape):
            if batch.channel[row, column] < 0:
                assert batch.is_padded
                assert float(batch.deviation[row, column]) == 0
                assert not batch.eeg[row, column].any()
                continue
            place = int(batch.recording[row]), int(batch.channel[row, column])
            eeg, deviation, labels, participant = expected[place]
            n = int(batch.n_valid[row])
            assert torch.equal(batch.eeg[row, column, :n], eeg)
            assert not batch.eeg[row, column, n:].any()
            assert float(batch.deviation[row, column]) == deviation
            found = [float(batch.targets[name][row]) for name in ("remission", "speed")]
            np.testing.assert_array_equal(found, labels)
            assert batch.known["speed"][row] == np.isfinite(labels[1])
            assert int(batch.participant[row]) == participant
            n_seen += 1
    assert n_seen == len(expected) == 14


def test_windows_of_a_recording_are_its_sample_in_pieces_with_the_same_deviation(store):
    whole = {int(batch.recording[0]): batch for batch in batches_of(data_of(store, batch_size=1))}
    for k in (1, 2):
        for batch in batches_of(data_of(store, RecordingWindows(windows_per_sample=k), targets=(), batch_size=1)):
            of_all = whole[int(batch.recording[0])]
            assert torch.equal(batch.deviation, of_all.deviation)
            assert torch.equal(batch.channel, of_all.channel)
            table, _ = RecordingWindows(windows_per_sample=k).table(store)
            start, n = int(table.start[int(batch.sample[0])]), int(batch.n_valid[0])
            assert torch.equal(batch.eeg[..., :n], of_all.eeg[..., start : start + n])


def test_microvolts_for_a_cpu_are_those_of_a_device_to_the_bit(store):
    for windows in (RecordingWindows(), RecordingWindows(windows_per_sample=2, channels=("Pz",))):
        fast = batches_of(data_of(store, windows, targets=()), on_cpu=True)
        plain = batches_of(data_of(store, windows, targets=()), on_cpu=False)
        for one, other in zip(fast, plain, strict=True):
            assert one.eeg.is_contiguous()
            assert other.eeg.is_contiguous()
            assert torch.equal(one.eeg, other.eeg)
            assert one.is_padded == other.is_padded


def test_a_batch_promises_no_padding_only_where_there_is_none(tmp_path):
    store = write(tmp_path / "s", ("a_run-1", "d_run-1"))
    batches = batches_of(data_of(store, targets=(), split=ALL_TRAIN))
    assert [batch.is_padded for batch in batches] == [False, False]  # two montages
    store = write(tmp_path / "flat", ("b_run-1", "d_run-1"))
    assert [batch.is_padded for batch in batches_of(data_of(store, targets=(), split=ALL_TRAIN))] == [True, False]


def test_channels_tasks_and_labels_can_be_chosen(store):
    table, left_out = RecordingWindows(channels=("Cz",)).table(store)
    assert table.recording[:].tolist() == [0, 1, 3]
    assert [str(omission) for omission in left_out][:2] == [
        "2 recordings left out: none of the channels Cz",
        "1 recordings left out: channels that never change, and no others",
    ]
    data = data_of(store, RecordingWindows(channels=("Pz", "Fz")), targets=())
    names = {tuple(data.signal.channels[at] for at in row if at >= 0) for b in batches_of(data) for row in b.channel}
    assert names == {("Fz", "Pz"), ("Pz",)}
    table, left_out = RecordingWindows(tasks=("film", "sleep")).table(store)
    assert table.recording[:].tolist() == [4]
    assert "task sleep is not in the store" in map(str, left_out)
    assert list(RecordingWindows(labels=("speed",)).table(store)[0].targets) == ["speed"]


def test_wrong_settings_and_stores_are_refused_in_one_line(store, tmp_path):
    for name in ("windows_per_sample", "max_windows"):
        with pytest.raises(ConfigError, match=f"{name}=-1 is negative; set {name} to 0 or more"):
            RecordingWindows(**{name: -1})
    with pytest.raises(ConfigError, match=r"has no channel O1; set channels"):
        RecordingWindows(channels=("O1",)).table(store)
    with pytest.raises(ConfigError, match=r"have no label mood; set labels to some of speed\."):
        RecordingWindows(labels=("mood",)).table(store)
    none = write(tmp_path / "none", segments={}, labels={})
    with pytest.raises(DataError, match=r"RecordingWindows finds no window in .*prepare it with ParquetWindows"):
        RecordingWindows().table(none)
    assert isinstance(reader_of(none, SlidingWindows().table(none)[0]), WindowReader)
    with pytest.raises(DataError, match="ever changes; choose other channels or tasks"):
        RecordingWindows(channels=("Cz",)).table(write(tmp_path / "flat", ("b_run-1",)))


def test_windows_that_overlap_are_remarked_on_where_a_sample_holds_several(tmp_path):
    keys = ("a_run-1", "d_run-1")
    store = write(tmp_path / "s", keys, segments={key: segments_of(key, 1.0) for key in keys})
    for windows in (ChannelSequences(), RecordingWindows(), RecordingWindows(2)):
        assert "windows of 2 recordings overlap their neighbours by up to 50%" in str(windows.table(store)[1][-1])
    assert RecordingWindows(1).table(store)[1] == []


def test_a_row_that_leaves_its_recording_or_montage_is_refused(store):
    def table(n_valid=LENGTH, start=0, columns=(0,)):
        return WindowTable(
            column_of(np.array([0], np.int32)),
            column_of(np.array([start])),
            LENGTH,
            n_valid=column_of(np.array([n_valid])),
            columns=(np.array(columns, np.int64), np.array([0])),
            channel_deviation_uV=deviations_uV(store),
        )

    RecordingReader(store, table())
    for wrong in ({"n_valid": 5 * LENGTH}, {"n_valid": 0}, {"start": 4 * LENGTH}, {"start": -1}):
        with pytest.raises(DataError, match="row 0 leaves its recording a_run-1"):
            RecordingReader(store, table(**wrong))
    for columns in ((), (3,), (-1,)):
        with pytest.raises(DataError, match=r"rows of montage .* hold channels"):
            RecordingReader(store, table(columns=columns))


def test_a_flipped_bit_is_met_by_the_sample_that_holds_it_and_no_other(tmp_path):
    n, length = 4, 4096  # windows of two pages
    eeg = {key: np.random.default_rng(i).normal(0, 20, (3, n * length)) for i, key in enumerate(("a_run-1", "b_run-1"))}
    segments = {key: tuple(Segment(i, 0, 0.1 * i, 0.1 * i + 1, length) for i in range(n)) for key in eeg}
    eeg = {key: values.astype(np.float32) for key, values in eeg.items()}
    store = write(tmp_path / "s", tuple(eeg), eeg=eeg, segments=segments)
    RecordingWindows().table(store)  # looks at all samples once, for their deviation
    shard = store.path / "shards" / "00000.i16"
    content = bytearray(shard.read_bytes())
    content[2 * (int(store.index["offset"][1]) + 2 * n * length + length) + 10] ^= 1  # last channel, second window
    shard.write_bytes(bytes(content))
    for k in (0, 1):
        opened = Store.open(store.path)
        table, _ = RecordingWindows(k).table(opened)
        reader = RecordingReader(opened, table)
        is_damaged = (table.recording[:] == 1) & ((table.start[:] == length) if k else True)
        damaged, others = np.flatnonzero(is_damaged), np.flatnonzero(~is_damaged)
        assert len(damaged) == 1
        assert reader.read_microvolts(others, others).shape[0] == len(others)
        with pytest.raises(DataError, match="is damaged"):
            reader.read_microvolts(damaged, damaged)
        with pytest.raises(DataError, match="is damaged"):  # and not the first time alone
            reader.read(damaged, damaged)


def frozen(batch):
    tensors = [batch.counts, batch.microvolts, batch.key, batch.sample, batch.n_valid, batch.channel, batch.deviation]
    return tuple(tensor.clone().numpy().tobytes() for tensor in tensors)


@pytest.mark.parametrize("on_cpu", [True, False])
def test_any_number_of_threads_reads_the_same_batches(store, on_cpu):
    found = []
    for n_threads in (0, 1, 3):
        data = data_of(store, RecordingWindows(1, labels=("speed",)), prefetch_threads=n_threads)
        data.for_device(torch.device("cpu" if on_cpu else "meta"))
        loader = data.train_dataloader()
        found.append([frozen(batch) for _ in range(2) for batch in loader])
    assert found[0] == found[1] == found[2]
    assert len(set(found[0])) == len(found[0]) > 4


def test_two_ranks_share_the_batches_of_one(store):
    loader = data_of(store, RecordingWindows(1), targets=()).train_dataloader()
    ranks = [BatchLoader(loader.maker, loader.order, True, rank, world_size=2) for rank in range(2)]
    for step in range(len(loader)):
        whole = loader.batch(0, step)
        if len(whole) % 2 == 0:
            assert torch.equal(torch.cat([rank.batch(0, step).sample for rank in ranks]), whole.sample)


def test_what_will_be_needed_is_asked_for_of_any_montages(store, monkeypatch):
    asked = []
    table, _ = RecordingWindows(windows_per_sample=2).table(store)
    reader = RecordingReader(store, table)
    monkeypatch.setattr(type(store), "will_need", lambda self, *runs: asked.append(runs))
    rows = np.arange(len(table))
    reader.will_need(rows, rows)
    shard, first, n_bytes = (np.concatenate(parts) for parts in zip(*asked, strict=True))
    runs = {(int(a), int(b)) for a, b in zip(first, n_bytes, strict=True)}
    assert len(runs) == len(shard) == sum(len(table.columns[m]) for m in store.index["montage"][table.recording[:]])
    sequences = SequenceReader(store, ChannelSequences().table(store)[0])
    assert {int(value) * 2 for value in sequences._first} <= {first for first, _ in runs}


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(4)), size=st.integers(1, 4), k=st.integers(0, 3))
def test_a_row_is_the_same_alone_and_in_any_batch(store, order, size, k):
    table, _ = RecordingWindows(windows_per_sample=k).table(store)
    reader = RecordingReader(store, table)
    rows = np.array([row for row in order if store.index["montage"][table.recording[row]] == 0][:size])
    together = reader.read_microvolts(rows, rows).clone()
    for row, eeg in zip(rows.tolist(), together, strict=True):
        alone = reader.read_microvolts(np.array([row]), np.array([row]))[0]
        assert torch.equal(eeg[:, : alone.shape[1]], alone)
        assert not eeg[:, alone.shape[1] :].any()


def test_channels_are_mapped_with_their_deviations(store):
    plain = {int(b.recording[row]): (b, row) for b in batches_of(data_of(store)) for row in range(len(b))}
    for keys in ({"method": "select"}, {"method": "pad"}, {"method": "pad", "electrodes": ["Pz", "O1", "Cz"]}):
        data = data_of(store, channels=MapChannels(**keys))
        n_seen = 0
        for batch in batches_of(data):
            for row in range(len(batch)):
                before, at = plain[int(batch.recording[row])]
                for channel, eeg, deviation in zip(
                    batch.channel[row], batch.eeg[row], batch.deviation[row], strict=True
                ):
                    if channel < 0:
                        assert float(deviation) == 0
                        continue
                    column = before.channel[at].tolist().index(CAP.channels.index(data.signal.channels[channel]))
                    n = int(batch.n_valid[row])
                    assert torch.equal(eeg[:n], before.eeg[at, column, :n])
                    assert deviation == before.deviation[at, column]
                    n_seen += 1
        assert n_seen == (14 if len(keys) == 1 else 9)


def test_channels_that_cannot_be_mapped_are_refused_in_one_line(store):
    with pytest.raises(ConfigError, match=r"not known of interpolated ones; set data\.channels\.init_args\.method"):
        data_of(store, channels=MapChannels(method="interpolate")).setup()
    windows = RecordingWindows(channels=("Pz",))
    with pytest.raises(ConfigError, match=r"chosen twice.*leave channels of data\.windows out"):
        data_of(store, windows, targets=(), channels=MapChannels(method="pad")).setup()


def test_recordings_of_a_mixture_are_drawn_by_their_shares(tmp_path):
    one = write(tmp_path / "one", corpus="one", reference="Cz")
    other = write(tmp_path / "other", ("c_run-1", "d_run-1"), corpus="other", reference="Cz", labels={})
    mixture = write_mixture(tmp_path / "m", {"one": one.path, "other": other.path}, {"one": 0.5, "other": 0.5})
    data = EEGData(mixture.path, RecordingWindows(1), ALL_TRAIN, ("remission",), batch_size=4, batches_per_epoch=8)
    members = mixture.member[torch.cat([raw.recording for raw in data.train_dataloader()]).numpy()]
    assert set(members.tolist()) == {0, 1}
    whole = EEGData(mixture.path, RecordingWindows(), ALL_TRAIN, batch_size=1)
    deviation = {int(b.recording[0]): b.deviation for b in batches_of(whole)}
    assert len(deviation) == 8
    for number, member in enumerate(mixture.members):
        mine = np.flatnonzero(mixture.member == number)
        table = deviations_uV(member.store)
        for within, recording in enumerate(mine.tolist()):
            first, n = (int(member.store.index[name][within]) for name in ("offset_row", "n_channels"))
            assert torch.equal(deviation[recording][0], torch.from_numpy(table[first : first + n]))


def test_lengths_that_tell_the_class_are_told_until_they_are_equal(tmp_path):
    longest = sorted(N_WINDOWS, key=lambda key: N_WINDOWS[key])
    labels = {key: {"long": float(place >= 3)} for place, key in enumerate(longest)}
    told = write(tmp_path / "s", labels=labels)
    data = data_of(told, RecordingWindows(labels=("long",)), targets=("long",), split=ALL_TRAIN)
    assert "LEAK: samples with long 1 are longer" in data.summary()
    cut = data_of(told, RecordingWindows(labels=("long",), max_windows=1), targets=("long",), split=ALL_TRAIN)
    assert "LEAK" not in cut.summary()
