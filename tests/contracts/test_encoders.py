"""What every encoder promises."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

import cerebro.encoders  # registers every encoder
from cerebro.encoders.adapted import AdaptedEncoder
from cerebro.encoders.base import Encoder
from cerebro.encoders.labram import LaBraM
from cerebro.encoders.mamba2 import Mamba2
from cerebro.encoders.signal_jepa import SignalJEPA
from cerebro.encoders.transformer import Transformer
from cerebro.montage import Montage
from cerebro.signal import EEGBatch, SignalSpec

EXAMPLES: dict[str, Callable[[SignalSpec], Encoder]] = {
    "AdaptedEncoder": lambda signal: AdaptedEncoder(  # as many electrodes as the recording has, at other places
        signal,
        lambda inner: LaBraM(inner, conv_channels=4, depth=2, n_heads=5),
        lambda: Montage("cap", ("A", "B", "C", "D", "E", "F"), 0.9 * np.array(signal.positions)[::-1]),
        width=16,
    ),
    "LaBraM": lambda signal: LaBraM(signal, conv_channels=4, depth=2, n_heads=5),
    "Mamba2": lambda signal: Mamba2(  # pieces of challenge windows
        signal, patch_samples=50, d_model=16, n_layers=3, direction="bidirectional", d_state=8, headdim=8
    ),
    "SignalJEPA": lambda signal: SignalJEPA(  # short tokens, so that a toy window has several per channel
        signal, conv_layers=((8, 16, 8), (16, 8, 8)), depth=2, n_heads=2, feedforward=32, place_width=6
    ),
    "Transformer": lambda signal: Transformer(signal, patch_samples=50, d_model=16, n_layers=2),
}
FINAL = [cls for cls in Encoder.__subclasses__() if cls.__module__.startswith("cerebro.")]


@pytest.fixture(params=FINAL, ids=lambda cls: cls.__name__)
def build(request: pytest.FixtureRequest, example_of: Any, toy_signal: SignalSpec) -> Callable[[int], Encoder]:
    example = example_of(EXAMPLES, request.param)

    def with_seed(seed: int = 0) -> Encoder:
        torch.manual_seed(seed)
        encoder: Encoder = example(toy_signal)
        return encoder.eval()

    return with_seed


def test_tokens_have_one_row_per_channel_and_patch(build: Any, toy_eeg: Any, toy_signal: SignalSpec) -> None:
    encoder, batch = build(), toy_eeg(3)
    shape = (3, len(toy_signal.channels), encoder.n_patches(toy_signal.n_times), encoder.d_model)
    assert encoder(batch).shape == shape
    assert encoder.embed(batch).shape == shape
    assert encoder.valid(batch).shape == shape[:3]


def test_the_gradient_reaches_every_parameter(build: Any, toy_eeg: Any) -> None:
    encoder, batch = build().train(), toy_eeg(4)
    hidden = torch.rand(encoder.valid(batch).shape, generator=torch.Generator().manual_seed(0)) < 0.5
    tokens = encoder(batch, hidden)
    (tokens * torch.randn_like(tokens)).sum().backward()
    missing = [name for name, parameter in encoder.named_parameters() if parameter.grad is None]
    assert missing == []
    assert all(bool(parameter.grad.isfinite().all()) for parameter in encoder.parameters())


def test_a_state_dict_makes_another_instance_equal(build: Any, toy_eeg: Any) -> None:
    first, second, batch = build(0), build(1), toy_eeg(2)
    with torch.no_grad():
        assert not torch.allclose(first(batch), second(batch))
        second.load_state_dict(first.state_dict(), strict=True)
        assert torch.equal(first(batch), second(batch))


def test_channel_tables_are_all_that_depends_on_channels(build: Any, toy_eeg: Any, toy_signal: SignalSpec) -> None:
    """With the rows of three channels an encoder of these three computes what the encoder of all six does."""
    encoder, batch, chosen = build(), toy_eeg(2), [5, 1, 2]
    if encoder.channel_tables is None:
        pytest.skip("promises nothing")
    few = replace(
        toy_signal,
        channels=tuple(toy_signal.channels[at] for at in chosen),
        positions=tuple(toy_signal.positions[at] for at in chosen),
    )
    state = encoder.state_dict()
    for name, before in encoder.channel_tables.items():
        assert len(state[name]) == before + len(toy_signal.channels)
        state[name] = state[name][[*range(before), *(before + at for at in chosen)]]
    small = EXAMPLES[type(encoder).__name__](few).eval()
    small.load_state_dict(state, strict=True)
    with torch.no_grad():
        rows = replace(batch, eeg=batch.eeg[:, chosen], channel=batch.channel[:, chosen])
        ours = replace(rows, channel=torch.arange(3).repeat(2, 1))
        torch.testing.assert_close(small(ours), encoder(rows), rtol=1e-4, atol=1e-5)


def test_the_order_of_channels_does_not_matter(build: Any, toy_eeg: Any) -> None:
    encoder, batch = build(), toy_eeg(2)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    with torch.no_grad():
        shuffled = encoder(replace(batch, eeg=batch.eeg[:, order], channel=batch.channel[:, order]))
        expected = encoder(batch) if isinstance(encoder, AdaptedEncoder) else encoder(batch)[:, order]
        torch.testing.assert_close(shuffled, expected, rtol=1e-4, atol=1e-5)


def test_channels_are_told_apart(build: Any, toy_eeg: Any) -> None:
    encoder, batch = build(), toy_eeg(2)
    with torch.no_grad():
        assert not torch.allclose(encoder(replace(batch, channel=batch.channel.flip(1))), encoder(batch), atol=1e-5)


def test_a_window_does_not_see_the_others_of_its_batch(build: Any, toy_eeg: Any) -> None:
    encoder, batch = build(), toy_eeg(4)
    values = {entry.name: getattr(batch, entry.name) for entry in fields(batch)}
    labels = {name: {} for name, value in values.items() if isinstance(value, dict)}
    alone = replace(batch, **{name: value[:1] for name, value in values.items() if torch.is_tensor(value)}, **labels)
    with torch.no_grad():
        torch.testing.assert_close(encoder(alone), encoder(batch)[:1], rtol=1e-4, atol=1e-5)


def test_bfloat16_stays_close_to_float32(build: Any, toy_eeg: Any) -> None:
    encoder, batch = build(), toy_eeg(4)
    with torch.no_grad():
        exact = encoder(batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = encoder(batch).float()
    assert float((rounded - exact).norm() / exact.norm()) < 0.03


def test_padding_changes_nothing(build: Any, toy_eeg: Any, pad: Any) -> None:
    encoder, batch = build(), toy_eeg(3)
    longer = pad(batch)
    assert int(encoder.valid(longer).sum()) == int(encoder.valid(batch).sum())
    with torch.no_grad():
        plain, padded = encoder(batch), encoder(longer)
    torch.testing.assert_close(padded[:, : plain.shape[1], : plain.shape[2]], plain, rtol=1e-4, atol=1e-5)


def test_zeros_and_pure_padding_give_finite_tokens(build: Any, toy_eeg: Any) -> None:
    encoder, batch = build(), toy_eeg(2)
    with torch.no_grad():
        assert bool(encoder(replace(batch, eeg=torch.zeros_like(batch.eeg))).isfinite().all())
        assert bool(
            encoder(replace(batch, channel=torch.full_like(batch.channel, -1), is_padded=True)).isfinite().all()
        )


def test_a_subset_of_outputs_equals_the_full_computation(build: Any, toy_eeg: Any) -> None:
    encoder, batch = build(), toy_eeg(2)
    hidden = torch.rand(encoder.valid(batch).shape, generator=torch.Generator().manual_seed(1)) < 0.5
    out = torch.tensor([[3, 0, 7], [5, 11, 2]])
    with torch.no_grad():
        local = encoder.embed(batch)
        full = encoder.mix(local, batch, hidden).flatten(1, 2)
        some = encoder.mix_subset(local, batch, hidden, out=out)
    torch.testing.assert_close(some, torch.stack([full[row, out[row]] for row in range(2)]), rtol=1e-4, atol=1e-5)


def test_tokens_left_out_have_no_influence(build: Any, toy_eeg: Any) -> None:
    encoder, batch = build(), toy_eeg(2)
    if type(encoder).mix_subset is Encoder.mix_subset:
        pytest.skip(f"{type(encoder).__name__} has no faster way for a subset of tokens")
    keep, out = torch.tensor([[9, 1, 4, 6], [0, 3, 8, 5]]), torch.tensor([[4, 9], [5, 0]])
    with torch.no_grad():
        local = encoder.embed(batch)
        kept = encoder.mix_subset(local, batch, keep=keep)
        n_tokens = local.shape[1] * local.shape[2]
        others = torch.stack([~torch.isin(torch.arange(n_tokens), row) for row in keep]).view(local.shape[:3])
        changed = torch.where(others[..., None], 1000.0, local)
        assert torch.equal(encoder.mix_subset(changed, batch, keep=keep), kept)
        some = encoder.mix_subset(local, batch, keep=keep, out=out)
    torch.testing.assert_close(some, torch.stack([kept[0, [2, 0]], kept[1, [3, 0]]]), rtol=1e-4, atol=1e-5)


def test_any_list_of_placed_tokens_is_mixed_as_in_the_window(build: Any, toy_eeg: Any) -> None:
    encoder, batch = build(), toy_eeg(2)
    if type(encoder).positions is Encoder.positions:
        pytest.skip(f"{type(encoder).__name__} mixes whole windows only")
    with torch.no_grad():
        placed = (encoder.embed(batch) + encoder.positions(batch)).flatten(1, 2)
        whole = encoder(batch).flatten(1, 2)
        torch.testing.assert_close(encoder.contextualise(placed), whole, rtol=1e-4, atol=1e-5)
        order = torch.randperm(placed.shape[1], generator=torch.Generator().manual_seed(0))
        turned = encoder.contextualise(placed[:, order])
        torch.testing.assert_close(turned, whole[:, order], rtol=1e-4, atol=1e-5)
        valid = torch.arange(placed.shape[1]).expand(2, -1) < torch.tensor([[5], [3]])
        some = encoder.contextualise(torch.where(valid[..., None], placed, 99.0), valid)
        torch.testing.assert_close(some[1, :3], encoder.contextualise(placed[1:, :3])[0], rtol=1e-4, atol=1e-5)
        layers = encoder.last_layers(placed, encoder.n_layers)
        assert [layer.shape for layer in layers] == [placed.shape] * encoder.n_layers


def test_local_parts_have_no_part_in_mixing(build: Any, toy_eeg: Any) -> None:
    encoder, batch = build(), toy_eeg(2)
    with torch.no_grad():
        local = encoder.embed(batch)
        before = encoder.mix(local, batch)
        for name, parameter in encoder.named_parameters():
            if name.split(".")[0] in encoder.local_parts:
                parameter.add_(1.0)
        assert torch.equal(encoder.mix(local, batch), before)


def test_every_parameter_has_a_layer(build: Any) -> None:
    encoder = build()
    layers = {encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    assert layers <= set(range(encoder.n_layers + 2))
    assert set(range(1, encoder.n_layers + 1)) <= layers


def test_every_encoder_can_be_named_in_a_config() -> None:
    assert {cls.__name__ for cls in FINAL} <= set(cerebro.encoders.__all__)


def test_tokens_are_the_same_when_computed_twice(build: Any, toy_eeg: Any) -> None:
    encoder = build()
    batch: EEGBatch = toy_eeg(2)
    with torch.no_grad():
        assert torch.equal(encoder(batch), encoder(batch))
