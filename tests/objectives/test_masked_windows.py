"""Masked windows: which are masked, what the encoder sees of them, and what the loss is made of."""

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cerebro.encoders.base import Encoder
from cerebro.encoders.labram import LaBraM
from cerebro.encoders.mamba2 import Mamba2
from cerebro.encoders.transformer import Transformer
from cerebro.errors import ConfigError
from cerebro.objectives.masked_windows import MaskedWindows
from cerebro.signal import EEGBatch, SignalSpec

P = 20  # samples of a window
N = 30  # windows of the longest sequence
SEQUENCES = SignalSpec(
    channels=("AF7", "AF8", "TP9"),
    positions=((-0.06, 0.06, 0.02), (0.06, 0.06, 0.02), (-0.08, -0.02, 0.0)),
    sfreq=20.0,
    n_times=N * P,
)


class Recurrent(Encoder):
    """A toy: linear projection of each window, a code of its place, a recurrent network over each channel; causal."""

    def __init__(self, signal: SignalSpec, patch_samples: int = P, patch_stride: int = P) -> None:
        super().__init__(signal)
        self.patch_samples, self.patch_stride, self.d_model, self.n_layers = patch_samples, patch_stride, 16, 1
        self.project = nn.Linear(patch_samples, 16)
        self.place = nn.Embedding(N, 16)
        self.mixer = nn.GRU(16, 16, batch_first=True)

    def valid(self, batch: EEGBatch) -> Tensor:
        start = torch.arange(self.n_patches(batch.eeg.shape[-1])) * self.patch_samples
        return (batch.channel >= 0)[:, :, None] & (start < batch.n_valid[:, None])[:, None]

    def embed(self, batch: EEGBatch) -> Tensor:
        n = self.n_patches(batch.eeg.shape[-1])
        is_there = torch.arange(batch.eeg.shape[-1]) < batch.n_valid[:, None, None]
        eeg = torch.where(is_there, batch.eeg, 0.0) / batch.scale(20.0).clamp(min=1e-3)[:, :, None]
        embedded: Tensor = self.project(rearrange(eeg[..., : n * P], "b c (n p) -> b c n p", p=P))
        return embedded

    def mix(self, tokens: Tensor, batch: EEGBatch, hidden: Tensor | None = None) -> Tensor:
        if hidden is not None:
            tokens = torch.where(hidden[..., None], self.project.bias, tokens)
        placed = (tokens + self.place(torch.arange(tokens.shape[2]))).flatten(0, 1)
        return self.mixer(placed)[0].view(tokens.shape)

    def layer_of(self, parameter: str) -> int:
        return 0


def sequences(n_valid: list[int], seed: int = 0, channel: int | None = None) -> EEGBatch:
    """One channel a row, of so many samples; waves in noise, with the deviation of each."""
    draw = torch.Generator().manual_seed(seed)
    n = len(n_valid)
    n_windows = max(math.ceil(length / P) for length in n_valid)
    time_s = torch.arange(n_windows * P) / SEQUENCES.sfreq
    eeg = 30 * torch.sin(2 * math.pi * 2 * time_s + 6 * torch.rand(n, 1, 1, generator=draw))
    eeg = eeg + 10 * torch.randn(eeg.shape, generator=draw)
    valid = torch.tensor(n_valid)
    eeg = torch.where(torch.arange(eeg.shape[-1]) < valid[:, None, None], eeg, 0.0)
    rows = torch.arange(n)
    return EEGBatch(
        eeg=eeg,
        channel=(rows % 3 if channel is None else torch.full_like(rows, channel))[:, None],
        n_valid=valid,
        key=torch.randint(-(2**62), 2**62, (n,), generator=draw),
        sample=rows,
        recording=rows,
        participant=rows,
        pair=torch.full_like(rows, -1),
        is_padded=bool((valid < eeg.shape[-1]).any()),
        deviation=15 + 10 * torch.rand(n, 1, generator=draw),
    )


def build(ratio: float = 0.4, style: Any = "mae", seed: int = 0) -> tuple[Recurrent, MaskedWindows]:
    torch.manual_seed(seed)
    encoder = Recurrent(SEQUENCES)
    return encoder, MaskedWindows(encoder, SEQUENCES, ratio, style)


def rows_of(batch: EEGBatch, rows: list[int]) -> EEGBatch:
    """Some rows of a batch, cut to the longest of them."""
    names = ("eeg", "channel", "n_valid", "key", "sample", "recording", "participant", "pair", "deviation")
    some = replace(batch, **{name: getattr(batch, name)[rows] for name in names})
    longest = math.ceil(int(some.n_valid.max()) / P) * P
    return replace(some, eeg=some.eeg[..., :longest], is_padded=bool((some.n_valid < longest).any()))


def half_up(share: Fraction) -> int:
    return math.floor(share + Fraction(1, 2))


def groups(n_masked: int) -> tuple[int, int, int]:
    """Zeroed, noised and unchanged of so many masked windows in BERT style."""
    zeroed, changed = half_up(Fraction(8, 10) * n_masked), half_up(Fraction(9, 10) * n_masked)
    return zeroed, changed - zeroed, n_masked - changed


# ------------------------------------------------------------------------------------------------ what is masked


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    lengths=st.lists(st.integers(1, N * P), min_size=1, max_size=5),
    percent=st.integers(5, 95),
    style=st.sampled_from(["mae", "bert"]),
)
def test_each_sequence_masks_its_rounded_share_of_valid_windows(
    seed: int, lengths: list[int], percent: int, style: str
) -> None:
    encoder, objective = build(percent / 100, style)
    batch = sequences(lengths, seed)
    mask = objective.rebuild(encoder, batch).mask
    for row, length in enumerate(lengths):
        n_valid = math.ceil(length / P)
        expected = half_up(Fraction(percent, 100) * n_valid)
        assert int(mask.n_hidden[row, 0]) == int(mask.hidden[row, 0].sum()) == expected
        listed = mask.drawn[row, 0][mask.counts[row, 0]].tolist()
        assert sorted(listed) == mask.hidden[row, 0].nonzero()[:, 0].tolist()
        assert all(window < n_valid for window in listed)
    counts = objective(encoder, batch).counts
    masked = [half_up(Fraction(percent, 100) * math.ceil(length / P)) for length in lengths]
    assert int(counts["loss"]) == int(counts["mse"]) == sum(masked)
    if style == "bert":
        for name, number in zip(("zeroed", "noised", "unchanged"), zip(*map(groups, masked), strict=True), strict=True):
            assert int(counts[f"mse_{name}"]) == sum(number)


def test_flat_windows_are_masked_no_more_often_than_others() -> None:
    encoder, objective = build(0.2)
    batch = sequences([N * P] * 20)
    flat = replace(batch, eeg=batch.eeg.clone())
    flat.eeg[..., : 10 * P] = 0.0
    first, second = (objective.rebuild(encoder, one).mask for one in (batch, flat))
    assert torch.equal(first.hidden, second.hidden)
    assert int(objective(encoder, flat).counts["loss"]) == 20 * 6


def test_channels_of_one_row_and_keys_have_masks_of_their_own() -> None:
    encoder, objective = build()
    batch = sequences([N * P] * 3)
    rows = replace(batch, channel=torch.zeros(3, 1, dtype=torch.long))
    masks = objective.rebuild(encoder, rows).mask.hidden[:, 0]
    together = replace(
        rows_of(batch, [0]),
        eeg=batch.eeg.transpose(0, 1),
        channel=torch.arange(3)[None],
        deviation=batch.deviation.T,
    )
    channels = objective.rebuild(encoder, together).mask.hidden[0]
    for found in (masks, channels):
        assert len({tuple(row.tolist()) for row in found}) == 3
    swapped = replace(
        together,
        eeg=together.eeg[:, [2, 0, 1]],
        channel=together.channel[:, [2, 0, 1]],
        deviation=together.deviation[:, [2, 0, 1]],
    )
    assert torch.equal(objective.rebuild(encoder, swapped).mask.hidden[0], channels[[2, 0, 1]])


# ------------------------------------------------------------------------------------- what the encoder sees of it


def encoders() -> list[Callable[[SignalSpec], Encoder]]:
    return [
        Recurrent,
        lambda s: LaBraM(s, patch_samples=P, conv_channels=2, depth=1, n_heads=2, max_patches=N),
        lambda s: Mamba2(s, P, d_model=16, n_layers=2, direction="bidirectional", d_state=8, headdim=8),
        lambda s: Transformer(s, P, d_model=16, n_layers=1, n_heads=2),
    ]


@pytest.mark.parametrize("make", encoders(), ids=["toy", "labram", "mamba2", "transformer"])
@pytest.mark.parametrize("style", ["mae", "bert"])
def test_the_value_of_a_hidden_window_never_reaches_the_prediction(make: Any, style: Any) -> None:
    torch.manual_seed(0)
    encoder = make(SEQUENCES)
    objective = MaskedWindows(encoder, SEQUENCES, 0.5, style)
    batch = sequences([N * P, 17 * P])
    batch = replace(batch, eeg=batch.eeg.requires_grad_())
    rebuilt = objective.rebuild(encoder, batch)
    (gradient,) = torch.autograd.grad(rebuilt.predicted[rebuilt.mask.counts].square().sum(), batch.eeg)
    reaching = rearrange(gradient, "b 1 (n p) -> b n p", p=P).abs().sum(dim=-1)  # (B, N)
    changed = batch.eeg.detach().clone()
    for row, length in enumerate((N, 17)):
        drawn = rebuilt.mask.drawn[row, 0][rebuilt.mask.counts[row, 0]].tolist()
        n_zeroed, n_noised, n_unchanged = groups(len(drawn))
        concealed = drawn if style == "mae" else drawn[: n_zeroed + n_noised]
        assert float(reaching[row, concealed].max()) == 0
        assert n_unchanged > 0
        if style == "bert":
            assert float(reaching[row, drawn[n_zeroed + n_noised :]].min()) > 0
        visible = sorted(set(range(length)) - set(drawn))
        assert float(reaching[row, visible[:1]].max()) > 0
        for window in concealed:
            changed[row, 0, window * P : (window + 1) * P] += 1000.0
    again = objective.rebuild(encoder, replace(batch, eeg=changed))
    assert torch.equal(again.predicted[again.mask.counts], rebuilt.predicted[rebuilt.mask.counts])


@pytest.mark.parametrize("make", encoders()[2:], ids=["mamba2", "transformer"])
def test_an_encoder_that_hides_inputs_gives_what_it_gives_of_zeroed_windows(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    encoder = make(SEQUENCES)
    objective = MaskedWindows(encoder, SEQUENCES, 0.5)
    batch = sequences([N * P, 17 * P - 3])
    assert type(encoder).hides_inputs
    without_copy = objective(encoder, batch).total
    monkeypatch.setattr(type(encoder), "hides_inputs", False)
    torch.testing.assert_close(objective(encoder, batch).total, without_copy, rtol=1e-6, atol=0.0)


def test_noise_has_deviation_one_and_takes_nothing_from_the_window() -> None:
    encoder, objective = build(0.5, "bert")
    batch = sequences([N * P] * 60)
    mask = objective.rebuild(encoder, batch).mask
    reaching = what_is_shown(encoder, objective, batch)
    shown, given = (rearrange(eeg, "b 1 (n p) -> b n p", p=P) for eeg in (reaching, batch.eeg))
    n_zeroed, n_noised, _ = groups(15)
    noise = []
    for row in range(60):
        drawn = mask.drawn[row, 0].tolist()
        assert not bool(shown[row, drawn[:n_zeroed]].any())
        noised = drawn[n_zeroed : n_zeroed + n_noised]
        noise.append(shown[row, noised] / batch.deviation[row])
        others = sorted(set(range(N)) - set(drawn[: n_zeroed + n_noised]))
        assert torch.equal(shown[row, others], given[row, others])
    values = torch.cat(noise).flatten()
    assert abs(float(values.mean())) < 0.06
    assert float(values.std()) == pytest.approx(1, abs=0.05)
    assert len(values.unique()) > 0.99 * len(values)


# ------------------------------------------------------------------------------------------- what the loss is made of


@torch.no_grad()
def plain_loss(encoder: Recurrent, objective: MaskedWindows, batch: EEGBatch, shown: Tensor) -> dict[str, float]:
    """MSE of all masked windows and of each group, in loops: every window decoded, errors in float64."""
    mask = objective.rebuild(encoder, batch).mask
    errors: dict[str, list[float]] = {"zeroed": [], "noised": [], "unchanged": []}
    for row in range(len(batch)):
        drawn = mask.drawn[row, 0][mask.counts[row, 0]].tolist()
        n_zeroed, n_noised, _ = groups(len(drawn)) if objective.masking_style == "bert" else (len(drawn), 0, 0)
        one = rows_of(replace(batch, eeg=shown), [row])
        tokens = encoder(one)[0, 0]  # (N, D)
        for place, window in enumerate(drawn):
            end = min((window + 1) * P, int(batch.n_valid[row]))
            target = (batch.eeg[row, 0, window * P : end].double() / batch.deviation[row, 0].double()).tolist()
            found = objective.decoder(tokens[window]).double().tolist()[: len(target)]
            squares = [(a - b) ** 2 for a, b in zip(found, target, strict=True)]
            group = "zeroed" if place < n_zeroed else "noised" if place < n_zeroed + n_noised else "unchanged"
            errors[group].append(sum(squares) / len(squares))
    means = {group: sum(found) / len(found) if found else 0.0 for group, found in errors.items()}
    every = [error for group in errors.values() for error in group]
    return means | {"all": sum(every) / len(every)}


def what_is_shown(encoder: Recurrent, objective: MaskedWindows, batch: EEGBatch) -> Tensor:
    """The EEG that reaches the encoder."""
    seen: list[Tensor] = []
    embed = encoder.embed

    def spy(given: EEGBatch) -> Tensor:
        seen.append(given.eeg)
        return embed(given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "embed", spy)
        objective.rebuild(encoder, batch)
    return seen[0]


@pytest.mark.parametrize("style", ["mae", "bert"])
def test_the_loss_is_that_of_a_plain_reference(style: Any) -> None:
    encoder, objective = build(0.5, style)
    batch = sequences([N * P, 21 * P + 7, 20 * P, 3 * P, 1])
    loss = objective(encoder, batch)
    expected = plain_loss(encoder, objective, batch, what_is_shown(encoder, objective, batch))
    assert float(loss.total.detach()) == pytest.approx(expected["all"], rel=1e-6)
    if style == "bert":
        for group in ("zeroed", "noised", "unchanged"):
            assert float(loss.parts[f"mse_{group}"]) == pytest.approx(expected[group], rel=1e-6)
    else:
        assert set(loss.parts) == {"mse", "explained", "unmasked_sequences"}


def test_what_is_explained_compares_the_error_with_the_variance_of_the_masked_windows() -> None:
    encoder, objective = build(0.5)
    batch = sequences([N * P] * 4)
    rebuilt = objective.rebuild(encoder, batch)
    loss = objective(encoder, batch)
    variance = rebuilt.target[rebuilt.mask.counts].var(correction=0)
    assert float(loss.parts["explained"]) == pytest.approx(1 - float(loss.parts["mse"] / variance), abs=1e-5)
    zeros = replace(batch, eeg=torch.zeros_like(batch.eeg))
    assert float(objective(encoder, zeros).parts["explained"]) == 0


def test_visible_windows_do_not_enter_the_loss() -> None:
    encoder, objective = build()
    batch = sequences([N * P, 22 * P])
    before = objective(encoder, batch)
    rebuilt = objective.rebuild(encoder, batch)
    mixed = rebuilt._replace(predicted=torch.where(rebuilt.mask.counts[..., None], rebuilt.predicted, 1e9))
    objective.rebuild = lambda *_: mixed  # type: ignore[method-assign]
    assert torch.equal(objective(encoder, batch).total, before.total)
    assert int(before.counts["loss"]) == 12 + 9


@pytest.mark.parametrize("style", ["mae", "bert"])
def test_padding_changes_nothing(style: Any) -> None:
    encoder, objective = build(0.5, style)
    batch = sequences([N * P, 13 * P - 3])
    eeg = torch.full((2, 3, (N + 5) * P), 1e6)  # two channels and five windows more
    eeg[:, :1, : N * P] = torch.where(torch.arange(N * P) < batch.n_valid[:, None, None], batch.eeg, 1e6)
    channel = torch.cat([batch.channel, torch.full((2, 2), -1)], dim=1)
    deviation = torch.cat([batch.deviation, torch.full((2, 2), 5.0)], dim=1)
    padded = replace(batch, eeg=eeg, channel=channel, deviation=deviation, is_padded=True)
    encoder.place = nn.Embedding.from_pretrained(torch.cat([encoder.place.weight, torch.randn(5, 16)]))
    plain, found = objective(encoder, batch), objective(encoder, padded)
    torch.testing.assert_close(found.total, plain.total)
    for part, value in plain.parts.items():
        torch.testing.assert_close(found.parts[part], value, rtol=1e-4, atol=1e-5)
    assert {part: int(n) for part, n in found.counts.items()} == {part: int(n) for part, n in plain.counts.items()}


@pytest.mark.parametrize("style", ["mae", "bert"])
def test_a_sequence_has_the_same_loss_in_any_batch(style: Any) -> None:
    encoder, objective = build(0.5, style)
    batch = sequences([N * P, 11 * P, 25 * P, 19 * P + 1])
    whole = objective(encoder, batch)
    n = dict.fromkeys(whole.counts, 0.0)
    sums = dict(n)
    for rows in ([2, 0], [3], [1]):
        loss = objective(encoder, rows_of(batch, rows))
        for part, value in {"loss": loss.total.detach(), **loss.parts}.items():
            sums[part] += float(value) * int(loss.counts[part])
            n[part] += int(loss.counts[part])
    for part, value in {"loss": whole.total.detach(), **whole.parts}.items():
        if part != "explained":  # the variance is that of the batch
            assert sums[part] / n[part] == pytest.approx(float(value), rel=1e-5)


def test_a_batch_without_a_masked_window_has_zero_loss_and_zero_gradient() -> None:
    encoder, objective = build(0.2)
    loss = objective(encoder, sequences([P, 2 * P]))
    loss.total.backward()
    assert float(loss.total.detach()) == 0
    assert int(loss.counts["loss"]) == 0
    assert float(loss.parts["unmasked_sequences"]) == 1
    parameters = [*encoder.parameters(), *objective.parameters()]
    assert all(p.grad is None or not bool(p.grad.any()) for p in parameters)
    assert objective.showcase(encoder, sequences([P, 2 * P])) == {}


def test_sequences_too_short_for_the_ratio_are_counted() -> None:
    encoder, objective = build(0.2)
    loss = objective(encoder, sequences([2 * P, N * P, P, 10 * P]))
    assert float(loss.parts["unmasked_sequences"]) == 0.5
    assert int(loss.counts["unmasked_sequences"]) == 4
    assert int(loss.counts["loss"]) == 6 + 2


def test_a_flat_channel_gives_a_finite_loss_and_gradient() -> None:
    encoder, objective = build(0.5, "bert")
    batch = sequences([N * P] * 2)
    flat = replace(batch, eeg=torch.zeros_like(batch.eeg), deviation=torch.zeros(2, 1))
    loss = objective(encoder, flat)
    loss.total.backward()
    assert bool(loss.total.isfinite())
    assert all(bool(p.grad.isfinite().all()) for p in encoder.parameters() if p.grad is not None)


def test_targets_are_divided_by_the_deviation_of_their_channel_or_by_scale_uV() -> None:
    encoder, objective = build()
    batch = sequences([N * P] * 3)
    carried = objective.rebuild(encoder, batch)
    windows = rearrange(batch.eeg, "b c (n p) -> b c n p", p=P)
    for row in range(3):
        wanted = windows[row, 0, carried.mask.drawn[row, 0]] / batch.deviation[row]
        torch.testing.assert_close(carried.target[row, 0], wanted)
    none = objective.rebuild(encoder, replace(batch, deviation=torch.empty(0, 0)))
    torch.testing.assert_close(none.target * 20, carried.target * batch.deviation[:, :, None, None])


# ------------------------------------------------------------------------------------------------------ what it shows


def test_the_showcase_holds_zeroed_windows_in_microvolts_and_their_spectra() -> None:
    encoder, objective = build(0.5, "bert")
    batch = sequences([N * P] * 12 + [P - 1])
    shown = objective.showcase(encoder, batch)
    rebuilt = objective.rebuild(encoder, batch)
    assert shown["original"].shape == shown["reconstructed"].shape == (8, P)
    assert torch.equal(shown["channel"], batch.channel[:8, 0])
    assert torch.equal(shown["deviation_uV"], batch.deviation[:8, 0])
    for row in range(8):
        window = int(shown["window"][row])
        assert window == int(rebuilt.mask.drawn[row, 0, 0])  # the first drawn, which is a zeroed one
        torch.testing.assert_close(shown["original"][row], batch.eeg[row, 0, window * P : (window + 1) * P])
        expected = rebuilt.predicted[row, 0, 0] * batch.deviation[row]
        torch.testing.assert_close(shown["reconstructed"][row], expected)
    assert shown["frequency_hz"].tolist() == list(range(11))
    assert int(shown["spectrum_original"].argmax()) == 2  # the wave of 2 Hz
    assert int(shown["n_windows"]) == 12 * groups(15)[0]
    assert bool((shown["spectrum_reconstructed"] >= 0).all())


# ------------------------------------------------------------------------------------------------------ what it refuses


@pytest.mark.parametrize(
    ("ratio", "says"),
    [
        (0.0, "mask_ratio=0.0 must lie between 0 and 1"),
        (1.0, "mask_ratio=1.0 must lie between 0 and 1"),
        (float("nan"), "must lie between 0 and 1"),
        (0.01, r"masks 0 of the 30 windows of the longest sequence; set mask_ratio to 0.017 ... 0.983"),
        (0.99, r"masks 30 of the 30 windows"),
    ],
)
def test_a_ratio_that_masks_nothing_or_everything_is_refused(ratio: float, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refusal:
        build(ratio)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("n_windows", [2, 3, 5, 30, 124])
def test_the_ratios_that_are_offered_work(n_windows: int) -> None:
    signal = replace(SEQUENCES, n_times=n_windows * P)
    with pytest.raises(ConfigError) as refusal:
        MaskedWindows(Recurrent(signal), signal, 1e-9)
    low, high = map(float, str(refusal.value).partition("set mask_ratio to ")[2].partition(",")[0].split(" ... "))
    for ratio in (low, high):
        MaskedWindows(Recurrent(signal), signal, ratio)
    for ratio in (low - 0.001, high + 0.001):
        with pytest.raises(ConfigError):
            MaskedWindows(Recurrent(signal), signal, ratio)


def test_sequences_of_one_window_are_refused() -> None:
    signal = replace(SEQUENCES, n_times=P)
    with pytest.raises(ConfigError, match=r"1 window\(s\).*patch_samples smaller"):
        MaskedWindows(Recurrent(signal), signal, 0.5)


def test_overlapping_patches_and_other_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match="patches of 20 samples every 10"):
        MaskedWindows(Recurrent(SEQUENCES, patch_stride=10), SEQUENCES)
    other = replace(SEQUENCES, channels=("C3", "C4", "Cz"))
    with pytest.raises(ConfigError, match="every channel of a recording"):
        MaskedWindows(Recurrent(other), SEQUENCES)


def test_bert_above_a_fifth_warns_in_one_line_that_unchanged_windows_leak(caplog: pytest.LogCaptureFixture) -> None:
    build(0.2, "bert"), build(0.5, "mae")
    assert caplog.messages == []
    build(0.3, "bert")
    (line,) = caplog.messages
    assert "mask_ratio=0.3" in line
    assert "can be copied" in line
    assert "\n" not in line
