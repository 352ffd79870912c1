"""Mamba-2 layers of mamba-ssm come in and go out to the bit, and what does not fit is one line."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cerebro.encoders import Mamba2, SignalJEPA
from cerebro.errors import CheckpointError
from cerebro.nn.mamba2 import Mamba2Stack
from cerebro.objectives import Contrastive
from cerebro.training.checkpoint import Checkpoint, Stamp, Transfer, transfer_weights
from cerebro.training.export import export_weights
from cerebro.training.exported import write_exported
from cerebro.training.foreign import read_source, unknown_participants
from cerebro.training.phase import Phase

KEYS = {"patch_samples": 50, "d_model": 32, "n_layers": 2, "d_state": 16, "headdim": 8}


def phase_of(signal, **changes):
    return Phase("contrastive", signal, lambda s: Mamba2(s, **(KEYS | changes)), Contrastive)


def checkpoint_of(phase, **changes):
    """The phase as `cerebro fit` would leave it."""
    encoder = {"class_path": "cerebro.encoders.Mamba2", "init_args": KEYS | changes}
    model = {"encoder": encoder, "objective": {"class_path": "cerebro.objectives.Contrastive"}}
    stamp = Stamp(phase.name, "0", "", "", "", {"model": model}, asdict(phase.signal), {}, [], [])
    return Checkpoint(Path("best.ckpt"), stamp, dict(phase.state_dict()), {})


def layers(n_layers=2, width=32, inner=64, n_heads=8, state=16, kernel=4, groups=1):
    """Tensors in the names and shapes that mamba-ssm gives to a stack of such layers."""
    n_conv = inner + 2 * groups * state
    one = {
        "norm.weight": (width,),
        "mixer.dt_bias": (n_heads,),
        "mixer.A_log": (n_heads,),
        "mixer.D": (n_heads,),
        "mixer.in_proj.weight": (inner + n_conv + n_heads, width),
        "mixer.conv1d.weight": (n_conv, 1, kernel),
        "mixer.conv1d.bias": (n_conv,),
        "mixer.norm.weight": (inner,),
        "mixer.out_proj.weight": (width, inner),
    }
    draw = torch.Generator().manual_seed(0)
    shapes = {f"layers.{i}.{name}": shape for i in range(n_layers) for name, shape in one.items()}
    return {name: torch.randn(shape, generator=draw) for name, shape in (shapes | {"norm_f.weight": (width,)}).items()}


def language_model(state):
    words = {"backbone.embedding.weight": torch.ones(7, 32), "lm_head.weight": torch.ones(7, 32)}
    return {f"backbone.{name}": value for name, value in state.items()} | words


def written(state, folder, way=".pt"):
    path = folder / f"weights{way}"
    save_file(state, path) if way == ".safetensors" else torch.save(state, path)
    return path


def load(phase, path, **keys):
    return transfer_weights(phase, Transfer(path, **keys), read_source(path))


def test_a_stack_has_the_names_and_shapes_that_stand_here_for_mamba_ssm():
    ours = Mamba2Stack(32, 2, d_state=16, headdim=8).state_dict()
    assert {name: value.shape for name, value in ours.items()} == {n: v.shape for n, v in layers().items()}


@pytest.mark.parametrize("way", [".pt", ".bin", ".safetensors"])
@pytest.mark.parametrize("is_language_model", [False, True])
def test_a_file_of_mamba_ssm_comes_out_as_it_went_in(toy_signal, tmp_path, way, is_language_model):
    theirs, phase = layers(), phase_of(toy_signal)
    before = {name: value.clone() for name, value in phase.state_dict().items()}
    path = written(language_model(theirs) if is_language_model else theirs, tmp_path, way)
    report = load(phase, path)
    assert len(report.moved) == len(theirs)
    assert set(report.unused) == ({"backbone.embedding.weight", "lm_head.weight"} if is_language_model else set())
    assert "the file does not tell its groups of B and C: taken as one (ngroups 1)" in report.notes
    exported = export_weights(checkpoint_of(phase), "mamba_ssm")
    assert exported.state.keys() == theirs.keys()
    assert all(torch.equal(exported.state[name], value) for name, value in theirs.items())
    for name, value in phase.state_dict().items():
        assert name.startswith("encoder.stack.") or torch.equal(value, before[name]), name


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_what_is_exported_is_loaded_back_to_the_bit(toy_signal, tmp_path, ending):
    ours, other = phase_of(toy_signal), phase_of(toy_signal)
    path = tmp_path / f"weights{ending}"
    assert write_exported(export_weights(checkpoint_of(ours), "mamba_ssm"), path)
    bare = load_file(path) if ending == ".safetensors" else torch.load(path, weights_only=True)
    assert bare.keys() == layers().keys()
    load(other, path)
    for name, value in ours.encoder.stack.state_dict().items():
        assert torch.equal(other.encoder.stack.state_dict()[name], value), name


def test_a_folder_that_mamba_ssm_saved_is_read(toy_signal, tmp_path):
    written(language_model(layers()), tmp_path, ".bin").rename(tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({"d_model": 32, "ssm_cfg": {"layer": "Mamba2"}}))
    report = load(phase_of(toy_signal), tmp_path)
    assert not any("ngroups" in note for note in report.notes)
    assert "is unknown" in unknown_participants(read_source(tmp_path))


def test_the_stack_alone_can_be_named(toy_signal, tmp_path):
    phase, path = phase_of(toy_signal), written(layers(), tmp_path)
    assert len(load(phase, path, take="encoder.stack", into="encoder.stack").moved) == len(layers())


def test_what_a_direction_changes_is_told_both_ways(toy_signal, tmp_path):
    phase = phase_of(toy_signal, direction="bidirectional")
    notes = load(phase, written(layers(), tmp_path)).notes
    assert "direction: every second layer runs backwards here, and all run forwards in mamba-ssm" in notes
    lines = export_weights(checkpoint_of(phase, direction="bidirectional"), "mamba_ssm").lines
    assert "direction: every second layer ran backwards here, and all run forwards in mamba-ssm" in lines
    lines = export_weights(checkpoint_of(phase_of(toy_signal)), "mamba_ssm").lines
    assert not any(line.startswith("direction") for line in lines)
    assert lines[0] == "19 tensors in the layout of mamba-ssm Mamba2"
    assert "MixerModel(d_model=32, n_layer=2, d_intermediate=0, vocab_size=..., ssm_cfg={'layer': 'Mamba2'" in lines[1]
    assert lines[-1].startswith("not in this format: encoder.codes 3, encoder.input_proj 2")


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ({"n_layers": 3}, "holds Mamba-2 of another size: n_layers 3 there, n_layers 2 here; nothing was loaded; set"),
        ({"width": 16, "inner": 32, "n_heads": 4}, "d_model 16 there, d_model 32 here"),
        ({"inner": 128, "n_heads": 16}, "expand 4 there, expand 2 here"),
        ({"n_heads": 4}, "headdim 16 there, headdim 8 here"),
        ({"state": 8}, "d_state 8 there, d_state 16 here"),
        ({"kernel": 3}, "d_conv 3 there, d_conv 4 here"),
        (
            {"groups": 2},
            "has 32 numbers of B for each token and d_state is 16 here: ngroups 2, which is not to be had, or",
        ),
    ],
)
def test_another_size_is_one_line_and_nothing_moves(toy_signal, tmp_path, file, told):
    phase, path = phase_of(toy_signal), written(layers(**file), tmp_path)
    before = {name: value.clone() for name, value in phase.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load(phase, path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in phase.state_dict().items())


@pytest.mark.parametrize(
    "config", [{"ssm_cfg": {"layer": "Mamba2", "ngroups": 8}}, {"model_type": "mamba2", "n_groups": 8}]
)
def test_groups_that_only_the_config_beside_a_file_tells_are_refused(toy_signal, tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"has 8 groups of B and C, says config.json beside it"):
        load(phase_of(toy_signal), written(layers(), tmp_path))


@pytest.mark.parametrize("is_language_model", [False, True])
def test_a_missing_tensor_is_named_as_in_the_file(toy_signal, tmp_path, is_language_model):
    state = layers()
    del state["layers.1.mixer.D"]
    named = "backbone.layers.1.mixer.D" if is_language_model else "layers.1.mixer.D"
    path = written(language_model(state) if is_language_model else state, tmp_path)
    with pytest.raises(CheckpointError, match=rf"1 missing \(first: {named}\)"):
        load(phase_of(toy_signal), path)


def test_layers_with_more_than_mamba_2_are_refused(tmp_path):
    path = written(layers() | {"layers.0.mlp.fc1.weight": torch.ones(2, 2)}, tmp_path)
    with pytest.raises(CheckpointError, match=r"holds 1 tensors that this layout does not have \(first: layers.0.mlp"):
        read_source(path)


def test_mamba_1_is_refused_by_its_name(toy_signal, tmp_path):
    state = {name: value for name, value in layers().items() if "mixer" not in name}
    shapes = {
        "A_log": (64, 16),
        "D": (64,),
        "dt_proj.weight": (64, 2),
        "dt_proj.bias": (64,),
        "x_proj.weight": (34, 64),
    }
    shapes |= {
        "in_proj.weight": (128, 32),
        "conv1d.weight": (64, 1, 4),
        "conv1d.bias": (64,),
        "out_proj.weight": (32, 64),
    }
    state |= {f"layers.{i}.mixer.{name}": torch.ones(shape) for i in range(2) for name, shape in shapes.items()}
    for there in (state, language_model(state)):
        with pytest.raises(CheckpointError, match=r"has the tensors of Mamba-1 \(dt_proj, x_proj\)"):
            load(phase_of(toy_signal), written(there, tmp_path))


def test_other_encoders_take_and_give_none_of_it(toy_signal, tmp_path):
    keys = {"conv_layers": ((8, 16, 8), (16, 8, 8)), "depth": 1, "n_heads": 2, "feedforward": 32, "place_width": 6}
    other = Phase("a", toy_signal, lambda s: SignalJEPA(s, **keys), Contrastive)
    with pytest.raises(CheckpointError, match="does not fit"):
        load(other, written(layers(), tmp_path))
    source = checkpoint_of(other)
    source.stamp.config["model"]["encoder"] = {"class_path": "cerebro.encoders.SignalJEPA", "init_args": keys}
    with pytest.raises(CheckpointError, match="holds the encoder SignalJEPA, and format mamba_ssm is Mamba2's"):
        export_weights(source, "mamba_ssm")
    with pytest.raises(CheckpointError, match="holds the encoder Mamba2, and format labram is LaBraM's"):
        export_weights(checkpoint_of(phase_of(toy_signal)), "labram")
