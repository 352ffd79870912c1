"""Weights of braindecode's Signal-JEPA come in and go out to the bit, in its names and shapes."""

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cerebro.encoders import LaBraM, SignalJEPA
from cerebro.errors import CheckpointError
from cerebro.objectives import JEPA, Contrastive, Supervised
from cerebro.readouts import Contextual, PostLocal, PreLocal
from cerebro.signal import EEGBatch, SignalSpec
from cerebro.training.checkpoint import Checkpoint, Stamp, Transfer, TransferReport, transfer_weights
from cerebro.training.export import export_weights
from cerebro.training.exported import write_exported
from cerebro.training.foreign import read_source
from cerebro.training.phase import Phase

State = Callable[[str], dict[str, Tensor]]
KINDS = {"base": "", "contextual": "Contextual", "postlocal": "PostLocal", "prelocal": "PreLocal"}
LABELS = {kind: "braindecode SignalJEPA" + (f"_{name}" if name else "") for kind, name in KINDS.items()}


def depth_of(kind: str) -> int:
    return 0 if kind in ("prelocal", "postlocal") else 8


def phase_of(kind: str, signal: SignalSpec, **keys: Any) -> Phase:
    keys = {"depth": depth_of(kind)} | keys
    if kind == "base":
        return Phase(kind, signal, lambda s: SignalJEPA(s, **keys), JEPA)
    readout = {"contextual": Contextual, "postlocal": PostLocal, "prelocal": PreLocal}[kind]
    return Phase(
        kind,
        signal,
        lambda s: SignalJEPA(s, **keys),
        lambda e, s: Supervised(e, s, "kind", readout, kind="classification", n_classes=3),
    )


def checkpoint_of(phase: Phase, **keys: Any) -> Checkpoint:
    """The phase as `cerebro fit` would leave it."""
    objective: dict[str, Any] = {"class_path": "cerebro.objectives.JEPA", "init_args": {}}
    if phase.name != "base":
        readout = {"class_path": f"cerebro.readouts.{KINDS[phase.name]}", "init_args": {}}
        objective = {"class_path": "cerebro.objectives.Supervised", "init_args": {"readout": readout}}
    keys = {"depth": depth_of(phase.name)} | keys
    model = {"encoder": {"class_path": "cerebro.encoders.SignalJEPA", "init_args": keys}, "objective": objective}
    stamp = Stamp(phase.name, "0", "", "", "", {"model": model}, asdict(phase.signal), {}, [], [])
    return Checkpoint(Path("best.ckpt"), stamp, dict(phase.state_dict()), {})


def load(phase: Phase, path: Path, **keys: Any) -> TransferReport:
    return transfer_weights(phase, Transfer(path, **keys), read_source(path))


def load_all(phase: Phase, path: Path) -> list[TransferReport]:
    part = "objective.predictor" if phase.name == "base" else "objective.readout"
    return [load(phase, path), load(phase, path, take=part, into=part)]


def written(state: dict[str, Tensor], folder: Path, way: str) -> Path:
    """A state dict as braindecode's users save it."""
    if way == "folder":
        (folder / "hub").mkdir()
        save_file(state, folder / "hub" / "model.safetensors")
        return folder / "hub"
    path = folder / f"weights{way}"
    save_file(state, path) if way == ".safetensors" else torch.save(state, path)
    return path


@pytest.mark.parametrize("way", [".pt", ".pth", ".safetensors", "folder"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_braindecode_comes_out_as_it_went_in(
    signal_jepa_state: State, signal_jepa_signal: SignalSpec, golden: Path, tmp_path: Path, kind: str, way: str
) -> None:
    theirs, phase = signal_jepa_state(kind), phase_of(kind, signal_jepa_signal)
    path = written(theirs, tmp_path, way)
    source = read_source(path)
    assert source.stamp.phase == LABELS[kind]
    reports = load_all(phase, path)
    assert sum(len(report.moved) for report in reports) == len(theirs) - (74 if kind == "contextual" else 0)
    exported = export_weights(checkpoint_of(phase), "braindecode")
    keys = json.loads((golden / "signal_jepa_keys.json").read_text())[kind]
    assert {name: list(value.shape) for name, value in exported.state.items()} == keys
    for name, value in theirs.items():
        is_unused = kind == "contextual" and name.startswith("transformer.decoder.")
        assert is_unused or torch.equal(exported.state[name], value), name


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_exported_is_loaded_back_to_the_bit(
    signal_jepa_signal: SignalSpec, tmp_path: Path, kind: str, ending: str
) -> None:
    ours, other = phase_of(kind, signal_jepa_signal), phase_of(kind, signal_jepa_signal)
    path = tmp_path / f"weights{ending}"
    assert write_exported(export_weights(checkpoint_of(ours), "braindecode"), path)
    load_all(other, path)
    moved = other.state_dict()
    for name, value in ours.state_dict().items():
        is_ours_alone = ("objective.mask_token", "objective.teacher.", "objective.class_weight", "objective.target_")
        assert name.startswith(is_ours_alone) or torch.equal(moved[name], value), name


def test_a_file_of_torch_is_the_bare_state_dict(signal_jepa_signal: SignalSpec, tmp_path: Path) -> None:
    exported = export_weights(checkpoint_of(phase_of("prelocal", signal_jepa_signal)), "braindecode")
    write_exported(exported, tmp_path / "a.pt")
    assert torch.load(tmp_path / "a.pt", weights_only=True).keys() == exported.state.keys()
    write_exported(exported, tmp_path / "a.safetensors")
    assert load_file(tmp_path / "a.safetensors").keys() == exported.state.keys()


def test_what_stands_on_one_side_only_is_told(signal_jepa_signal: SignalSpec) -> None:
    lines = export_weights(checkpoint_of(phase_of("base", signal_jepa_signal)), "braindecode").lines
    assert lines[0] == "180 tensors in the layout of braindecode SignalJEPA"
    assert "not in this format: objective.mask_token 1, objective.teacher 106" in lines
    assert "loads into SignalJEPA(n_chans=8, n_times=600, sfreq=100.0, chs_info=...)" in lines
    lines = export_weights(checkpoint_of(phase_of("contextual", signal_jepa_signal)), "braindecode").lines
    assert "74 tensors of transformer.decoder are zero: nothing is computed with them there" in lines
    assert "not in this format: objective.class_weight 1, objective.target_mean 1, objective.target_sd 1" in lines
    lines = export_weights(checkpoint_of(phase_of("prelocal", signal_jepa_signal)), "braindecode").lines
    assert "loads into SignalJEPA_PreLocal(n_chans=8, n_times=600, sfreq=100.0, n_outputs=3)" in lines


def test_a_head_in_a_sum_stays_here_and_a_predictor_goes(signal_jepa_signal: SignalSpec) -> None:
    source = checkpoint_of(phase_of("base", signal_jepa_signal))
    weights = {
        name.replace("objective.", "objective.terms.jepa.") if name.startswith("objective.") else name: value
        for name, value in source.weights.items()
    }
    weights |= {f"objective.terms.age.readout.head.{name}": torch.ones(1) for name in ("weight", "bias")}
    terms = {"jepa": {"class_path": "JEPA"}, "age": {"class_path": "Supervised", "init_args": {}}}
    source.stamp.config["model"]["objective"] = {"class_path": "WeightedSum", "init_args": {"terms": terms}}
    exported = export_weights(replace(source, weights=weights), "braindecode")
    assert len(exported.state) == 180
    assert torch.equal(
        exported.state["transformer.decoder.norm.weight"], weights["objective.terms.jepa.predictor.norm.weight"]
    )
    assert "not in this format: objective.terms 109" in exported.lines


def test_zeros_in_the_place_of_a_predictor_do_not_come_in(signal_jepa_signal: SignalSpec, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_exported(export_weights(checkpoint_of(phase_of("contextual", signal_jepa_signal)), "braindecode"), path)
    with pytest.raises(CheckpointError, match="zeros in these places, as cerebro writes them where a phase has no"):
        load(phase_of("base", signal_jepa_signal), path, take="objective.predictor", into="objective.predictor")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"depth": 4}, r"holds SignalJEPA of another size: depth 8 there, depth 4 here; nothing was loaded; set these"),
        ({"feedforward": 64}, r"feedforward 2048 there, feedforward 64 here"),
        ({"place_width": 24}, r"place_width 30 there, place_width 24 here"),
        ({"conv_layers": ((8, 16, 8), (64, 2, 2))}, r"conv_layers \[\[8, 32\], .*\] there, conv_layers \[\[8, 16\], "),
    ],
)
def test_a_model_of_another_size_is_one_line_with_both(
    signal_jepa_state: State, signal_jepa_signal: SignalSpec, tmp_path: Path, keys: dict[str, Any], told: str
) -> None:
    phase, path = phase_of("base", signal_jepa_signal, **keys), written(signal_jepa_state("base"), tmp_path, ".pt")
    before = {name: value.clone() for name, value in phase.state_dict().items()}
    with pytest.raises(CheckpointError, match=told) as caught:
        load(phase, path)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in phase.state_dict().items())


def test_strides_and_heads_are_checked_where_the_file_tells_them_and_told_where_not(
    signal_jepa_state: State, signal_jepa_signal: SignalSpec, tmp_path: Path
) -> None:
    exported = export_weights(checkpoint_of(phase_of("base", signal_jepa_signal)), "braindecode")
    path = tmp_path / "a.safetensors"
    write_exported(exported, path)
    with pytest.raises(CheckpointError, match="n_heads 8 there, n_heads 4 here"):
        load(phase_of("base", signal_jepa_signal, n_heads=4), path)
    layers = ((8, 32, 4), (16, 2, 2), (32, 2, 2), (64, 2, 2), (64, 2, 2))
    with pytest.raises(CheckpointError, match=r"conv_layers \[\[8, 32, 8\], .* there, conv_layers \[\[8, 32, 4\]"):
        load(phase_of("base", signal_jepa_signal, conv_layers=layers), path)
    bare = written(signal_jepa_state("base"), tmp_path, ".pt")
    notes = load(phase_of("base", signal_jepa_signal, n_heads=4), bare).notes
    assert "the file does not tell its heads: braindecode's default is 8, here are 4" in notes
    assert any(
        "does not tell its rate: braindecode's published weights know 128 Hz, this store has 100" in n for n in notes
    )


def test_all_of_a_file_into_convolutions_alone_says_what_to_type(
    signal_jepa_state: State, signal_jepa_signal: SignalSpec, tmp_path: Path
) -> None:
    path, phase = written(signal_jepa_state("base"), tmp_path, ".pt"), phase_of("prelocal", signal_jepa_signal)
    said = (
        r"parts that this phase has not \(pos_encoder 1, transformer 98 tensors\).*set model.transfer: feature_encoder"
    )
    with pytest.raises(CheckpointError, match=said):
        load(phase, path)
    report = load(phase, path, only=("feature_encoder",))
    assert report.components["feature_encoder"] == {"moved": 7, "new": 0, "unused": 0}
    assert report.components["transformer"] == {"moved": 0, "new": 0, "unused": 98}


def test_an_encoder_of_another_family_is_refused(
    signal_jepa_state: State, signal_jepa_signal: SignalSpec, tmp_path: Path
) -> None:
    labram = Phase("a", signal_jepa_signal, LaBraM, Contrastive)
    with pytest.raises(CheckpointError, match=r"does not fit \(encoder of phase 'braindecode SignalJEPA'"):
        load(labram, written(signal_jepa_state("base"), tmp_path, ".pt"))


def test_tensors_that_a_layout_does_not_have_are_refused(signal_jepa_state: State, tmp_path: Path) -> None:
    path = written(signal_jepa_state("base") | {"interp.weight": torch.ones(2)}, tmp_path, ".pt")
    with pytest.raises(
        CheckpointError, match=r"SignalJEPA\) holds 1 tensors that this layout does not have \(first: i"
    ):
        read_source(path)


def test_widths_that_braindecode_cannot_have_are_refused(signal_jepa_signal: SignalSpec) -> None:
    source = checkpoint_of(phase_of("base", signal_jepa_signal, feedforward=64), feedforward=64)
    with pytest.raises(CheckpointError, match="has feedforward 64, and format braindecode stands for 2048"):
        export_weights(source, "braindecode")
    with pytest.raises(CheckpointError, match="holds the encoder SignalJEPA, and format labram is LaBraM's"):
        export_weights(source, "labram")


@pytest.mark.parametrize("kind", KINDS)
def test_braindecodes_class_takes_an_exported_file_strictly_and_computes_the_same(
    signal_jepa_signal: SignalSpec, signal_jepa_input: EEGBatch, tmp_path: Path, kind: str
) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from braindecode import models
    except (ImportError, OSError) as error:
        pytest.skip(
            f"braindecode cannot be imported here ({type(error).__name__}); golden names and shapes stand for it"
        )
    phase, signal = phase_of(kind, signal_jepa_signal).eval(), signal_jepa_signal
    write_exported(export_weights(checkpoint_of(phase), "braindecode"), tmp_path / "a.safetensors")
    name = "SignalJEPA" + (f"_{KINDS[kind]}" if KINDS[kind] else "")
    places = [{"ch_name": n, "loc": list(p)} for n, p in zip(signal.channels, signal.positions, strict=True)]
    keys: dict[str, Any] = {"n_chans": 8, "n_times": 600, "sfreq": 100.0, "chs_info": places}
    theirs = getattr(models, name)(**keys, **({} if kind == "base" else {"n_outputs": 3})).eval()
    theirs.load_state_dict(load_file(tmp_path / "a.safetensors"), strict=True)
    batch = signal_jepa_input
    with torch.no_grad():
        tokens = phase.encoder(batch)
        ours = tokens.flatten(1, 2) if kind == "base" else phase.objective.readout(phase.encoder, batch)
        torch.testing.assert_close(theirs(batch.eeg.clone()), ours, rtol=1e-4, atol=1e-5)
