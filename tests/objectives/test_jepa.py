import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cerebro.encoders import LaBraM, SignalJEPA
from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError
from cerebro.objectives import JEPA, BlockMask, DiskMask, ManyContexts, WeightedSum
from cerebro.objectives.block_masks import ContextTargets, Masking
from cerebro.signal import EEGBatch, SignalSpec

Mask = Callable[[SignalSpec, int], Masking]


def small(signal: SignalSpec, seed: int = 0) -> SignalJEPA:
    torch.manual_seed(seed)
    return SignalJEPA(signal, ((8, 16, 8), (16, 4, 4)), depth=2, n_heads=2, feedforward=32, place_width=6)


def blocks(signal: SignalSpec, n_patches: int) -> BlockMask:
    return BlockMask(signal, n_patches, "spatiotemporal", 5.0, 2, 0.5)


def objective_of(encoder: Encoder, mask: Mask = blocks, **keys: Any) -> JEPA:
    settings = {"predictor_depth": 2, "predictor_heads": 2, "predictor_feedforward": 32, "teacher_layers": 2}
    return JEPA(encoder, encoder.signal, mask, **(settings | {"momentum": (0.5, 1.0)} | keys))


def test_the_context_is_all_that_the_prediction_sees(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    """Local tokens that are hidden may be anything: the prediction of them stays as it is."""
    encoder, batch = small(toy_signal), toy_eeg(3)
    objective = objective_of(encoder)
    drawn: ContextTargets = objective.mask(encoder.valid(batch), batch.channel, batch.key, False)
    local = encoder.embed(batch)
    target = objective.targets(batch, local)
    hidden = torch.zeros(local.shape[0], local.shape[1] * local.shape[2], dtype=torch.bool)
    hidden.scatter_(1, drawn.target.flatten(1), True)
    changed = torch.where(hidden.view(local.shape[:3])[..., None], 99.0, local)
    plain = objective._errors(encoder, batch, local, target)[0]
    assert torch.equal(objective._errors(encoder, batch, changed, target)[0], plain)
    others = torch.where(hidden.view(local.shape[:3])[..., None], local, local + 1)
    assert not torch.allclose(objective._errors(encoder, batch, others, target)[0], plain)


MASKS: dict[str, Mask] = {
    "many": lambda s, n: ManyContexts(s, n, n_contexts=2, n_targets=2, n_channels=2),
    "disk": lambda s, n: DiskMask(s, n, "40%"),  # as many channels as there are within its radius: lists are padded
    "blocks": blocks,
}


@pytest.mark.parametrize("mask", list(MASKS))
def test_the_loss_is_the_one_written_out(toy_signal: SignalSpec, toy_eeg: Any, mask: str) -> None:
    """Token by token, with torch's own decoder on our weights, a context at a time."""
    places = tuple((0.16 * (i / 6) ** 2, 0.03 * (i % 2), 0.02) for i in range(6))  # crowded on one side
    signal = replace(toy_signal, positions=places)
    encoder, batch = small(signal), toy_eeg(6)
    objective = objective_of(encoder, MASKS[mask])
    decoder = torch.nn.TransformerDecoder(
        torch.nn.TransformerDecoderLayer(16, 2, 32, 0.0, batch_first=True), 2, torch.nn.LayerNorm(16)
    )
    decoder.load_state_dict(objective.predictor.state_dict(), strict=True)
    drawn: ContextTargets = objective.mask(encoder.valid(batch), batch.channel, batch.key, False)
    with torch.no_grad():
        local, positions = encoder.embed(batch), encoder.positions(batch).flatten(1, 2)
        placed = local.flatten(1, 2) + positions
        layer = objective.teacher.transformer["encoder"]
        first = layer.layers[0](placed)
        mean = (first + layer.layers[1](first)) / 2
        wanted = (mean - mean.mean(-1, keepdim=True)) / (mean.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        errors, lengths = [], set()
        for row in range(6):
            for r in range(drawn.context.shape[1]):
                shown = drawn.context[row, r][drawn.context_counts[row, r]]
                lengths.add(len(shown))
                context = encoder.contextualise(placed[row, shown][None])
                for listed, counts in zip(drawn.target[row, r], drawn.target_counts[row, r], strict=True):
                    index = listed[counts]
                    asked = positions[row, index] + objective.mask_token
                    errors.append((decoder(asked[None], context)[0] - wanted[row, index]).abs().mean(dim=-1))
        found = objective(encoder, batch).total
    assert (len(lengths) > 1) is (mask == "disk")
    torch.testing.assert_close(found, torch.cat(errors).mean(), rtol=1e-4, atol=1e-5)


def test_the_predictor_is_braindecodes_decoder(
    signal_jepa_state: Any, signal_jepa_input: EEGBatch, signal_jepa_signal: SignalSpec, golden: Any
) -> None:
    encoder = SignalJEPA(signal_jepa_signal)
    objective = JEPA(encoder, signal_jepa_signal, lambda s, n: ManyContexts(s, n, n_channels=2))
    state = signal_jepa_state("base")
    mine = "transformer.decoder."
    objective.predictor.load_state_dict({n.removeprefix(mine): v for n, v in state.items() if n.startswith(mine)})
    n_numbers = sum(parameter.numel() for parameter in objective.predictor.parameters())
    assert (n_numbers, len(objective.predictor.state_dict())) == (1_191_808, 74)
    numbers: dict[str, Tensor] = load_file(golden / "signal_jepa.safetensors")
    with torch.no_grad():
        decoded = objective.predictor(numbers["positions"][:, :10], numbers["tokens"][:, 10:])
    torch.testing.assert_close(decoded, numbers["decoded"], rtol=1e-4, atol=1e-5)


def test_the_teacher_is_copied_at_the_start_and_follows_the_encoder(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder = small(toy_signal)
    objective = objective_of(encoder)
    encoder.load_state_dict(small(toy_signal, 1).state_dict())  # a hand-over after the objective was built
    objective.start(encoder, [])
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    assert all(torch.equal(value, before[name]) for name, value in objective.teacher.state_dict().items())
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1.0)
    objective.after_step(encoder, 0.5)  # half-way from 0.5 to 1: the teacher keeps three quarters
    for name, value in objective.teacher.state_dict().items():
        moved = 1.0 if name.startswith("feature_encoder") else 0.25
        torch.testing.assert_close(value, before[name] + moved, rtol=1e-5, atol=1e-6)


def test_momentum_rises_with_a_cosine(toy_signal: SignalSpec) -> None:
    kept = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        encoder = small(toy_signal)
        objective = objective_of(encoder, momentum=(0.9, 1.0))
        with torch.no_grad():
            encoder.pos_encoder.pos_encoder_spat.weight.add_(1.0)
        before = objective.teacher.pos_encoder.pos_encoder_spat.weight.clone()
        objective.after_step(encoder, progress)
        kept.append(1 - float((objective.teacher.pos_encoder.pos_encoder_spat.weight - before).mean()))
    expected = [1 - 0.1 * 0.5 * (1 + math.cos(math.pi * p)) for p in (0.0, 0.25, 0.5, 1.0)]
    assert kept == pytest.approx(expected, abs=1e-4)


def test_no_gradient_reaches_the_teacher_and_one_reaches_all_else(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder = small(toy_signal)
    objective = objective_of(encoder).train()
    assert not objective.teacher.training
    objective(encoder, toy_eeg(4)).total.backward()
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())
    others = [*encoder.named_parameters(), *((n, p) for n, p in objective.named_parameters() if "teacher" not in n)]
    assert [name for name, parameter in others if parameter.grad is None] == []


def test_padding_changes_nothing(toy_signal: SignalSpec, toy_eeg: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tokens shown and asked for, in a window with two padded channels and padded samples."""
    encoder, batch = small(toy_signal).eval(), toy_eeg(3)
    objective = objective_of(encoder).eval()
    n, c, t = batch.eeg.shape
    eeg = torch.full((n, c + 2, t + 64), 37.0)
    eeg[:, :c, :t] = batch.eeg
    channel = torch.cat([batch.channel, torch.full((n, 2), -1)], dim=1)
    longer = replace(batch, eeg=eeg, channel=channel, is_padded=True)
    n_short, n_long = encoder.n_patches(t), encoder.n_patches(t + 64)
    drawn: ContextTargets = objective.mask(encoder.valid(batch), batch.channel, batch.key, False)

    def moved(index: Tensor) -> Tensor:
        return index // n_short * n_long + index % n_short

    again = drawn._replace(context=moved(drawn.context), target=moved(drawn.target), is_full=False)
    with torch.no_grad():
        plain = objective(encoder, batch)
        monkeypatch.setattr(objective.mask, "forward", lambda *_: again)
        padded = objective(encoder, longer)
    torch.testing.assert_close(padded.total, plain.total, rtol=1e-4, atol=1e-5)
    for part in ("feature_variance", "effective_rank", "relative_l1"):
        torch.testing.assert_close(padded.parts[part], plain.parts[part], rtol=1e-3, atol=1e-5)


def test_variance_and_rank_tell_a_collapse(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder = small(toy_signal)
    objective = objective_of(encoder)
    alive = {name: float(value) for name, value in objective(encoder, toy_eeg(16)).parts.items()}
    assert objective.collapse(alive) == ""
    assert 1 < alive["effective_rank"] < 16
    for block in encoder.feature_encoder.children():
        torch.nn.init.zeros_(block[0].weight)  # what comes in makes no difference any more
    torch.nn.init.zeros_(encoder.feature_encoder.get_submodule("1")[2].bias)
    objective.start(encoder, [])
    dead = {name: float(value) for name, value in objective(encoder, toy_eeg(16)).parts.items()}
    assert dead["feature_variance"] == pytest.approx(0, abs=1e-9)
    assert "collapsed" in objective.collapse(dead)
    assert "lower model.optim.lr" in objective.collapse(dead)
    assert objective_of(encoder, least_variance=0.0, least_rank=0.0).collapse(dead) == ""


def test_effective_rank_counts_directions() -> None:
    from cerebro.objectives.jepa import _spread

    flat = torch.zeros(200, 1, 8)
    flat[:, 0, :3] = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    variance, rank, size = _spread(flat, None)
    assert float(variance) == pytest.approx(3 / 8, rel=0.1)
    assert float(rank) == pytest.approx(3, rel=0.1)
    assert float(size) == pytest.approx(3 / 8 * (2 / math.pi) ** 0.5, rel=0.05)
    few = [_spread(flat[4 * i : 4 * i + 4], None)[2] for i in range(50)]
    assert float(torch.stack(few).mean()) == pytest.approx(float(size), rel=0.05)  # whatever the batch size
    assert [float(value) for value in _spread(flat[:1], None)] == [0, 0, 0]  # a window alone tells nothing


def test_a_dead_term_of_a_sum_is_named(toy_signal: SignalSpec) -> None:
    encoder = small(toy_signal)
    total = WeightedSum(encoder, toy_signal, {"jepa": lambda e, s: objective_of(e)}, {"jepa": 1.0})
    assert total.collapse({"jepa/feature_variance": 0.5, "jepa/effective_rank": 9.0}) == ""
    assert total.collapse({"jepa/feature_variance": 1e-9, "jepa/effective_rank": 9.0}).startswith("jepa: the teacher")


def test_showcase_knows_where_nothing_was_hidden(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder = small(toy_signal)
    objective = objective_of(encoder, lambda s, n: DiskMask(s, n, "40%"))
    shown = objective.showcase(encoder, toy_eeg(2))
    assert shown["error_by_channel"].shape == (6,)
    assert shown["error_by_patch"].shape == (encoder.n_patches(200),)
    known = shown["error_by_channel"].isfinite()
    assert 1 <= int(known.sum()) < 6


def test_what_cannot_be_is_refused(toy_signal: SignalSpec) -> None:
    with pytest.raises(ConfigError, match="SignalJEPA with 0 layers cannot"):
        objective_of(SignalJEPA(toy_signal, depth=0))
    with pytest.raises(ConfigError, match="teacher_layers=3 and the encoder has 2 layers"):
        objective_of(small(toy_signal), teacher_layers=3)
    with pytest.raises(ConfigError, match=r"momentum=\[0.9, 0.5\] must rise"):
        objective_of(small(toy_signal), momentum=(0.9, 0.5))


def test_labram_learns_by_it_too(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder = LaBraM(toy_signal, conv_channels=2, depth=2, n_heads=2).eval()
    batch = toy_eeg(2)
    with torch.no_grad():
        placed = (encoder.embed(batch) + encoder.positions(batch)).flatten(1, 2)
        torch.testing.assert_close(encoder.contextualise(placed), encoder(batch).flatten(1, 2), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encoder.last_layers(placed, 1)[0], encoder.contextualise(placed))
    official = LaBraM(toy_signal, conv_channels=2, depth=2, n_heads=2, class_token="official")
    with pytest.raises(ConfigError, match=r"set model\.encoder\.init_args\.class_token to fixed"):
        official.contextualise(placed)
