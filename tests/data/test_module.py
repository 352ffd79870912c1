import logging

import numpy as np
import pandas as pd
import pytest
import torch
from jsonargparse import ArgumentParser

from cerebro.data import EEGData, FilmWindows, ParticipantSplit, RandomCrops, SlidingWindows, StimulusWindows
from cerebro.data.arrays import write_store
from cerebro.data.readers.base import Event
from cerebro.errors import ConfigError, DataError
from cerebro.montage import Montage

CAP = Montage("cap", ("Fz", "Cz"), np.zeros((2, 3)))
N_PEOPLE = 12


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Twelve people, a film of 20 s and a few trials each; two of them are of R5, one lacks the factor."""
    rng = np.random.default_rng(0)
    people = [f"p{i:02d}" for i in range(N_PEOPLE)]
    film = [Event(1.0, "video_start"), Event(21.0, "video_stop")]
    trial = [Event(2.0, "left_target"), Event(3.5, "left_buttonPress"), Event(6.0, "right_target")]
    rows = {f"{name}/{task}": (name, task) for name in people for task in ("ThePresent", "contrastChangeDetection")}
    return write_store(
        tmp_path_factory.mktemp("module") / "cohort",
        {key: rng.normal(0, 50, (2, 2200)).astype(np.float32) for key in rows},
        CAP,
        100.0,
        tasks={key: task for key, (_, task) in rows.items()},
        people={key: name for key, (name, _) in rows.items()},
        participants=pd.DataFrame(
            {
                "p_factor": [np.nan, *np.linspace(-1, 1, N_PEOPLE - 1)],
                "release_number": ["R1"] * (N_PEOPLE - 2) + ["R5"] * 2,
            },
            index=pd.Index(people, name="participant_id"),
        ),
        events={key: tuple(film if task == "ThePresent" else trial) for key, (_, task) in rows.items()},
        corpus="HBN",
    ).path


def data_of(store, windows=None, split=None, **keys):
    split = split or ParticipantSplit(0.2, seed=1, test_releases=("R5",))
    return EEGData(store, windows or SlidingWindows(), split, **keys)


def people_of(data, loader):
    keys = np.array(data.participant_keys())
    return set(keys[torch.cat([batch.participant for batch in loader]).unique().numpy()])


def test_r5_is_tested_and_never_in_training_or_validation(store):
    data = data_of(store)
    assert data.participants("test") == ("HBN:p10", "HBN:p11")
    for stage, loader in (
        ("train", data.train_dataloader()),
        ("val", data.val_dataloader()),
        ("test", data.test_dataloader()),
    ):
        assert people_of(data, loader) == set(data.participants(stage))
    assert not set(data.participants("train")) & set(data.participants("val"))
    assert len(data.participants("train")) == 8


def test_the_signal_says_what_a_model_must_know(store):
    signal = data_of(store, targets=("p_factor",)).signal
    assert (signal.channels, signal.sfreq, signal.n_times, signal.targets) == (("Fz", "Cz"), 100.0, 200, ("p_factor",))


def test_setup_logs_one_line_with_counts_and_omissions(store, caplog):
    data = data_of(store, StimulusWindows(), targets=("response_time", "p_factor"))
    with caplog.at_level(logging.INFO, logger="cerebro"):
        data.setup("fit")
        data.setup("fit")
    assert len(caplog.messages) == 1
    line = caplog.messages[0]
    assert "\n" not in line
    assert "train 8 participants, 8 windows; val 2 participants, 2 windows; test 2 participants, 2 windows" in line
    assert "12 trials left out: no response before the next target or trial" in line
    assert "p_factor missing in 1 windows" in line
    assert [omission.n for omission in data.omissions] == [12]


def test_challenge_1_windows_and_response_times_arrive_in_batches(store):
    data = data_of(store, StimulusWindows(), targets=("response_time", "p_factor"), batch_size=3)
    for batch in data.train_dataloader():
        assert torch.allclose(batch.targets["response_time"], torch.tensor(1.5))
        assert torch.equal(batch.known["p_factor"], batch.participant != 0)
        eeg = data.on_after_batch_transfer(data.transfer_batch_to_device(batch, torch.device("cpu"), 0), 0)
        assert eeg.eeg.dtype == torch.float32
        assert eeg.eeg.shape[1:] == (2, 200)
        first = data.store.samples(int(batch.recording[0]))[250:450]  # 0.5 s after the target at 2 s
        assert np.allclose(eeg.eeg[0].numpy(), first.T * data.store.lsb_uV)


def test_two_names_of_one_person_are_never_a_couple(tmp_path):
    people = ["A", "B", "C"]
    film = (Event(1.0, "video_start"), Event(21.0, "video_stop"))
    known = pd.DataFrame({"same_person_as": [np.nan, "A", np.nan]}, index=pd.Index(people, name="participant_id"))
    path = write_store(
        tmp_path / "cohort",
        {name: np.random.default_rng(at).normal(0, 50, (2, 2200)).astype(np.float32) for at, name in enumerate(people)},
        CAP,
        100.0,
        tasks=dict.fromkeys(people, "ThePresent"),
        people={name: name for name in people},
        participants=known,
        events=dict.fromkeys(people, film),
    ).path
    data = data_of(path, FilmWindows(films=("ThePresent",)), ParticipantSplit(0.0), batch_size=4, order="pairs")
    couples = {tuple(couple) for batch in data.train_dataloader() for couple in batch.participant.view(-1, 2).tolist()}
    assert {2} < {person for couple in couples for person in couple}
    assert not {(0, 1), (1, 0)} & couples


def test_pairs_arrive_side_by_side_in_training_and_validation(store):
    data = data_of(store, FilmWindows(films=("ThePresent",)), batch_size=8, order="pairs")
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert len(loader) > 0
        for batch in loader:
            pair, person = batch.pair.reshape(-1, 2), batch.participant.reshape(-1, 2)
            assert (pair[:, 0] == pair[:, 1]).all()
            assert (person[:, 0] != person[:, 1]).all()
            assert len(pair[:, 0].unique()) == 4
    first, again = ([b.sample.tolist() for b in data.val_dataloader()] for _ in range(2))
    assert first == again
    samples = torch.cat([batch.sample for batch in data.test_dataloader()])
    assert samples.tolist() == data.rows("test")[:].tolist()


def test_labels_of_other_training_participants_can_be_hidden(store):
    split = ParticipantSplit(0.2, seed=1, test_releases=("R5",), max_labelled_participants=3)
    data = data_of(store, split=split, targets=("p_factor",))
    batches = list(data.train_dataloader())
    known = torch.cat([batch.known["p_factor"] for batch in batches])
    person = torch.cat([batch.participant for batch in batches])
    few = ParticipantSplit(0.2, seed=1, test_releases=("R5",), max_train_participants=3)
    kept = set(data_of(store, split=few).participants("train"))
    assert len(person.unique()) == 8
    assert {data.participant_keys()[i] for i in person[known].unique()} == kept - {"HBN:p00"}
    assert "labels of 5 training participants hidden" in data.summary()
    assert all(batch.known["p_factor"].all() for batch in data.test_dataloader())


def test_validation_can_be_thinned_or_absent_and_predict_covers_everything(store):
    data = data_of(store, RandomCrops(), max_eval_windows=5, batch_size=4)
    samples = torch.cat([batch.sample for batch in data.val_dataloader()])
    assert len(samples) == 5
    assert set(samples.tolist()) <= set(data.rows("val")[:].tolist())
    assert len(data_of(store, split=ParticipantSplit(0.0)).val_dataloader()) == 0
    predicted = torch.cat([batch.sample for batch in data.predict_dataloader()])
    assert predicted.tolist() == list(range(len(data.table)))


def test_epochs_can_have_a_length_of_their_own(store):
    assert len(data_of(store, batches_per_epoch=7).train_dataloader()) == 7


def test_wrong_settings_are_refused_in_one_line(store):
    with pytest.raises(DataError, match=r"no window of .* is on the side 'test'"):
        data_of(store, split=ParticipantSplit(0.2)).test_dataloader()
    with pytest.raises(ConfigError, match="target 'iq' is unknown"):
        data_of(store, targets=("iq",)).setup()
    with pytest.raises(ConfigError, match="batch_size=0"):
        data_of(store, batch_size=0)
    with pytest.raises(ConfigError, match="batches_per_epoch=-1"):
        data_of(store, batches_per_epoch=-1)
    with pytest.raises(DataError, match="cerebro prepare"):
        data_of(store / "nowhere").setup()


def test_yaml_with_short_class_names_is_the_schema(store):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(EEGData, "data")
    content = {
        "store": str(store),
        "windows": {"class_path": "FilmWindows", "init_args": {"stride_s": 4.0, "films": ["ThePresent"]}},
        "split": {"test_releases": ["R5"], "stratify_by": ["p_factor"]},
        "targets": ["p_factor"],
    }
    data = parser.instantiate(parser.parse_object({"data": content})).data
    assert data.windows.films == ("ThePresent",)
    assert data.split == ParticipantSplit(stratify_by=("p_factor",), test_releases=("R5",))
    assert len(data.participants("test")) == 2


def test_values_of_people_come_whether_or_not_they_are_targets(store):
    data = data_of(store)
    found = data.participant_values(("p_factor", "nothing"))
    assert set(found) == {"p_factor"}
    assert found["p_factor"].shape == (len(data.store.participants),)
    loader = data_of(store, targets=("p_factor",)).evaluation_loader("val")
    for batch in loader:
        np.testing.assert_array_equal(found["p_factor"][batch.participant], batch.targets["p_factor"])


def test_a_probe_takes_so_many_windows_spread_over_a_side(store):
    data = data_of(store)
    sample = np.concatenate([batch.sample.numpy() for batch in data.evaluation_loader("train", 5)])
    rows = data.rows("train")[:]
    assert sample.tolist() == [int(rows[i * len(rows) // 5]) for i in range(5)]


def test_a_window_covers_the_samples_that_its_crop_may_take(store):
    data = data_of(store)
    rows = data.rows("train")[:]
    span_s = data.window_spans(rows)
    length = (data.table.jitter + data.table.n_times) / data.store.sfreq
    np.testing.assert_allclose(span_s[:, 1] - span_s[:, 0], length)
    np.testing.assert_allclose(span_s[:, 0] * data.store.sfreq, data.table.start[rows])
