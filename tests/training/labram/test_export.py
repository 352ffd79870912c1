"""Export is the inverse of loading: tensors that both programs have come out as they went in, to the bit."""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cerebro.encoders import LaBraM
from cerebro.errors import CerebroError, CheckpointError, ConfigError
from cerebro.objectives import VQNSP, FrozenTokenizer, MaskedCodes, Supervised
from cerebro.readouts import LinearReadout
from cerebro.signal import EEGBatch, SignalSpec
from cerebro.training.checkpoint import Checkpoint, Stamp, Transfer, transfer_weights
from cerebro.training.export import export_weights
from cerebro.training.exported import write_exported
from cerebro.training.foreign import read_source
from cerebro.training.labram.channels import OFFICIAL_CHANNELS
from cerebro.training.phase import Phase

ALL = SignalSpec(OFFICIAL_CHANNELS, ((math.nan,) * 3,) * 128, 200.0, 600, ("event",))
SOME = SignalSpec(("Fp1", "T3", "VREF", "O2"), ((math.nan,) * 3,) * 4, 200.0, 600, ("event",))
ENCODER = {"patch_samples": 200, "conv_stride": 8, "conv_channels": 8, "depth": 2, "n_heads": 10}
VQ_ENCODER = ENCODER | {"qkv_bias": True, "qk_norm": False, "layer_scale": 0.0}
VQ = {"n_codes": 64, "code_dim": 16, "decoder_depth": 1}
READOUT = {"class_path": "cerebro.readouts.LinearReadout", "init_args": {"dropout": 0.0}}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "mem": {"class_path": "cerebro.objectives.MaskedCodes", "init_args": {}},
    "finetune": {"class_path": "cerebro.objectives.Supervised", "init_args": {"readout": READOUT}},
    "vqnsp": {"class_path": "cerebro.objectives.VQNSP", "init_args": VQ},
}
FORMATS = {"mem": "labram", "finetune": "labram", "vqnsp": "vqnsp"}
HEADS = {
    "mem": Transfer(Path("x"), "objective", "objective", ("norm", "head")),
    "finetune": Transfer(Path("x"), "objective.readout", "objective.readout"),
}


def tokenizer_of(signal: SignalSpec) -> FrozenTokenizer:
    return FrozenTokenizer(signal, lambda s: LaBraM(s, **VQ_ENCODER), lambda e, s: VQNSP(e, s, **VQ))


def phase_of(kind: str, signal: SignalSpec, **changes: Any) -> Phase:
    keys = (VQ_ENCODER if kind == "vqnsp" else ENCODER) | changes
    objective: dict[str, Callable[[Any, SignalSpec], nn.Module]] = {
        "mem": lambda e, s: MaskedCodes(e, s, tokenizer_of),
        "finetune": lambda e, s: Supervised(e, s, "event", LinearReadout, kind="classification", n_classes=3),
        "vqnsp": lambda e, s: VQNSP(e, s, **VQ),
    }
    return Phase(kind, signal, lambda s: LaBraM(s, **keys), objective[kind])


def checkpoint_of(phase: Phase, signal: SignalSpec, **changes: Any) -> Checkpoint:
    """The phase as `cerebro fit` would leave it."""
    keys = (VQ_ENCODER if phase.name == "vqnsp" else ENCODER) | changes
    model = {
        "encoder": {"class_path": "cerebro.encoders.LaBraM", "init_args": keys},
        "objective": OBJECTIVES[phase.name],
    }
    stamp = Stamp(phase.name, "0", "", "", "", {"model": model}, asdict(signal), {}, [], [])
    return Checkpoint(Path("best.ckpt"), stamp, dict(phase.state_dict()), {})


def load_all(phase: Phase, path: Path) -> None:
    kind = phase.name
    transfers = [Transfer(path, "", "")] if kind == "vqnsp" else [Transfer(path), replace(HEADS[kind], source=path)]
    for transfer in transfers:
        transfer_weights(phase, transfer, read_source(path))


@pytest.mark.parametrize("kind", ["mem", "finetune", "vqnsp"])
def test_an_official_file_comes_out_as_it_went_in(
    official_file: Callable[..., Path], official_state: Callable[[str], dict[str, Tensor]], tmp_path: Path, kind: str
) -> None:
    shares = {"quantize.cluster_size": torch.full((64,), 1 / 64)} if kind == "vqnsp" else {}
    phase = phase_of(kind, ALL)
    load_all(phase, official_file(tmp_path, kind, shares))
    exported = export_weights(checkpoint_of(phase, ALL), FORMATS[kind])
    wanted = official_state(kind) | shares
    copies = ("quantize.embedding.cluster_size", "quantize.embedding.embed_avg", "quantize.embedding.initted")
    for name, value in wanted.items():
        if not name.startswith(("student.lm_head.", "projection_head.")):  # which nothing here is
            assert exported.state[name].shape == value.shape, name
            assert name in copies or torch.equal(exported.state[name], value), name
    assert exported.state.keys() <= wanted.keys()


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("signal", [ALL, SOME], ids=["all", "some"])
@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("mem", "labram"),
        ("finetune", "labram"),
        ("vqnsp", "vqnsp"),
        ("mem", "braindecode"),
        ("finetune", "braindecode"),
    ],
)
def test_what_is_exported_is_loaded_back_to_the_bit(
    tmp_path: Path, kind: str, form: str, signal: SignalSpec, ending: str
) -> None:
    torch.manual_seed(0)
    ours, other = phase_of(kind, signal, max_patches=7), phase_of(kind, signal, max_patches=7)
    with torch.no_grad():
        for tensor in ours.state_dict().values():
            tensor.copy_(torch.rand_like(tensor))
        if kind == "vqnsp":
            ours.objective.codebook.use /= ours.objective.codebook.use.sum()
    path = tmp_path / f"weights{ending}"
    assert write_exported(export_weights(checkpoint_of(ours, signal), form), path)
    if (kind, form) == ("mem", "braindecode"):  # which predicts no codes
        transfer_weights(other, Transfer(path), read_source(path))
        transfer_weights(other, Transfer(path, "objective.norm", "objective.norm"), read_source(path))
    else:
        load_all(other, path)
    unmoved = (
        "objective.tokenizer.",
        "objective.target_",
        "objective.class_weight",
        "objective.decoder.time_embedding",
    )
    unmoved += () if (kind, form) == ("mem", "labram") else ("encoder.mask_token",)
    unmoved += ("objective.head.",) if form == "braindecode" else ()
    moved = other.state_dict()
    for name, value in ours.state_dict().items():
        assert name.startswith(unmoved) or torch.equal(moved[name], value), name


def test_heads_that_tensors_do_not_show_are_written_beside_them(tmp_path: Path) -> None:
    phase = phase_of("vqnsp", SOME, n_heads=4)
    path = tmp_path / "a.pth"
    write_exported(export_weights(checkpoint_of(phase, SOME, n_heads=4), "vqnsp"), path)
    found = read_source(path).foreign
    assert found is not None
    assert (found.n_heads, found.decoder_heads) == (4, 10)
    assert set(torch.load(path, weights_only=True)) == {"model", "cerebro_export"}


def test_braindecode_gets_a_bare_state_dict_with_its_names(tmp_path: Path) -> None:
    phase = phase_of("finetune", SOME)
    exported = export_weights(checkpoint_of(phase, SOME), "braindecode")
    write_exported(exported, tmp_path / "a.pt")
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    assert state["position_embedding"].shape == (1, 129, 200)
    assert state["temporal_embedding"].shape == (1, 16, 200)
    heads = {"fc_norm.weight", "final_layer.bias", "patch_embed.temporal_conv.conv1.weight", "blocks.1.mlp.2.bias"}
    assert heads <= state.keys()
    assert "time rows fit Labram(n_times=3000), which has one row more than patches" in exported.lines


def test_braindecode_computes_the_same_with_exported_weights() -> None:
    labram = pytest.importorskip("braindecode.models.labram", exc_type=ImportError)
    phase = phase_of("finetune", SOME).eval()
    exported = export_weights(checkpoint_of(phase, SOME), "braindecode")
    theirs = labram.Labram(
        n_times=3000, n_outputs=3, n_chans=128, sfreq=200, num_layers=2, use_mean_pooling=True
    ).eval()
    theirs.load_state_dict(exported.state, strict=True)
    rows = torch.arange(2)
    eeg = torch.randn(2, 4, 3000, generator=torch.Generator().manual_seed(0)) * 50
    batch = EEGBatch(
        eeg, torch.arange(4).repeat(2, 1), torch.full((2,), 3000), rows, rows, rows, rows, rows, is_padded=False
    )
    with torch.no_grad():
        ours = phase.objective.readout(phase.encoder, batch)
        assert torch.allclose(theirs(eeg / 100, ch_names=["FP1", "T3", "CZ", "O2"]), ours, rtol=1e-4, atol=1e-6)


def test_what_is_in_one_program_only_is_told() -> None:
    exported = export_weights(checkpoint_of(phase_of("mem", SOME), SOME), "labram")
    assert "124 channels of LaBraM are not this model's; their rows are zero" in exported.lines
    assert "not in cerebro: student.lm_head, projection_head, optimizer, epoch, args, scaler" in exported.lines
    (left,) = [line for line in exported.lines if line.startswith("not in this format: ")]
    assert left.startswith("not in this format: objective.tokenizer ")


def test_channels_outside_the_registry_are_refused() -> None:
    signal = replace(SOME, channels=("E1", "E2", "Cz", "O2"))
    with pytest.raises(CheckpointError, match=r"2 of 4 channels are not among the 128 of LaBraM \(E1, E2\)"):
        export_weights(checkpoint_of(phase_of("mem", signal), signal), "labram")
    signal = replace(SOME, channels=("VREF", "Fp1", "Cz", "O2"))
    with pytest.raises(CheckpointError, match="channels VREF, Cz share a row"):
        export_weights(checkpoint_of(phase_of("mem", signal), signal), "labram")


@pytest.mark.parametrize("form", ["labram", "braindecode"])
def test_patches_that_the_other_program_cannot_cut_are_refused(form: str) -> None:
    signal = replace(SOME, sfreq=100.0, n_times=300)
    keys = {"patch_samples": 100, "conv_stride": 4}
    source = checkpoint_of(phase_of("mem", SOME), signal, **keys)
    with pytest.raises(CheckpointError, match=r"patch_samples 100, conv_stride 4, sfreq 100, and format .* stands for"):
        export_weights(source, form)


def test_a_phase_without_the_asked_part_is_refused() -> None:
    with pytest.raises(CheckpointError, match="holds no VQNSP"):
        export_weights(checkpoint_of(phase_of("mem", SOME), SOME), "vqnsp")
    source = checkpoint_of(phase_of("vqnsp", SOME), SOME)
    source.stamp.config["model"]["objective"] = {"class_path": "VQNSP", "init_args": VQ | {"targets": "sincos"}}
    with pytest.raises(CheckpointError, match="trained with targets: sincos"):
        export_weights(source, "vqnsp")
    source.stamp.config["model"]["encoder"] = {"class_path": "cerebro.encoders.AdaptedEncoder", "init_args": {}}
    with pytest.raises(CheckpointError, match="holds the encoder AdaptedEncoder"):
        export_weights(source, "labram")
    with pytest.raises(CheckpointError, match="20 time embeddings and the official model 16"):
        export_weights(checkpoint_of(phase_of("mem", SOME, max_patches=20), SOME, max_patches=20), "labram")


def test_a_file_is_written_once_and_nothing_is_overwritten(tmp_path: Path) -> None:
    exported = export_weights(checkpoint_of(phase_of("finetune", SOME), SOME), "labram")
    path = tmp_path / "a.pth"
    assert write_exported(exported, path)
    assert not write_exported(exported, path), "the same file again"
    other = export_weights(checkpoint_of(phase_of("finetune", SOME), SOME), "labram")
    with pytest.raises(ConfigError, match="holds something else"):
        write_exported(other, path)
    with pytest.raises(CerebroError, match="no ending of a file of weights"):
        write_exported(other, tmp_path / "a.onnx")
