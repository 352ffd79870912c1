import numpy as np
import pandas as pd
import pytest
import yaml

from cerebro.data import EEGData, ParticipantSplit, RecordingWindows
from cerebro.data.arrays import write_store
from cerebro.data.readers.base import Segment
from cerebro.metrics.regression import nrmse
from cerebro.montage import Montage
from cerebro.study.baselines import _windows, baseline_path, make_baselines
from cerebro.study.scores import read_predictions

SFREQ, N_PEOPLE = 100.0, 24
RUN = "phases/challenge2-0123456789"


@pytest.fixture
def study(tmp_path):
    """A final run on a store whose people differ in alpha power by their trait, and its plan."""
    random = np.random.default_rng(0)
    names = [f"P{number:02}" for number in range(N_PEOPLE)]
    trait = random.normal(size=N_PEOPLE)
    time = np.arange(1000) / SFREQ
    wave = 10 * np.sin(2 * np.pi * 10 * time)
    noise = random.normal(0, 5, (N_PEOPLE, 4, len(time)))
    eeg = {f"{name}/rest": (np.exp(0.5 * trait[n]) * wave + noise[n]).astype("f4") for n, name in enumerate(names)}
    channels = ("Fz", "Cz", "Pz", "Oz")
    write_store(
        tmp_path / "store",
        eeg,
        Montage("four", channels, np.eye(4, 3) * 0.09),
        SFREQ,
        tasks=dict.fromkeys(eeg, "rest"),
        people=dict(zip(eeg, names, strict=True)),
        participants=pd.DataFrame({"p_factor": trait}, index=pd.Index(names, name="participant_id")),
    )
    folder = tmp_path / "study"
    run = folder / RUN
    run.mkdir(parents=True)
    data = {
        "store": str(tmp_path / "store"),
        "windows": {"class_path": "SlidingWindows", "init_args": {"duration_s": 2.0, "stride_s": 2.0}},
        "split": {"val_ratio": 0.0, "test_ratio": 0.33},
        "targets": ["p_factor"],
    }
    (run / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    arrays = {
        "participant": np.array(["arrays:P00"]),
        "target/p_factor": np.zeros(1),
        "known/p_factor": np.ones(1, bool),
    }
    np.savez(run / "predictions_test.npz", **arrays, **{"prediction/p_factor": np.zeros(1)})
    chain = {"variant": "full", "seed": 0, "fold": 0, "runs": {"challenge2": RUN}}
    plan = {"baselines": ["band_power"], "final_phases": ["challenge2"], "chains": [chain]}
    return plan, folder, dict(zip(names, trait, strict=True))


def test_band_power_finds_a_trait_in_alpha_and_the_constant_does_not(study):
    plan, folder, trait = study
    make_baselines(plan, folder, say=lambda line: None)
    linear, constant = (
        read_predictions(baseline_path(folder, name, RUN))["p_factor"] for name in ("band_power", "constant")
    )
    assert nrmse(linear.target, linear.prediction) < 0.4
    assert nrmse(constant.target, constant.prediction) >= 1
    tested = {name.removeprefix("arrays:") for name in linear.participant}
    trained = [value for name, value in trait.items() if name not in tested]
    assert constant.prediction[0] == pytest.approx(np.mean(trained), abs=1e-6)  # of others: never of the tested people
    assert linear.target == pytest.approx([trait[name.removeprefix("arrays:")] for name in linear.participant])


def test_finished_baselines_are_not_made_again(study):
    plan, folder, _ = study
    lines = []
    make_baselines(plan, folder, lines.append)
    before = {path: path.read_bytes() for path in folder.glob("baselines/*")}
    make_baselines(plan, folder, lines.append)
    assert len(lines) == 1
    assert {path: path.read_bytes() for path in folder.glob("baselines/*")} == before
    assert len(before) == 2


def test_classes_get_probabilities(study):
    plan, folder, _ = study
    with np.load(folder / RUN / "predictions_test.npz") as file:
        arrays = {name: file[name] for name in file.files}
    arrays["prediction/p_factor"] = np.zeros((1, 2))
    np.savez(folder / RUN / "predictions_test.npz", **arrays)
    from cerebro.study import baselines

    original = baselines._windows

    def in_classes(data, stage, with_power):
        made = original(data, stage, with_power)
        made.target["p_factor"] = (made.target["p_factor"] > 0).astype(float)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "_windows", in_classes)
        make_baselines(plan, folder, say=lambda line: None)
    linear = read_predictions(baseline_path(folder, "band_power", RUN))["p_factor"]
    assert linear.prediction.shape == (len(linear.target), 2)
    assert (linear.prediction.argmax(axis=1) == linear.target).mean() > 0.8
    constant = read_predictions(baseline_path(folder, "constant", RUN))["p_factor"]
    assert np.ptp(constant.prediction, axis=0).max() == 0


def test_band_power_of_a_recording_does_not_know_how_long_it_is_nor_the_padding_beside_a_longer_one(tmp_path):
    length, sfreq, n_windows = 256, 64.0, {"a": 2, "b": 5, "c": 3}
    window = np.random.default_rng(0).normal(0, 30, (2, length)).astype(np.float32)
    window -= window.mean(axis=1, keepdims=True)
    store = write_store(
        tmp_path / "store",
        {key: np.tile(window, (1, n)) for key, n in n_windows.items()},
        Montage("cap", ("Fz", "Pz"), np.array([[0.0, 0.08, 0.05], [0.0, -0.06, 0.08]])),
        sfreq,
        tasks=dict.fromkeys(n_windows, "rest"),
        people={key: key for key in n_windows},
        participants=pd.DataFrame({"age": [1.0, 2.0, 3.0]}, index=pd.Index(list(n_windows), name="participant_id")),
        segments={
            key: tuple(Segment(i, 0, 4.0 * i, 4.0 * i + 4, length) for i in range(n)) for key, n in n_windows.items()
        },
    )
    split = ParticipantSplit(val_ratio=0.0, test_ratio=0.0, seed=0)
    data = EEGData(store.path, RecordingWindows(), split, targets=("age",), batch_size=3)
    feature = _windows(data, "train", with_power=True).feature
    np.testing.assert_allclose(feature, feature[:1].repeat(3, axis=0), rtol=1e-4)
