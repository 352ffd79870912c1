"""What a hand-over makes of weights of other programs: exact where they fit, one line where they do not."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cerebro.encoders import LaBraM
from cerebro.errors import CheckpointError
from cerebro.montage import hbn_129
from cerebro.objectives import VQNSP, Contrastive
from cerebro.signal import SignalSpec
from cerebro.training.checkpoint import Checkpoint, Stamp, Transfer, TransferReport, new_tensors, transfer_weights
from cerebro.training.foreign import read_source
from cerebro.training.labram.channels import OFFICIAL_CHANNELS
from cerebro.training.phase import Phase

SIGNAL = SignalSpec(("Fp1", "T3", "Cz", "O2"), ((math.nan,) * 3,) * 4, 200.0, 600)
OFFICIAL = {"patch_samples": 200, "conv_stride": 8, "conv_channels": 8, "depth": 2, "n_heads": 10}
VQ_ENCODER = OFFICIAL | {"qkv_bias": True, "qk_norm": False, "layer_scale": 0.0}
File = Callable[..., Path]


def phase_of(signal: SignalSpec = SIGNAL, **changes: Any) -> Phase:
    return Phase("start", signal, lambda s: LaBraM(s, **OFFICIAL | changes), Contrastive)


def tokenizer_of(signal: SignalSpec = SIGNAL, encoder: dict[str, Any] | None = None, **changes: Any) -> Phase:
    keys = {"n_codes": 64, "code_dim": 16, "decoder_depth": 1} | changes
    return Phase("t", signal, lambda s: LaBraM(s, **VQ_ENCODER | (encoder or {})), lambda e, s: VQNSP(e, s, **keys))


def load(phase: Phase, path: Path, **keys: Any) -> TransferReport:
    return transfer_weights(phase, Transfer(path, **keys), read_source(path))


def test_channels_take_the_rows_of_their_names(
    official_file: File, official_state: Callable[[str], dict[str, Tensor]], tmp_path: Path
) -> None:
    phase = phase_of()
    report = load(phase, official_file(tmp_path, "mem"))
    rows = [0, *(1 + OFFICIAL_CHANNELS.index(name) for name in ("FP1", "T3", "CZ", "O2"))]
    table = official_state("mem")["student.pos_embed"][0]
    assert torch.equal(phase.encoder.transformer.channel_embedding, table[rows])
    assert "channel rows: 4 of 4 channels by name" in report.notes
    assert "input scale: microvolt / 100, applied inside LaBraM" in report.notes
    assert "not used: epoch, args, optimizer, scaler" in report.notes
    assert report.unused["projection_head.0.weight"] == (200, 200)
    assert report.phase == "official LaBraM, pretraining"


def test_hbn_borrows_the_nearest_rows_when_asked(
    official_file: File, official_state: Callable[[str], dict[str, Tensor]], tmp_path: Path
) -> None:
    net = hbn_129()
    phase = phase_of(SignalSpec(net.channels, tuple(map(tuple, net.positions.tolist())), 200.0, 600))
    path = official_file(tmp_path, "mem")
    with pytest.raises(CheckpointError, match="rows: nearest"):
        load(phase, path)
    report = load(phase, path, rows="nearest")
    table = official_state("mem")["student.pos_embed"][0]
    ours = phase.encoder.transformer.channel_embedding
    assert torch.equal(ours[36], table[1 + OFFICIAL_CHANNELS.index("C3")])  # E36
    assert torch.equal(ours[129], table[1 + OFFICIAL_CHANNELS.index("CZ")])
    assert any("E36 <- C3" in note for note in report.notes)


def test_the_first_time_rows_are_taken_and_told(
    official_file: File, official_state: Callable[[str], dict[str, Tensor]], tmp_path: Path
) -> None:
    phase, path = phase_of(max_patches=5), official_file(tmp_path, "mem")
    assert "time rows: the first 5 of 16" in load(phase, path).notes
    assert torch.equal(phase.encoder.transformer.time_embedding, official_state("mem")["student.time_embed"][0, :5])
    with pytest.raises(CheckpointError, match=r"for 16 patches and this model asks for 17.*max_patches to at most 16"):
        load(phase_of(max_patches=17), path)


def test_the_place_of_the_class_token_is_told_where_it_differs(official_file: File, tmp_path: Path) -> None:
    pretrained, tuned = official_file(tmp_path, "mem"), official_file(tmp_path, "finetune")
    assert any("row 0, as class_token: fixed" in note for note in load(phase_of(), pretrained).notes)
    assert not any("class token" in note for note in load(phase_of(class_token="official"), pretrained).notes)
    assert any("row of the first channel" in note for note in load(phase_of(class_token="official"), tuned).notes)
    assert not any("class token" in note for note in load(phase_of(), tuned).notes)


def test_a_mask_token_that_the_file_lacks_starts_anew_and_is_told(official_file: File, tmp_path: Path) -> None:
    phase = phase_of()
    before = phase.encoder.mask_token.detach().clone()
    report = load(phase, official_file(tmp_path, "finetune"))
    assert torch.equal(phase.encoder.mask_token, before)
    assert "encoder.mask_token" in new_tensors(phase, [report])


def test_the_use_of_codes_comes_from_their_cluster_sizes(official_file: File, tmp_path: Path) -> None:
    counts = torch.arange(64.0) * 3
    phase = tokenizer_of()
    load(phase, official_file(tmp_path, "vqnsp", {"quantize.cluster_size": counts}), take="", into="")
    use = phase.objective.codebook.use
    assert torch.allclose(use, counts / counts.sum())
    load(phase, official_file(tmp_path, "vqnsp", {"quantize.cluster_size": torch.zeros(64)}), take="", into="")
    assert torch.equal(use, torch.full((64,), 1 / 64))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"depth": 3},
            r"of no published size \(width 200, depth 2\).*\(width 200, depth 3\): depth 2 there, depth 3 here",
        ),
        ({"conv_channels": 16}, r"conv_channels 8 there, conv_channels 16 here"),
        ({"patch_samples": 100, "conv_stride": 4}, r"patch_samples 200, conv_stride 8 there.*100, conv_stride 4 here"),
        ({"n_heads": 4}, r"n_heads 10 there, n_heads 4 here"),
        ({"mlp_ratio": 2.0}, r"mlp_ratio 4 there, mlp_ratio 2 here"),
        ({"qkv_bias": True, "qk_norm": False}, r"qkv_bias false, qk_norm true there"),
        ({"layer_scale": 0.0}, r"layer_scale above 0 there, layer_scale 0 here"),
    ],
)
def test_a_model_of_another_size_is_one_line_with_both(
    official_file: File, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    phase, path = phase_of(**changes), official_file(tmp_path, "mem")
    before = {name: value.clone() for name, value in phase.state_dict().items()}
    with pytest.raises(CheckpointError, match=told) as caught:
        load(phase, path)
    assert "\n" not in str(caught.value)
    assert "nothing was loaded" in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in phase.state_dict().items())


def test_published_sizes_have_their_names(official_file: File, tmp_path: Path) -> None:
    path = official_file(tmp_path, "mem")
    with pytest.raises(CheckpointError, match=r"this encoder is of base \(width 200, depth 12\)"):
        load(phase_of(depth=12), path)


@pytest.mark.parametrize(
    ("encoder", "objective", "told"),
    [
        ({}, {"n_codes": 128}, "n_codes 64 there, n_codes 128 here"),
        ({}, {"code_dim": 32}, "code_dim 16 there, code_dim 32 here"),
        ({}, {"decoder_depth": 3}, "decoder_depth 1 there, decoder_depth 3 here"),
        ({}, {"decoder_heads": 5}, "decoder_heads 10 there, decoder_heads 5 here"),
        ({}, {"targets": "sincos"}, "set targets: official"),
        ({"n_heads": 5}, {}, "n_heads 10 there, n_heads 5 here"),
    ],
)
def test_another_tokenizer_is_one_line(
    official_file: File, tmp_path: Path, encoder: dict[str, Any], objective: dict[str, Any], told: str
) -> None:
    with pytest.raises(CheckpointError, match=told):
        load(tokenizer_of(encoder=encoder, **objective), official_file(tmp_path, "vqnsp"), take="", into="")


def test_another_rate_is_refused_with_what_to_do(official_file: File, tmp_path: Path) -> None:
    phase = phase_of(replace(SIGNAL, sfreq=100.0))
    with pytest.raises(CheckpointError, match=r"trained at 200 Hz and this store has 100 Hz.*preprocessing.sfreq: 200"):
        load(phase, official_file(tmp_path, "mem"))


def test_missing_tensors_are_named_as_in_the_file(official_file: File, tmp_path: Path) -> None:
    path = official_file(tmp_path, "mem", {"student.blocks.1.mlp.fc2.bias": None})
    with pytest.raises(CheckpointError, match=r"1 missing \(first: student.blocks.1.mlp.fc2.bias\)"):
        load(phase_of(), path)


def test_a_table_with_other_rows_is_refused(official_file: File, tmp_path: Path) -> None:
    path = official_file(tmp_path, "mem", {"student.pos_embed": torch.ones(1, 65, 200)})
    with pytest.raises(CheckpointError, match="65 rows of channel embeddings, expected 129"):
        load(phase_of(), path)


def test_numbers_that_would_be_rounded_are_refused(official_file: File, tmp_path: Path) -> None:
    path = official_file(tmp_path, "mem", {"student.cls_token": torch.ones(1, 1, 200, dtype=torch.float64)})
    with pytest.raises(CheckpointError, match=r"class_token as float64, expected float32"):
        load(phase_of(), path)


def test_nearest_rows_of_a_checkpoint_of_cerebro_are_refused() -> None:
    phase = phase_of()
    stamp = Stamp("a", "0", "", "", "", {}, {}, {"train": [], "val": []}, [], [])
    source = Checkpoint(Path("a.ckpt"), stamp, dict(phase.state_dict()), {})
    with pytest.raises(CheckpointError, match="take rows: nearest out"):
        transfer_weights(phase, Transfer(Path("a.ckpt"), rows="nearest"), source)
