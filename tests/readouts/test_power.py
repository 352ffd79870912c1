"""Log power of principal components: found without labels, the same whatever order and padding, in absolute units."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cerebro.encoders.base import Encoder
from cerebro.encoders.labram import LaBraM
from cerebro.encoders.mamba2 import Mamba2
from cerebro.errors import ConfigError, DataError
from cerebro.readouts import PowerReadout
from cerebro.signal import EEGBatch, SignalSpec

K = 5
WAYS = ("asymmetry", "concat", "mean")
SEGMENT = 4  # tokens, of 10 and 20 that a sample has
TRIM = 0.4  # of 3 or 5 segments: one or two


@pytest.fixture(scope="session")
def toy_signal(toy_signal: SignalSpec) -> SignalSpec:
    """Two homologous pairs and two channels without a partner."""
    return replace(toy_signal, channels=("F3", "F4", "C3", "C4", "Cz", "P7"))


def mamba(signal: SignalSpec) -> Encoder:
    torch.manual_seed(0)
    return Mamba2(signal, patch_samples=10, d_model=16, n_layers=1, d_state=8, headdim=8).eval()


def labram(signal: SignalSpec) -> Encoder:
    torch.manual_seed(0)
    return LaBraM(signal, patch_samples=20, conv_channels=2, depth=1, n_heads=2).eval()


def started(
    encoder: Encoder,
    batches: list[tuple[EEGBatch, Tensor]],
    way: Any = "concat",
    k: int = K,
    components: Literal["joint", "principal"] = "joint",
) -> PowerReadout:
    torch.manual_seed(1)
    readout = PowerReadout(encoder, encoder.signal, 3, k, way, SEGMENT, TRIM, components=components).eval()

    def again() -> Iterable[tuple[EEGBatch, Tensor]]:
        yield from batches

    readout.start(encoder, again)
    return readout


def tokens_of(encoder: Encoder, *batches: EEGBatch) -> list[tuple[EEGBatch, Tensor]]:
    with torch.no_grad():
        return [(batch, encoder(batch)) for batch in batches]


def within_segments(tokens: Any) -> np.ndarray[Any, Any]:
    """Tokens (B, C, N, D) minus the mean of their segment."""
    starts = range(0, tokens.shape[2], SEGMENT)
    parts = [np.asarray(tokens[:, :, start : start + SEGMENT], np.float64) for start in starts]
    return np.concatenate([part - part.mean(axis=2, keepdims=True) for part in parts], axis=2)


def powers_by_hand(tokens: Tensor, axes: np.ndarray[Any, Any], trim: float = TRIM) -> np.ndarray[Any, Any]:
    """Half the logarithm of the variance along each axis, (B, C, K), without the loudest segments of each."""
    squares = (within_segments(tokens) @ axes) ** 2
    power = np.empty((*squares.shape[:2], axes.shape[1]))
    for at in np.ndindex(power.shape):
        one = squares[at[0], at[1], :, at[2]]
        segments = sorted((one[start : start + SEGMENT] for start in range(0, len(one), SEGMENT)), key=np.mean)
        power[at] = np.concatenate(segments[: len(segments) - int(trim * len(segments))]).mean()
    return 0.5 * np.log(power + 1e-5)


def test_axes_are_the_principal_components_of_the_training_tokens_and_features_are_standardised(
    toy_signal: SignalSpec, toy_eeg: Any
) -> None:
    encoder = labram(toy_signal)
    seen = tokens_of(encoder, toy_eeg(6, 0), toy_eeg(5, 1))
    readout = started(encoder, seen, components="principal")
    tokens = torch.cat([each for _, each in seen]).double().numpy()
    each = [one.T @ one for one in within_segments(tokens).reshape(66, -1, encoder.d_model)]
    values, vectors = np.linalg.eigh(np.mean([one / np.trace(one) for one in each], axis=0))
    expected = vectors[:, np.argsort(values)[::-1][:K]]
    axes = readout.axes.double().numpy()
    np.testing.assert_allclose(np.abs(np.diag(axes.T @ expected)), 1, atol=1e-3)
    np.testing.assert_allclose(axes.T @ axes, np.eye(K), atol=1e-5)
    features = powers_by_hand(torch.from_numpy(tokens), axes)
    np.testing.assert_allclose(readout.centre, features.mean(axis=0), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(readout.scale, features.std(axis=0), rtol=1e-3, atol=1e-4)
    standardised = torch.from_numpy((features - features.mean(axis=0)) / features.std(axis=0)).float()
    for batch, some in seen:
        mine, standardised = standardised[: len(batch)], standardised[len(batch) :]
        with torch.no_grad():
            torch.testing.assert_close(
                readout(encoder, batch, some), readout.head(mine.flatten(1)), rtol=1e-3, atol=1e-4
            )


@pytest.mark.parametrize("build", [mamba, labram])
@settings(max_examples=10)
@given(data=st.data())
def test_order_and_padding_of_channels_and_windows_change_nothing(
    toy_signal: SignalSpec, toy_eeg: Any, build: Any, data: st.DataObject
) -> None:
    encoder, batch = build(toy_signal), replace(toy_eeg(4), deviation=20 + torch.arange(24.0).reshape(4, 6))
    order = list(data.draw(st.permutations(range(8))))
    n_more = data.draw(st.sampled_from([0, 20, 60]))
    eeg = 500 * torch.randn(4, 8, 200 + n_more, generator=torch.Generator().manual_seed(0))
    channel = torch.full((4, 8), -1)
    deviation = torch.full((4, 8), 9.0)
    eeg[:, :6, :200], channel[:, :6], deviation[:, :6] = batch.eeg, batch.channel, batch.deviation
    other = replace(batch, eeg=eeg[:, order], channel=channel[:, order], deviation=deviation[:, order], is_padded=True)
    for way in WAYS:
        readout, same = (started(encoder, tokens_of(encoder, one), way) for one in (batch, other))
        torch.testing.assert_close(same.scale, readout.scale, rtol=1e-3, atol=1e-4)
        with torch.no_grad():
            outputs = readout(encoder, batch)
            torch.testing.assert_close(readout(encoder, other), outputs, rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(same(encoder, batch), outputs, rtol=1e-2, atol=1e-2)


def test_it_does_not_matter_how_samples_are_shared_among_batches_nor_what_their_labels_are(
    toy_signal: SignalSpec, toy_eeg: Any
) -> None:
    encoder, batches = mamba(toy_signal), [toy_eeg(4, 0), toy_eeg(4, 1)]
    other = [replace(batch, targets={name: -value for name, value in batch.targets.items()}) for batch in batches]
    rows = ("eeg", "channel", "n_valid", "key", "sample", "recording", "participant", "pair")
    parts = [
        replace(batch, **{name: getattr(batch, name)[some] for name in rows}, targets={}, known={})
        for batch in batches
        for some in (slice(1), slice(1, 4))
    ]
    whole, split, flipped = (
        started(encoder, tokens_of(encoder, *some), "asymmetry") for some in (batches, parts, other)
    )
    torch.testing.assert_close(split.scale, whole.scale, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(split.centre, whole.centre, rtol=1e-4, atol=1e-5)
    assert torch.equal(flipped.axes, whole.axes)


def test_an_asymmetry_is_right_minus_left_and_what_a_recording_lacks_counts_as_average(
    toy_signal: SignalSpec, toy_eeg: Any
) -> None:
    encoder = mamba(toy_signal)
    batch = toy_eeg(6)
    ((_, tokens),) = seen = tokens_of(encoder, batch)
    readout = started(encoder, seen, "asymmetry")
    power = powers_by_hand(tokens, readout.axes.double().numpy())
    features = np.stack([power[:, 1] - power[:, 0], power[:, 3] - power[:, 2]], axis=1)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    with torch.no_grad():
        expected = readout.head(torch.from_numpy(features).float().flatten(1))
        torch.testing.assert_close(readout(encoder, batch, tokens), expected, rtol=1e-3, atol=1e-3)
        features[:, 0] = 0.0
        one_side = replace(batch, channel=torch.tensor([[-1, 1, 2, 3, 4, 5]]).repeat(6, 1), is_padded=True)
        expected = readout.head(torch.from_numpy(features).float().flatten(1))
        torch.testing.assert_close(readout(encoder, one_side, tokens), expected, rtol=1e-3, atol=1e-3)
    lacking = started(encoder, [*seen, (one_side, tokens)], "asymmetry")
    power = powers_by_hand(tokens, lacking.axes.double().numpy())
    np.testing.assert_allclose(lacking.centre[0], (power[:, 1] - power[:, 0]).mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(lacking.scale[0], (power[:, 1] - power[:, 0]).std(axis=0), rtol=1e-3)


def test_power_is_in_microvolts_although_the_encoder_standardises(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder = mamba(toy_signal)
    batch = replace(toy_eeg(4), deviation=torch.full((4, 6), 30.0))
    louder = replace(batch, eeg=2 * batch.eeg, deviation=2 * batch.deviation)
    quiet, loud = (started(encoder, tokens_of(encoder, one)) for one in (batch, louder))
    torch.testing.assert_close(loud.centre - quiet.centre, torch.full((6, K), float(np.log(2))), rtol=1e-3, atol=1e-3)


def test_a_rhythm_that_single_numbers_of_a_token_mix_with_a_louder_one_has_axes_of_its_own(
    toy_signal: SignalSpec, toy_eeg: Any
) -> None:
    encoder, batch = labram(toy_signal), toy_eeg(40)
    draw = np.random.default_rng(0)
    n_tokens, width = 10, encoder.d_model
    mixing = np.linalg.qr(draw.normal(size=(width, 4)))[0]
    strength = np.stack([np.full((40, 6), 10.0), draw.lognormal(0, 0.3, (40, 6))], axis=-1).repeat(2, axis=-1)
    sources = strength[:, :, None] * draw.normal(size=(40, 6, n_tokens, 4))
    tokens = torch.from_numpy(sources @ mixing.T).float()
    readout = started(encoder, [(batch, tokens)], k=4)
    readout.trim = 0.0  # of ten tokens every one is wanted here
    power, known = readout._features(encoder, batch, tokens)
    assert bool(known.all())
    planted = np.log(strength[..., 2]).ravel()
    with_axes = max(abs(np.corrcoef(power[..., k].numpy().ravel(), planted)[0, 1]) for k in range(4))
    single = powers_by_hand(tokens, np.eye(width), trim=0.0)
    without = max(abs(np.corrcoef(single[..., k].ravel(), planted)[0, 1]) for k in range(width))
    assert with_axes > 0.7 > 0.5 > without


def of_rhythms(recordings: int, n_channels: int, width: int, n_rhythms: int) -> tuple[Tensor, np.ndarray[Any, Any]]:
    """Tokens (R, C, 40, D) of rhythms whose directions are not at right angles, and the log of their strengths."""
    draw = np.random.default_rng(0)
    mixing = draw.normal(size=(n_rhythms, width)) + 1.5 * draw.normal(size=width)  # they share much of their direction
    strength = draw.lognormal(0, 0.5, (recordings, n_channels, 1, n_rhythms))
    sources = strength * draw.normal(size=(recordings, n_channels, 40, n_rhythms))
    return torch.from_numpy(sources @ mixing).float(), np.log(strength[:, :, 0])


def test_joint_axes_lie_in_the_principal_plane_and_tell_rhythms_apart_that_vary_apart(
    toy_signal: SignalSpec, toy_eeg: Any
) -> None:
    encoder, batch = mamba(toy_signal), toy_eeg(40)
    tokens, planted = of_rhythms(40, 6, encoder.d_model, 4)
    batch = replace(batch, eeg=batch.eeg.repeat(1, 1, 2), n_valid=batch.n_valid * 2)
    readouts = {name: started(encoder, [(batch, tokens)], k=4, components=name) for name in ("joint", "principal")}
    joint, principal = (readouts[name].axes.double() for name in ("joint", "principal"))
    torch.testing.assert_close(principal @ (principal.T @ joint), joint, rtol=0, atol=1e-5)
    torch.testing.assert_close(joint.norm(dim=0), torch.ones(4).double(), rtol=0, atol=1e-5)
    nearest = {}
    for name, readout in readouts.items():
        readout.trim = 0.0
        power = readout._features(encoder, batch, tokens)[0].flatten(0, 1).numpy()
        both = np.corrcoef(power.T, planted.reshape(-1, 4).T)[:4, 4:]
        nearest[name] = np.abs(both).max(axis=0).min()
    assert nearest["joint"] > 0.95 > 0.8 > nearest["principal"]


def test_samples_of_one_recording_count_as_one_wherever_they_stand(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, batch = mamba(toy_signal), toy_eeg(40)
    tokens, _ = of_rhythms(40, 6, encoder.d_model, K)
    batch = replace(batch, eeg=batch.eeg.repeat(1, 1, 2), n_valid=batch.n_valid * 2, recording=torch.arange(40))
    half = replace(batch, eeg=toy_eeg(40).eeg, n_valid=batch.n_valid // 2)
    whole = started(encoder, [(batch, tokens)])
    halves = started(encoder, [(half, tokens[:, :, :20]), (half, tokens[:, :, 20:])])
    torch.testing.assert_close(halves.axes, whole.axes, rtol=0, atol=1e-4)
    others = replace(half, recording=half.recording + 40)
    apart = started(encoder, [(half, tokens[:, :, :20]), (others, tokens[:, :, 20:])])
    assert float((apart.axes - whole.axes).abs().max()) > 1e-3


def test_recordings_of_few_tokens_turn_no_axes(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    """The covariance of three tokens lacks axes, and would outweigh all others."""
    encoder, batch = mamba(toy_signal), toy_eeg(40)
    tokens, _ = of_rhythms(40, 6, encoder.d_model, K)
    batch = replace(batch, eeg=batch.eeg.repeat(1, 1, 2), n_valid=batch.n_valid * 2)
    short = replace(toy_eeg(1), eeg=toy_eeg(1).eeg[:, :, :30], n_valid=torch.tensor([30]), recording=torch.tensor([99]))
    few = tokens[:1, :, :3] + 0.1 * torch.randn(1, 6, 3, encoder.d_model, generator=torch.Generator().manual_seed(0))
    without, with_it = started(encoder, [(batch, tokens)]), started(encoder, [(batch, tokens), (short, few)])
    cosine = (with_it.axes.T @ without.axes).abs().amax(dim=0)
    assert float(cosine.min()) > 0.995


@pytest.mark.parametrize("way", WAYS)
def test_it_follows_bfloat16_and_rows_of_nothing_but_padding_are_finite(
    toy_signal: SignalSpec, toy_eeg: Any, way: str
) -> None:
    encoder, batch = labram(toy_signal), toy_eeg(8)
    readout = started(encoder, tokens_of(encoder, batch), way)
    with torch.no_grad():
        exact = readout(encoder, batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = readout(encoder, batch).float()
        empty = replace(batch, channel=torch.full_like(batch.channel, -1), is_padded=True)
        torch.testing.assert_close(readout(encoder, empty), readout.head.bias.expand(8, 3))
    assert float((rounded - exact).norm() / exact.norm()) < 0.1
    nothing = started(encoder, tokens_of(encoder, empty), way)
    assert bool(nothing(encoder, batch).isfinite().all())


def test_a_burst_in_one_segment_takes_no_part(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, batch = mamba(toy_signal), toy_eeg(20)
    tokens = torch.randn(20, 6, 20, 16, generator=torch.Generator().manual_seed(0))
    burst = tokens.clone()
    burst[:, :, 4:8] *= 30  # a movement
    quiet = started(encoder, [(batch, tokens)], k=2, components="principal")
    before, after = (quiet._features(encoder, batch, some)[0] for some in (tokens, burst))
    assert float((after - before).abs().max()) < 0.7, "one of three quiet segments took its place"
    quiet.trim = 0.0
    louder = quiet._features(encoder, batch, burst)[0] - before
    assert float(louder.median()) > 2, "half the logarithm of (900 + 4) / 5 is 2.6"


def test_a_state_dict_makes_another_head_equal(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder, batch = mamba(toy_signal), toy_eeg(4)
    first, second = (
        started(encoder, tokens_of(encoder, batch)),
        PowerReadout(encoder, toy_signal, 3, K, "concat", SEGMENT, TRIM).eval(),
    )
    with torch.no_grad():
        assert not torch.allclose(first(encoder, batch), second(encoder, batch))
        second.load_state_dict(first.state_dict(), strict=True)
        assert torch.equal(first(encoder, batch), second(encoder, batch))


def test_tokens_that_are_not_finite_are_refused_in_one_line(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder = mamba(toy_signal)
    ((batch, tokens),) = tokens_of(encoder, toy_eeg(3))
    tokens[0, 0, 0, 0] = torch.nan
    with pytest.raises(DataError, match="tokens of the training samples are not finite"):
        started(encoder, [(batch, tokens)])


def test_what_cannot_be_is_refused_in_one_line(toy_signal: SignalSpec) -> None:
    encoder = mamba(toy_signal)
    with pytest.raises(ConfigError, match=r"n_components=17 must be from 1 to 16, the width of a token"):
        PowerReadout(encoder, toy_signal, 2, n_components=17)
    with pytest.raises(ConfigError, match=r"segment_tokens=1 leaves no variance; set it to 2 or more, or 0"):
        PowerReadout(encoder, toy_signal, 2, segment_tokens=1)
    for trim, segment in ((1.0, 4), (-0.1, 4), (0.1, 0)):
        with pytest.raises(ConfigError, match=rf"trim={trim:g} with segment_tokens={segment} leaves out no share"):
            PowerReadout(encoder, toy_signal, 2, n_components=4, segment_tokens=segment, trim=trim)
    PowerReadout(encoder, toy_signal, 2, n_components=4, segment_tokens=0, trim=0.0)
    with pytest.raises(ConfigError, match=r"n_components=0 must be from 1 to 16"):
        PowerReadout(encoder, toy_signal, 2, n_components=0)
    nameless = mamba(replace(toy_signal, channels=tuple(f"E{number}" for number in range(1, 7))))
    with pytest.raises(ConfigError, match=r"no two of E1, .* are homologous"):
        PowerReadout(nameless, nameless.signal, 2, n_components=4)
