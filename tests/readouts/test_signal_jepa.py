"""Signal-JEPA's heads: braindecode's numbers, and what padding, order and short windows must not change."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cerebro.encoders import AdaptedEncoder, SignalJEPA
from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError
from cerebro.montage import hbn_129
from cerebro.readouts import Contextual, PostLocal, PreLocal, Readout
from cerebro.signal import EEGBatch, SignalSpec

State = Callable[[str], dict[str, Tensor]]
HEADS = {"prelocal": PreLocal, "postlocal": PostLocal, "contextual": Contextual}
DEPTH = {"prelocal": 0, "postlocal": 0, "contextual": 8}
BEHIND = {
    "final_layer.spat_conv.weight": "spatial_weight",
    "final_layer.spat_conv.bias": "spatial_bias",
    "final_layer.linear.weight": "head.weight",
    "final_layer.linear.bias": "head.bias",
}
OURS = {  # braindecode's names of a head's tensors
    "prelocal": {
        "spatial_conv.1.weight": "spatial_weight",
        "spatial_conv.1.bias": "spatial_bias",
        "final_layer.1.weight": "head.weight",
        "final_layer.1.bias": "head.bias",
    },
    "postlocal": BEHIND,
    "contextual": BEHIND,
}


@pytest.fixture(params=HEADS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def built(kind: str, signal_jepa_state: State, signal_jepa_signal: SignalSpec) -> tuple[Encoder, Readout]:
    """Encoder and head with the weights of braindecode's run, every tensor of which has its place."""
    encoder = SignalJEPA(signal_jepa_signal, depth=DEPTH[kind])
    head = HEADS[kind](encoder, signal_jepa_signal, 3)
    names, own = OURS[kind], head.state_dict()
    theirs = {name: v for name, v in signal_jepa_state(kind).items() if not name.startswith("transformer.decoder.")}
    encoder.load_state_dict({name: value for name, value in theirs.items() if name not in names}, strict=True)
    head.load_state_dict({ours: theirs[name].reshape(own[ours].shape) for name, ours in names.items()}, strict=True)
    return encoder.eval(), head.eval()


def outputs(built: tuple[Encoder, Readout], batch: EEGBatch) -> Tensor:
    encoder, head = built
    with torch.no_grad():
        return head(encoder, batch)


def test_outputs_are_braindecodes(
    kind: str, built: tuple[Encoder, Readout], signal_jepa_input: EEGBatch, golden: Path
) -> None:
    expected = load_file(golden / "signal_jepa.safetensors")[kind]
    torch.testing.assert_close(outputs(built, signal_jepa_input), expected, rtol=1e-4, atol=1e-5)


def test_channels_are_known_by_their_number(built: tuple[Encoder, Readout], signal_jepa_input: EEGBatch) -> None:
    batch = signal_jepa_input
    order = torch.tensor([[5, 0, 7, 2, 1, 3, 6, 4], [1, 0, 3, 2, 5, 4, 7, 6]])  # each window has its own
    shuffled = replace(
        batch, eeg=batch.eeg.gather(1, order[..., None].expand_as(batch.eeg)), channel=batch.channel.gather(1, order)
    )
    plain = outputs(built, batch)
    torch.testing.assert_close(outputs(built, shuffled), plain, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(outputs(built, replace(shuffled, channel=batch.channel)), plain, atol=1e-2)


def test_padding_is_as_good_as_absent(built: tuple[Encoder, Readout], signal_jepa_input: EEGBatch) -> None:
    """Some channels and the end of a window missing, or filled with numbers that must not matter."""
    n_channels, n_times = 5, 410  # three of four tokens
    short = replace(
        signal_jepa_input,
        eeg=signal_jepa_input.eeg[:, 2 : 2 + n_channels, :n_times],
        channel=signal_jepa_input.channel[:, 2 : 2 + n_channels],
        n_valid=torch.full((2,), n_times),
    )
    eeg = 37 * torch.randn(signal_jepa_input.eeg.shape, generator=torch.Generator().manual_seed(0))
    eeg[:, :n_channels, :n_times] = short.eeg
    channel = torch.full_like(signal_jepa_input.channel, -1)
    channel[:, :n_channels] = short.channel
    expected = outputs(built, short)
    torch.testing.assert_close(
        outputs(built, replace(short, eeg=eeg, channel=channel, is_padded=True)), expected, rtol=1e-4, atol=1e-4
    )
    assert not torch.allclose(outputs(built, signal_jepa_input), expected, atol=1e-2)


def test_tokens_that_a_short_window_lacks_are_zeros(
    kind: str, built: tuple[Encoder, Readout], signal_jepa_input: EEGBatch
) -> None:
    encoder, head = built
    assert isinstance(head, HEADS[kind])
    short = replace(signal_jepa_input, eeg=signal_jepa_input.eeg[..., :410], n_valid=torch.full((2,), 410))
    before = outputs(built, short)
    with torch.no_grad():
        head.head.weight.view(3, 4, 4, encoder.d_model)[:, :, 3] += 1.0  # (outputs, filters, tokens, width)
    assert torch.equal(outputs(built, short), before)
    with torch.no_grad():
        head.head.weight.view(3, 4, 4, encoder.d_model)[:, :, 2] += 1.0
    assert not torch.allclose(outputs(built, short), before)


def test_a_window_of_nothing_but_padding_gives_the_bias(
    kind: str, built: tuple[Encoder, Readout], signal_jepa_input: EEGBatch
) -> None:
    channel = signal_jepa_input.channel.clone()
    channel[1] = -1
    found = outputs(built, replace(signal_jepa_input, channel=channel, is_padded=True))
    head = built[1]
    assert isinstance(head, HEADS[kind])
    assert torch.equal(found[1], head.head.bias)
    torch.testing.assert_close(found[0], outputs(built, signal_jepa_input)[0], rtol=1e-4, atol=1e-4)


def test_a_longer_window_without_padding_is_refused(
    built: tuple[Encoder, Readout], signal_jepa_input: EEGBatch
) -> None:
    long = torch.cat([signal_jepa_input.eeg, signal_jepa_input.eeg], dim=2)
    with pytest.raises(ConfigError, match=r"9 tokens per channel and the readout was built for 4.*duration_s"):
        outputs(built, replace(signal_jepa_input, eeg=long, n_valid=torch.full((2,), long.shape[2])))


def test_bfloat16_stays_close_to_float32(built: tuple[Encoder, Readout], signal_jepa_input: EEGBatch) -> None:
    exact = outputs(built, signal_jepa_input)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = outputs(built, signal_jepa_input).float()
    assert float((rounded - exact).norm() / exact.norm()) < 0.03


def test_what_all_channels_share_is_kept_exactly_in_bfloat16(toy_signal: SignalSpec) -> None:
    """An offset of a millivolt that the filter takes away leaves no rounding error behind."""
    encoder = SignalJEPA(toy_signal, depth=0)
    head, rows = PreLocal(encoder, toy_signal, 1), torch.arange(1)
    with torch.no_grad():
        head.spatial_weight -= head.spatial_weight.mean(dim=1, keepdim=True)
    eeg = torch.randn(1, 6, 200, generator=torch.Generator().manual_seed(0))
    batch = EEGBatch(eeg, torch.arange(6)[None], rows + 200, rows, rows, rows, rows, rows, is_padded=False)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found, offset = head(encoder, batch).float(), head(encoder, replace(batch, eeg=eeg + 1000)).float()
    torch.testing.assert_close(offset, found, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("kind", ["prelocal", "postlocal"])
def test_local_heads_have_14617_parameters_on_two_seconds_of_129_channels(kind: str) -> None:
    signal = hbn(200)
    encoder = SignalJEPA(signal, depth=0)
    head = HEADS[kind](encoder, signal, 1)
    assert sum(p.numel() for module in (encoder, head) for p in module.parameters()) == 14_617
    shapes = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    assert shapes == {"spatial_weight": (4, 129), "spatial_bias": (4,), "head.weight": (1, 256), "head.bias": (1,)}


def test_the_contextual_head_adds_four_tensors() -> None:
    signal = hbn(1600)
    head = Contextual(SignalJEPA(signal, depth=1), signal, 2)
    shapes = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    assert shapes == {"spatial_weight": (4, 129), "spatial_bias": (4,), "head.weight": (2, 3072), "head.bias": (2,)}


def test_start_values_are_those_of_torchs_layers(kind: str) -> None:
    signal = hbn(1600)
    encoder = SignalJEPA(signal, depth=min(DEPTH[kind], 1))
    torch.manual_seed(0)
    head = HEADS[kind](encoder, signal, 2)
    torch.manual_seed(0)
    conv, linear = nn.Conv2d(1, 4, (129, 1)), nn.Linear(3072, 2)
    assert torch.equal(head.spatial_weight, conv.weight[:, 0, :, 0])
    assert torch.equal(head.spatial_bias, conv.bias)
    assert torch.equal(head.head.weight, linear.weight)


@pytest.mark.parametrize("head", [PreLocal, PostLocal])
def test_local_heads_refuse_a_transformer_that_would_not_run(head: type[Readout], toy_signal: SignalSpec) -> None:
    with pytest.raises(ConfigError, match=r"2 transformer layers would never run: set .*init_args.depth to 0"):
        head(SignalJEPA(toy_signal, depth=2), toy_signal, 1)


def test_the_contextual_head_refuses_an_encoder_without_a_transformer(toy_signal: SignalSpec) -> None:
    with pytest.raises(ConfigError, match=r"Contextual .*has none: set model.encoder.init_args.depth to 8"):
        Contextual(SignalJEPA(toy_signal, depth=0), toy_signal, 1)


def test_no_filter_and_foreign_electrodes_are_refused(kind: str, toy_signal: SignalSpec) -> None:
    depth = min(DEPTH[kind], 1)
    with pytest.raises(ConfigError, match=r"n_filters=0 leaves .*set n_filters to 1 or more"):
        HEADS[kind](SignalJEPA(toy_signal, depth=depth), toy_signal, 1, n_filters=0)
    adapted = AdaptedEncoder(toy_signal, lambda inner: SignalJEPA(inner, depth=depth), hbn_129, width=16)
    with pytest.raises(ConfigError, match="AdaptedEncoder gives tokens of other electrodes"):
        HEADS[kind](adapted, toy_signal, 1)


def hbn(n_times: int) -> SignalSpec:
    cap = hbn_129()
    return SignalSpec(cap.channels, tuple(tuple(map(float, place)) for place in cap.positions), 100.0, n_times)
