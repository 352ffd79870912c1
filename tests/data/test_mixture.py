import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from cerebro.data import EEGData, FilmWindows, MapChannels, ParticipantSplit, SlidingWindows, TaskWindows
from cerebro.data.arrays import write_store
from cerebro.data.mixture import Mixture, normalised, open_store, participant_keys, write_mixture
from cerebro.data.mixture_tables import merge_people, stack
from cerebro.data.readers.base import Event
from cerebro.errors import ConfigError, DataError
from cerebro.montage import Montage, standard_1005

CAP = standard_1005()


def cap_of(*names):
    return Montage("cap", names, np.array([CAP.positions[CAP.channels.index(name)] for name in names]))


WIDE, NARROW = cap_of("Fp1", "Fp2", "Cz", "Pz", "O1", "O2"), cap_of("Cz", "O1", "Fp1")


def make(path, corpus, montage, n_people=10, n_recordings=2, sfreq=100.0, reference="average", task="film", **keys):
    """A store whose samples say who they are of: a sine of its own frequency for every recording."""
    rng = np.random.default_rng(len(corpus) + n_people)
    people = [f"p{i:02d}" for i in range(n_people)]
    rows = {f"{who}/{k}": who for who in people for k in range(n_recordings)}
    events = (Event(1.0, "video_start"), Event(9.0, "video_stop"), Event(2.0 + len(corpus), f"only_{corpus}"))
    settings = {"events": {key: tuple(sorted(events, key=lambda e: e.onset_s)) for key in rows}} | keys
    table = settings.pop("table", {"p_factor": np.linspace(-1, 1, n_people)})
    return write_store(
        path,
        {key: rng.normal(0, 20, (len(montage.channels), 1000 + 7 * i)).astype("f4") for i, key in enumerate(rows)},
        montage,
        sfreq,
        tasks=dict.fromkeys(rows, task),
        people=rows,
        participants=pd.DataFrame(table, index=pd.Index(people, name="participant_id")),
        corpus=corpus,
        reference=reference,
        **settings,
    )


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Two stores of different caps and sizes, whose participants have the same ids."""
    folder = tmp_path_factory.mktemp("parts")
    return {
        "hbn": make(folder / "hbn", "HBN", WIDE, releases={f"p{i:02d}/{k}": "R1" for i in range(10) for k in (0, 1)}),
        "tuh": make(folder / "tuh", "TUH", NARROW, n_people=6, table={"age": np.arange(6.0) + 20}, lsb_uV=0.1),
    }


@pytest.fixture(scope="module")
def mixture(parts, tmp_path_factory):
    paths = {name: store.path for name, store in parts.items()}
    return write_mixture(tmp_path_factory.mktemp("mixed") / "both", paths, {"hbn": 7, "tuh": 3})


def data_of(mixture, windows=None, **keys):
    keys = {"batch_size": 8, "batches_per_epoch": 40} | keys
    return EEGData(mixture.path, windows or SlidingWindows(), ParticipantSplit(0.2, seed=1), **keys)


def test_samples_events_and_offsets_are_those_of_the_members(mixture, parts):
    assert len(mixture) == 32
    row = 0
    for name, store in parts.items():
        for local in range(len(store)):
            assert np.array_equal(mixture.samples(row), store.samples(local))
            assert np.array_equal(mixture.offsets_uV(row), store.offsets_uV(local))
            index = mixture.index[row]
            assert mixture.montages[index["montage"]].channels == store.montages[0].channels
            who = store.participants.index[store.index["participant"][local]]
            assert mixture.participants.index[index["participant"]] == f"{store.corpus}:{who}"
            assert mixture.recordings["key"].iloc[row] == f"{name}/{store.recordings['key'].iloc[local]}"
            assert mixture.recordings["participant"].iloc[row] == f"{store.corpus}:{who}"
            assert index["scale"] == np.float32(store.lsb_uV)
            ours = mixture.event_index[index["event_row"] : index["event_row"] + 3]
            theirs = store.event_index[store.index["event_row"][local] :][:3]
            assert np.array_equal(ours["onset"], theirs["onset"])
            named = [mixture.event_names[number] for number in ours["name"]]
            assert named == [store.event_names[number] for number in theirs["name"]]
            table = mixture.events[mixture.events["recording"] == row]
            assert table["name"].tolist() == named
            row += 1
    assert np.isnan(mixture.lsb_uV)
    assert mixture.sfreq == 100.0


def test_no_sample_is_copied(mixture, parts):
    for number, store in enumerate(parts.values()):
        assert not mixture.shard(number).numpy().flags.owndata
        assert mixture.shard(number).numpy().nbytes == store.shard(0).numpy().nbytes
    assert len(list(mixture.path.iterdir())) == 1  # mixture.json


def test_equal_ids_of_two_corpora_are_two_people_with_the_columns_of_both(mixture):
    keys = participant_keys(mixture)
    assert len(keys) == 16
    assert {"HBN:p00", "TUH:p00"} <= set(keys)
    people = mixture.participants
    assert people.loc["TUH:p03", "age"] == 23
    assert np.isnan(people.loc["TUH:p03", "p_factor"])
    assert np.isnan(people.loc["HBN:p03", "age"])


def test_a_folder_that_holds_no_mixture_is_opened_as_a_store(parts, mixture):
    assert type(open_store(parts["hbn"].path)).__name__ == "Store"
    assert isinstance(open_store(mixture.path), Mixture)
    assert participant_keys(parts["hbn"])[0] == "HBN:p00"


def test_batches_carry_the_samples_of_their_recordings_in_the_shares_asked_for(mixture):
    data = data_of(mixture, targets=("p_factor", "age"))
    keys = np.array(data.participant_keys())
    n_of = {"HBN": 0, "TUH": 0}
    for batch in data.train_dataloader():
        corpus = {name.split(":")[0] for name in keys[batch.participant.numpy()]}
        assert len(corpus) == 1
        n_of[corpus.copy().pop()] += 1
        is_hbn = corpus == {"HBN"}
        assert batch.counts.shape == (8, 200, 6 if is_hbn else 3)
        assert bool(batch.known["p_factor"].all()) == is_hbn
        assert bool(batch.known["age"].any()) != is_hbn
        row = int(batch.recording[0])
        start = int(data.table.start[int(batch.sample[0])])
        counts = data.store.samples(row)[start : start + 200]
        assert np.array_equal(batch.counts[0], counts)
        eeg = batch.to_microvolts()
        assert np.allclose(eeg.eeg[0], counts.T * (0.05 if is_hbn else 0.1), atol=1e-4)
        names = [data.signal.channels[channel] for channel in eeg.channel[0].tolist()]
        assert tuple(names) == (WIDE if is_hbn else NARROW).channels
    assert n_of == {"HBN": 28, "TUH": 12}


def test_the_weights_can_be_given_with_the_training(mixture):
    data = data_of(mixture, weights={"hbn": 1, "tuh": 1})
    sources = [mixture.member[int(batch.recording[0])] for batch in data.train_dataloader()]
    assert sum(sources) == 20
    assert "shares hbn 0.5, tuh 0.5" in data.summary()
    with pytest.raises(ConfigError, match=r"weights are given for hbn and the members are hbn, tuh"):
        data_of(mixture, weights={"hbn": 1}).setup()
    with pytest.raises(ConfigError, match="no shares"):
        data_of(mixture, weights={"hbn": 0, "tuh": 0}).setup()


def test_a_source_of_weight_zero_neither_trains_nor_validates(mixture):
    """Else the best epoch would follow a corpus that is not trained on, and its people count as seen."""
    both, data = data_of(mixture), data_of(mixture, weights={"hbn": 1, "tuh": 0})
    for loader in (data.train_dataloader(), data.val_dataloader()):
        batches = list(loader)
        assert batches
        assert {mixture.member[int(number)] for batch in batches for number in batch.recording} == {0}
    for side in ("train", "val"):
        hbn = tuple(name for name in both.participants(side) if name.startswith("HBN:"))
        assert data.participants(side) == hbn != both.participants(side)
    assert data.n_training_windows < both.n_training_windows
    assert "shares hbn 1, tuh 0; tuh neither trains nor validates" in data.summary()


def test_people_of_a_source_of_weight_zero_can_be_tested_and_take_no_place_in_training(mixture):
    split = ParticipantSplit(0.2, test_ratio=0.3, seed=1, max_train_participants=3)
    keys = {"batch_size": 8, "batches_per_epoch": 4}
    both = EEGData(mixture.path, SlidingWindows(), split, **keys)
    data = EEGData(mixture.path, SlidingWindows(), split, weights={"hbn": 1, "tuh": 0}, **keys)
    assert data.participants("test") == both.participants("test")
    assert any(name.startswith("TUH:") for name in data.participants("test"))
    assert [name.split(":")[0] for name in data.participants("train")] == ["HBN"] * 3


def test_one_person_of_two_sources_trains_with_the_used_one_alone(tmp_path):
    films = make(tmp_path / "films", "HBN", WIDE, n_people=6)
    rest = rename_recordings(make(tmp_path / "rest", "HBN", WIDE, n_people=6, task="rest"), tmp_path / "rest2")
    mixture = write_mixture(tmp_path / "m", {"films": films.path, "rest": rest}, {"films": 1, "rest": 0})
    data = data_of(mixture)
    assert set(mixture.member[data.table.recording[data.rows("train")[:]]]) == {0}


def test_one_store_takes_no_weights(parts):
    with pytest.raises(ConfigError, match=r"data.weights is for mixtures"):
        data_of(parts["hbn"], weights={"hbn": 1}).setup()


def test_batches_are_the_same_after_a_resume_and_for_two_processes(mixture):
    data = data_of(mixture)
    loader = data.train_dataloader()
    whole = [batch for _, batch in zip(range(12), loader, strict=False)]
    again = data.train_dataloader()
    again.load_state_dict({"epoch": 0, "step": 7})
    for batch, other in zip(whole[7:], again, strict=False):
        assert torch.equal(batch.sample, other.sample)
        assert torch.equal(batch.key, other.key)
    from cerebro.data.loader import BatchLoader

    ranks = [BatchLoader(loader.maker, loader.order, True, rank, 2) for rank in (0, 1)]
    for step in range(12):
        parts = [rank.batch(0, step) for rank in ranks]
        assert torch.equal(torch.cat([part.sample for part in parts]), whole[step].sample)
        assert torch.equal(torch.cat([part.counts for part in parts]), whole[step].counts)


def test_validation_has_every_window_of_every_source_once(mixture):
    data = data_of(mixture)
    samples = torch.cat([batch.sample for batch in data.val_dataloader()])
    assert sorted(samples.tolist()) == data.rows("val")[:].tolist()
    assert set(mixture.member[data.table.recording[data.rows("val")[:]]]) == {0, 1}


def test_couples_come_from_one_member(mixture):
    data = data_of(mixture, FilmWindows(films=("film",)), order="pairs", batch_size=4)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for batch in loader:
            pair, person = batch.pair.reshape(-1, 2), batch.participant.reshape(-1, 2)
            assert (pair[:, 0] == pair[:, 1]).all()
            assert (person[:, 0] != person[:, 1]).all()
            assert len(set(mixture.member[batch.recording.numpy()])) == 1


def test_a_label_that_one_member_lacks_leaves_out_its_recordings(parts, tmp_path):
    labels = {f"p{i:02d}/{k}": {"state": float(k)} for i in range(4) for k in (0, 1)}
    paths = {"labelled": make(tmp_path / "a", "A", WIDE, n_people=4, labels=labels).path, "tuh": parts["tuh"].path}
    mixture = write_mixture(tmp_path / "m", paths, {"labelled": 1, "tuh": 0})
    data = data_of(mixture, TaskWindows("state"), targets=("state",))
    assert set(mixture.member[data.table.recording[:]]) == {0}
    assert any("12 recordings left out: no label state" in str(omission) for omission in data.omissions)
    with pytest.raises(ConfigError, match="target 'iq' is unknown"):
        data_of(mixture, targets=("iq",)).setup()


def test_a_source_without_windows_is_named(parts, tmp_path):
    other = make(tmp_path / "rest", "R", WIDE, n_people=4, task="rest")
    mixture = write_mixture(tmp_path / "m", {"rest": other.path, "tuh": parts["tuh"].path}, {"rest": 1, "tuh": 1})
    with pytest.raises(DataError, match=r"source rest has no training window .*data.weights to \{rest: 0, tuh: 1\}"):
        data_of(mixture, SlidingWindows(tasks=("film",))).train_dataloader()


def test_two_members_of_one_corpus_share_their_people(tmp_path):
    table = {"p_factor": [0.1, np.nan, 0.3], "age": [7.0, 8.0, 9.0]}
    other = {"p_factor": [np.nan, 0.2, 0.4], "sex": [0.0, 1.0, 1.0]}
    films = make(tmp_path / "films", "HBN", WIDE, n_people=3, table=table)
    keys = {"n_recordings": 1, "task": "rest", "table": other}
    rest = make(tmp_path / "rest", "HBN", NARROW, n_people=3, **keys)
    with pytest.raises(DataError, match=r"recording p00/0 of HBN is in the members films and rest"):
        write_mixture(tmp_path / "m", {"films": films.path, "rest": rest.path}, {"films": 1, "rest": 1})
    rest = rename_recordings(rest, tmp_path / "rest2")
    mixture = write_mixture(tmp_path / "m", {"films": films.path, "rest": rest}, {"films": 1, "rest": 1})
    assert participant_keys(mixture) == ("HBN:p00", "HBN:p01", "HBN:p02")
    assert mixture.participants["p_factor"].tolist() == [0.1, 0.2, 0.3]
    assert mixture.participants["sex"].tolist() == [0.0, 1.0, 1.0]
    assert mixture.notes == ("members differ in p_factor of 1 people: the first member's value counts",)
    assert mixture.index["participant"].tolist() == [0, 0, 1, 1, 2, 2, 0, 1, 2]


def rename_recordings(store, path):
    rows = {f"rest/{key}": row for row, key in enumerate(store.recordings["key"])}
    write_store(
        path,
        {key: (store.samples(row).T * np.float32(store.lsb_uV)) for key, row in rows.items()},
        store.montages[0],
        store.sfreq,
        tasks=dict.fromkeys(rows, "rest"),
        people={key: store.recordings["participant"].iloc[row] for key, row in rows.items()},
        participants=store.participants,
        corpus=store.corpus,
        reference=store.reference,
    )
    return path


def test_members_of_other_rates_or_references_are_refused_in_one_line(parts, tmp_path):
    weights = {"hbn": 1, "other": 1}

    def mixed(other, reference="as_is"):
        write_mixture(tmp_path / "m", {"hbn": parts["hbn"].path, "other": other.path}, weights, reference)

    slow = make(tmp_path / "slow", "S", NARROW, n_people=2, sfreq=50.0)
    with pytest.raises(DataError, match=r"different rates \(hbn: 100 Hz; other: 50 Hz\)"):
        mixed(slow)
    ears = make(tmp_path / "ears", "E", NARROW, n_people=2, reference="linked-ears")
    with pytest.raises(DataError, match=r"differ \(hbn: average; other: linked-ears\); set `reference: average`"):
        mixed(ears)
    with pytest.raises(DataError, match=r"not all referenced to the average \(hbn: average; other: linked-ears\)"):
        mixed(ears, "average")
    unknown = {name: make(tmp_path / name, name, NARROW, n_people=2, reference="unknown").path for name in "ab"}
    with pytest.raises(DataError, match=r"are not known to agree \(a: unknown; b: unknown\)"):
        write_mixture(tmp_path / "m", unknown, {"a": 1, "b": 1})
    assert not (tmp_path / "m").exists()


def test_a_damaged_or_outdated_mixture_is_refused_in_one_line(parts, tmp_path):
    copies = {name: shutil.copytree(store.path, tmp_path / "m" / name) for name, store in parts.items()}
    path = tmp_path / "m"
    with pytest.raises(DataError, match=r"mixture .* is unfinished"):
        open_store(path)
    first = write_mixture(path, copies, {"hbn": 1, "tuh": 1})
    assert {entry["path"] for entry in json.loads((path / "mixture.json").read_text())["members"]} == {"hbn", "tuh"}
    moved = shutil.move(path, tmp_path / "elsewhere")
    assert open_store(moved).data_hash == first.data_hash  # members by relative path
    text = (moved / "mixture.json").read_text()
    (moved / "mixture.json").write_text(text.replace("0.5", "0.6", 1))
    with pytest.raises(DataError, match=r"is damaged: mixture.json"):
        open_store(moved)
    (moved / "mixture.json").write_text(text.replace("0.5", "1e999", 1))
    with pytest.raises(DataError, match=r"is damaged: mixture.json"):
        open_store(moved)
    (moved / "mixture.json").write_text(text)
    shutil.rmtree(moved / "tuh")
    make(moved / "tuh", "TUH", NARROW, n_people=3)
    with pytest.raises(DataError, match=r"member tuh of .* has data [0-9a-f]{12} and was mixed with [0-9a-f]{12}"):
        open_store(moved)
    shutil.rmtree(moved / "tuh")
    with pytest.raises(DataError, match=r"tuh was not found"):
        open_store(moved)


def test_a_flipped_bit_in_a_member_is_found_when_it_is_read_and_when_all_is_verified(parts, tmp_path):
    copies = {name: shutil.copytree(store.path, tmp_path / name) for name, store in parts.items()}
    with open(copies["tuh"] / "shards" / "00000.i16", "r+b") as file:
        file.seek(2000)
        byte = file.read(1)
        file.seek(2000)
        file.write(bytes([byte[0] ^ 1]))
    mixture = write_mixture(tmp_path / "m", copies, {"hbn": 1, "tuh": 1})
    mixture.samples(0)
    with pytest.raises(DataError, match="checksum"):
        mixture.samples(20)
    assert [line for line in mixture.verify() if line.startswith("tuh: shards/00000.i16")]


def test_the_hash_of_a_mixture_follows_its_data_and_weights(parts, mixture, tmp_path):
    paths = {name: store.path for name, store in parts.items()}
    same = write_mixture(tmp_path / "same", dict(reversed(paths.items())), {"tuh": 0.3, "hbn": 0.7})
    other = write_mixture(tmp_path / "other", paths, {"tuh": 0.5, "hbn": 0.5})
    assert same.data_hash == mixture.data_hash != other.data_hash
    assert [member.name for member in same.members] == ["hbn", "tuh"]


def test_a_channel_space_gives_all_members_one_set_of_names(mixture):
    data = data_of(mixture, channels=MapChannels("10-20-19"))
    seen = set()
    for batch in data.train_dataloader():
        eeg = batch.to_microvolts()
        seen.add(tuple(data.signal.channels[row] for row in eeg.channel[0].tolist()))
    assert seen == {WIDE.channels, NARROW.channels}
    assert len(data.signal.channels) == 19


def test_a_channel_that_two_caps_place_apart_needs_a_channel_space(parts, tmp_path):
    moved = Montage("net", ("Cz", "E1"), np.array([[0, 0, 0.09], [0.05, 0, 0.05]]))
    net = make(tmp_path / "net", "NET", moved, n_people=3)
    mixture = write_mixture(tmp_path / "m", {"net": net.path, "tuh": parts["tuh"].path}, {"net": 1, "tuh": 1})
    with pytest.raises(DataError, match=r"place channel Cz \d+ mm apart in .*; set data.channels to"):
        data_of(mixture).setup()


def test_tables_with_different_columns_are_stacked_with_missing_values():
    table = stack([pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), pd.DataFrame({"a": [3], "c": [4]})])
    assert table["a"].tolist() == [1, 2, 3]
    assert table["a"].dtype == np.int64
    assert table["b"].tolist()[:2] == ["x", "y"]
    assert pd.isna(table["b"].iloc[2])
    assert np.array_equal(table["c"], [np.nan, np.nan, 4], equal_nan=True)


def test_names_of_the_same_person_are_gathered_from_all_tables():
    one = pd.DataFrame({"participant_id": ["A:x"], "same_person_as": ["A:y"]})
    two = pd.DataFrame({"participant_id": ["A:x", "A:z"], "same_person_as": ["A:w/A:y", np.nan]})
    people, notes = merge_people([one, two])
    assert people["participant_id"].tolist() == ["A:x", "A:z"]
    assert people["same_person_as"].tolist()[0] == "A:w/A:y"
    assert notes == ()


def test_weights_are_scaled_to_shares():
    assert normalised({"b": 3, "a": 1}, ("a", "b")) == {"a": 0.25, "b": 0.75}
    for wrong in ({"a": 1, "b": -1}, {"a": float("nan"), "b": 1}, {"a": 0, "b": 0}):
        with pytest.raises(ConfigError, match="no shares"):
            normalised(wrong, ("a", "b"))
