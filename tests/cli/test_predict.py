"""``cerebro predict MODEL RECORDING ...``: what the store would give, what carried it, and when not to trust it."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from cerebro.errors import DataError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
]  # raw recordings, a store and three phases before the first test
N_PEOPLE, N_WINDOWS = 16, 8
CHANNELS = ("TP9", "AF7", "AF8", "TP10")
PROCESSING = """input: raw
pattern: "*.fif"
channels: [TP9, AF7, AF8, TP10]
label: {table: people.tsv, column: outcome, values: [ill, well]}
notch_hz: 0
upsample_hz: 256
downsample_hz: 256
highpass_hz: 0.5
lowpass_hz: 100
parent_window_s: 4
window_s: 1
mlflow: {enabled: false}
"""
PHASE = """model:
  name: tuned
  encoder: {{class_path: Mamba2, init_args: {{patch_samples: 256, d_model: 16, n_layers: 1, headdim: 16, d_state: 8}}}}
  objective:
    class_path: Supervised
    init_args: {{target: remission, kind: classification, readout: {{class_path: LinearReadout}}}}
  optim: {{lr: 0.02}}
data:
  store: stores/primary
  windows: {windows}
  targets: [remission]
  split: {{val_ratio: 0.2, test_ratio: 0.0, seed: 1}}
  batch_size: 8
out: outputs/{name}
run_name: mine_{name}
mlflow: {{enabled: false}}
trainer: {{max_epochs: 2, accelerator: cpu}}
"""
SOURCES = {
    "recording": "{class_path: RecordingWindows}",
    "windows": "{class_path: RecordingWindows, init_args: {windows_per_sample: 3}}",
    "channel": "{class_path: ChannelSequences}",
}


def run(*argv: object) -> int:
    from cerebro.cli.main import main

    return main([str(word) for word in argv])


def signal_of(seed: int, is_well: bool, seconds: float = N_WINDOWS) -> npt.NDArray[np.float64]:
    """Microvolts (4, T): 1/f noise that neighbours share, and alpha that is stronger at the temples of the well."""
    rng = np.random.default_rng(seed)
    n = round(seconds * 256)
    spectrum = np.fft.rfft(rng.standard_normal((5, n)), axis=1)
    noise = np.fft.irfft(spectrum / np.maximum(np.fft.rfftfreq(n, 1 / 256), 1) ** 0.5, n, axis=1)
    noise /= noise.std(axis=1, keepdims=True)
    alpha = np.sin(2 * np.pi * 10 * np.arange(n) / 256 + rng.uniform(0, 6))
    strength = np.array([1.2, 0.2, 0.2, 1.2]) if is_well else np.full(4, 0.2)
    return 10 * np.array([[1.3], [1.0], [0.9], [1.2]]) * (noise[:4] + 0.8 * noise[4] + strength[:, None] * alpha)


def write_fif(path: Path, eeg: npt.NDArray[np.float64], channels: tuple[str, ...] = CHANNELS) -> Path:
    import mne

    info = mne.create_info(list(channels), 256.0, "eeg")
    mne.io.RawArray(1e-6 * eeg, info, verbose="error").save(path, fmt="double", verbose="error", overwrite=True)
    return path


AGAIN = "recording_seed_1"  # the model of the recordings once more, from another seed


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with raw recordings, their store, three models of it, and one of these from another seed."""
    folder = tmp_path_factory.mktemp("predict")
    (folder / "raw").mkdir()
    rows = []
    for person in range(N_PEOPLE):
        write_fif(folder / f"raw/sub-{person:02d}_eeg.fif", signal_of(person, person % 2 == 1))
        rows.append({"participant_id": f"sub-{person:02d}", "outcome": ("ill", "well")[person % 2]})
    pd.DataFrame(rows).to_csv(folder / "people.tsv", sep="\t", index=False)
    (folder / "processing.yaml").write_text(PROCESSING)
    for name, windows in SOURCES.items():
        (folder / f"{name}.yaml").write_text(PHASE.format(name=name, windows=windows))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("process-primary", "--config", "processing.yaml") == 0
        for name in SOURCES:
            assert run("fit", "--config", f"{name}.yaml") == 0
        named = ["--out", f"outputs/{AGAIN}", "--run_name", f"mine_{AGAIN}"]
        assert run("fit", "--config", "recording.yaml", "--seed", 1, *named) == 0
    return folder


def each_here(look: Callable[[Path], Any], paths: Sequence[Path]) -> Iterator[tuple[Any, str]]:
    """As `each_apart`, in this process: starting another takes seconds."""
    for path in paths:
        try:
            yield look(path), ""
        except DataError as error:
            yield None, str(error)


@pytest.fixture(autouse=True)
def _here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    from cerebro.data import new_recordings

    if "apart" not in request.node.name:
        monkeypatch.setattr(new_recordings, "each_apart", each_here)
    if "picture" not in request.node.name:
        monkeypatch.setattr("cerebro.report.prediction.draw", lambda picture: b"")  # half a second each


@pytest.fixture
def there(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(cohort)
    return cohort


def predicted(out: Path) -> dict[str, dict[str, Any]]:
    content = json.loads((out / "predictions.json").read_text())
    return {person["participant"]: person for person in content["participants"]}


@pytest.mark.parametrize("name", SOURCES)
def test_a_raw_recording_has_the_probability_that_its_windows_in_the_store_have(
    name: str, there: Path, tmp_path: Path
) -> None:
    assert run("predict", "--config", f"{name}.yaml") == 0
    found = np.load(f"outputs/{name}/predictions_predict.npz")
    people = ("sub-00", "sub-01")
    raw = [f"raw/{person}_eeg.fif" for person in people]
    given = ["--participant-from", r"(sub-\d+)", "--out", tmp_path]
    assert run("predict", f"outputs/{name}/model", *raw, *given) == 0
    for person in people:
        mine = found["participant"] == f"primary:{person}"
        wanted = found["prediction/remission"][mine].mean(axis=0)
        probability = predicted(tmp_path)[person]["probability"]
        assert probability == pytest.approx({"ill": wanted[0], "well": wanted[1]}, abs=1e-3)


@pytest.mark.parametrize("form", ["best.ckpt", "mine_recording_best.pt", "model/model.safetensors"])
def test_every_form_of_a_model_says_the_same(
    form: str, there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = []
    for model in ("outputs/recording/model", f"outputs/recording/{form}"):
        assert run("predict", model, "raw/sub-03_eeg.fif") == 0
        lines.append(capsys.readouterr().out.replace(model, "MODEL"))
    assert lines[0] == lines[1]
    assert "remission (0 = ill, 1 = well)" in lines[0]


def test_a_primary_file_gives_what_the_raw_recordings_give(there: Path, tmp_path: Path) -> None:
    (primary,) = there.glob("processed/features/primary/*.parquet")
    assert run("predict", "outputs/recording/model", primary, "--out", tmp_path / "a") == 0
    who = ["--participant-from", r"(sub-\d+)"]
    assert run("predict", "outputs/recording/model", "raw", *who, "--out", tmp_path / "b") == 0
    a, b = predicted(tmp_path / "a"), predicted(tmp_path / "b")
    assert len(a) == N_PEOPLE
    for person in a:
        assert a[person]["probability"] == pytest.approx(b[person]["probability"], abs=1e-3)
    assert "very bytes" in json.dumps(a)
    assert "very bytes" in json.dumps(b)


def test_a_raw_recording_that_the_model_was_trained_on_is_known_by_its_bytes_under_any_name(
    there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = np.load("outputs/recording/predictions_val.npz")["participant"]
    validated = str(split[0]).removeprefix("primary:")
    trained = next(f"sub-{n:02d}" for n in range(N_PEOPLE) if f"primary:sub-{n:02d}" not in set(split))
    for person, what in ((trained, "trained on"), (validated, "validated on")):
        (tmp_path / "newcomer.fif").write_bytes(Path(f"raw/{person}_eeg.fif").read_bytes())
        assert run("predict", "outputs/recording/model", tmp_path / "newcomer.fif") == 0
        assert f"the model was {what} a recording of these very bytes" in capsys.readouterr().out
    write_fif(tmp_path / "newcomer.fif", signal_of(99, True))
    assert run("predict", "outputs/recording/model", tmp_path / "newcomer.fif") == 0
    said = capsys.readouterr().out
    assert "very bytes" not in said
    assert "has seen a participant of this id" not in said


def test_a_new_recording_of_a_participant_who_trained_the_model_is_known_by_the_id(
    there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_fif(tmp_path / "sub-03_eeg.fif", signal_of(99, True))
    who = ["--participant-from", r"(sub-\d+)"]
    assert run("predict", "outputs/recording/model", tmp_path / "sub-03_eeg.fif", *who) == 0
    said = capsys.readouterr().out
    assert "the model has seen a participant of this id; is this a new person?" in said
    assert "very bytes" not in said


def test_models_of_several_seeds_say_their_mean(
    there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ["outputs/recording/model", f"outputs/{AGAIN}/model"]
    raw = [f"raw/sub-{person:02d}_eeg.fif" for person in (0, 1)]
    for number, model in enumerate(models):
        assert run("predict", model, *raw, "--out", tmp_path / str(number)) == 0
    capsys.readouterr()
    assert run("predict", models[0], *raw, "--with", models[1], "--out", tmp_path / "both") == 0
    lines = capsys.readouterr().out
    assert all(f"{model}: remission (0 = ill, 1 = well)" in lines for model in models)
    assert lines.count("of these very bytes") == len(raw), "both were trained on it, and it is said once"
    one, two, both = (predicted(tmp_path / name) for name in ("0", "1", "both"))
    windows = [pd.read_csv(tmp_path / name / "windows.tsv", sep="\t")["probability"] for name in ("0", "1", "both")]
    assert windows[2].to_numpy() == pytest.approx(((windows[0] + windows[1]) / 2).to_numpy(), abs=1e-5)
    for person, found in both.items():
        assert one[person]["probability"] != pytest.approx(two[person]["probability"], abs=1e-6)
        for what in ("probability", "channels"):
            means = {name: (value + two[person][what][name]) / 2 for name, value in one[person][what].items()}
            assert found[what] == pytest.approx(means, abs=1e-9)
        moments = [
            {(m["start_s"], m["end_s"]): m["change"] for m in each[person]["moments"]} for each in (one, two, both)
        ]
        assert moments[2] == pytest.approx({at: (moments[0][at] + moments[1][at]) / 2 for at in moments[0]}, abs=1e-9)
    (other,) = json.loads((tmp_path / "both/predictions.json").read_text())["with"]
    assert other["model"] == models[1]
    assert len(other["weights_sha256"]) == 64


def test_tables_and_a_picture_say_what_the_line_says(
    there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("recording", "channel"):
        assert run("predict", f"outputs/{name}/model", "raw/sub-03_eeg.fif", "--out", tmp_path / name) == 0
        (person,) = predicted(tmp_path / name).values()
        table = pd.read_csv(tmp_path / name / "predictions.tsv", sep="\t")
        windows = pd.read_csv(tmp_path / name / "windows.tsv", sep="\t")
        assert f"probability of well {table['probability'][0]:.3f}" in capsys.readouterr().out
        assert table["windows_q50"][0] == pytest.approx(windows["probability"].median(), abs=1e-5)
        assert windows["start_s"].tolist() == list(range(N_WINDOWS))
        assert set(person["channels"]) == set(CHANNELS)
        assert len(person["moments"]) == N_WINDOWS
        assert (tmp_path / name / "sub-03_eeg.png").read_bytes().startswith(b"\x89PNG")


def test_recordings_of_one_person_count_together(there: Path, tmp_path: Path) -> None:
    for number, is_well in enumerate((True, False)):
        write_fif(tmp_path / f"sub-99_run-{number}_eeg.fif", signal_of(110 + number, is_well))
    alone = ["predict", "outputs/recording/model", tmp_path]
    assert run(*alone, "--out", tmp_path / "alone") == 0
    assert run(*alone, "--participant-from", "sub-([0-9]+)", "--out", tmp_path / "both") == 0
    each = [entry["probability"]["well"] for entry in predicted(tmp_path / "alone").values()]
    both = predicted(tmp_path / "both")["99"]
    assert both["probability"]["well"] == pytest.approx(np.mean(each))
    table = pd.read_csv(tmp_path / "both/predictions.tsv", sep="\t")
    assert table["n_windows"].tolist() == [2 * N_WINDOWS]
    assert table["n_recordings"].tolist() == [2]


def test_recordings_unlike_the_training_data_are_said_to_be_and_new_people_are_not(there: Path, tmp_path: Path) -> None:
    time = np.arange(N_WINDOWS * 256) / 256
    usual = signal_of(120, is_well=True)
    rng = np.random.default_rng(0)
    cases = {
        "amplitude": usual * np.array([[1.0], [12.0], [1.0], [1.0]]),
        "hum": usual + 40 * np.sin(2 * np.pi * 50 * time),
        "reference": usual - usual.mean(axis=0),
        "white": rng.standard_normal(usual.shape) * usual.std(axis=1, keepdims=True),
    }
    for name, eeg in cases.items():
        write_fif(tmp_path / f"{name}_eeg.fif", eeg)
    for number in range(12):
        write_fif(tmp_path / f"new{number}_eeg.fif", signal_of(130 + number, number % 2 == 0))
    assert run("predict", "outputs/recording/model", tmp_path, "--out", tmp_path / "out") == 0
    found = predicted(tmp_path / "out")
    details = {
        name.removesuffix("_eeg"): [remark["detail"] for remark in person["recordings"][0]["unlike"]]
        for name, person in found.items()
    }
    assert "AF7 1" in details["amplitude"][0]
    assert any("between 48 and 52 Hz" in detail and "power line" in detail for detail in details["hum"])
    assert any("another reference" in detail for detail in details["reference"])
    assert any("share of power" in detail for detail in details["white"])
    assert sum(bool(details[f"new{number}"]) for number in range(12)) <= 1


def test_volts_for_microvolts_are_said(there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (primary,) = there.glob("processed/features/primary/*.parquet")
    table = pd.read_parquet(primary)
    for name in CHANNELS:
        table[name] = [1e-6 * np.asarray(values) for values in table[name]]
    table[table["Participant"] == "sub-03"].to_parquet(tmp_path / "volts.parquet", index=False)
    assert run("predict", "outputs/recording/model", tmp_path / "volts.parquet") == 0
    assert "another unit, volts for microvolts?" in capsys.readouterr().out


def test_an_absent_channel_counts_as_padding_and_is_said(
    there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_fif(tmp_path / "three_eeg.fif", signal_of(140, is_well=True)[:3], CHANNELS[:3])
    for name in SOURCES:
        assert run("predict", f"outputs/{name}/model", tmp_path / "three_eeg.fif") == 0
        assert "1 channel of the model is absent (TP10)" in capsys.readouterr().out


def test_mistakes_are_one_line(there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = write_fif(tmp_path / "new_eeg.fif", signal_of(150, is_well=True))
    short = write_fif(tmp_path / "short_eeg.fif", signal_of(151, is_well=True, seconds=0.7))
    other = write_fif(tmp_path / "other_eeg.fif", signal_of(152, is_well=True), ("Fz", "Cz", "Pz", "Oz"))
    (tmp_path / "text_eeg.edf").write_text("no recording")
    (tmp_path / "empty").mkdir()
    shutil.copytree("outputs/recording/model", tmp_path / "untold")
    model = "outputs/recording/model"
    for argv, message in [
        ([model, "absent.edf"], "recording absent.edf not found"),
        (["absent", recording], "checkpoint absent not found"),
        (["models:/mine@newest", recording], "no MLflow database"),
        ([model, short], "shorter than a window"),
        ([model, other], "has no channel of the model (TP9, AF7, AF8, TP10)"),
        ([model, tmp_path / "text_eeg.edf"], "text_eeg.edf"),
        ([model, tmp_path / "empty"], "holds no recording"),
        ([model, recording, "--threshold", "2"], "threshold=2.0 must lie between 0 and 1"),
        ([model, recording, "--participant-from", "("], "no regular expression"),
        ([model, recording, "--processing", "absent.yaml"], "--processing absent.yaml not found"),
        ([model, recording, "--with", model], f"--with {model} is given twice"),
        ([model, recording, "--with", "outputs/recording/best.ckpt"], "outputs/recording/best.ckpt is the model of"),
        ([model, recording, "--with", "outputs/windows/model"], "windows/model has another data.windows ("),
        ([model, recording, "--with", "absent"], "checkpoint absent not found"),
        ([model], "RECORDING"),
        ([recording, recording], "more than tensors and plain values"),
    ]:
        assert run("predict", *argv) == 2, argv
        error = capsys.readouterr().err
        assert message in error
        assert len([line for line in error.splitlines() if line.startswith("cerebro: ")]) == 1
        assert "Traceback" not in error


def test_a_recording_that_fails_apart_among_others_is_told_and_ends_with_1(
    there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_fif(tmp_path / "good_eeg.fif", signal_of(160, is_well=True))
    (tmp_path / "bad_eeg.fif").write_bytes(b"\0" * 5000)
    assert run("predict", "outputs/recording/model", tmp_path, "--out", tmp_path / "out") == 1
    told = capsys.readouterr()
    assert "good_eeg: probability of well" in told.out
    assert "bad_eeg.fif" in told.err
    assert json.loads((tmp_path / "out/predictions.json").read_text())["failed"]


def test_a_model_without_its_processing_asks_for_it(
    there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    from cerebro.training.package import read_folder, write_folder

    package = read_folder(Path("outputs/recording/model"))
    write_folder(replace(package, config={**package.config, "processing": {}}), tmp_path / "model")
    assert run("predict", tmp_path / "model", "raw/sub-03_eeg.fif") == 2
    assert "add --processing FILE" in capsys.readouterr().err
    for file in ("processing.yaml", "stores/primary/processing.json"):
        assert run("predict", tmp_path / "model", "raw/sub-03_eeg.fif", "--processing", file) == 0


def test_models_whose_processing_is_given_need_not_know_it(
    there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    from cerebro.training.package import read_folder, write_folder

    package = read_folder(Path(f"outputs/{AGAIN}/model"))
    write_folder(replace(package, config={**package.config, "processing": {}}), tmp_path / "model")
    both = ["predict", "outputs/recording/model", "raw/sub-03_eeg.fif", "--with", tmp_path / "model"]
    assert run(*both) == 2
    assert "has another processing (None)" in capsys.readouterr().err
    assert run(*both, "--processing", "processing.yaml") == 0


def test_a_model_that_tells_no_classes_is_refused(
    there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--config", "recording.yaml", "--out", str(tmp_path), "--trainer.max_epochs", "1"]
    assert run("fit", *common, "--model.objective.init_args.kind", "regression", "--model.name", "number") == 0
    assert run("predict", tmp_path / "model", "raw/sub-03_eeg.fif") == 2
    assert "predicts 'remission', a number" in capsys.readouterr().err
