"""Signal-JEPA's encoder: braindecode's numbers, from a file and, where it can be imported, from the program itself."""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cerebro.encoders import SignalJEPA
from cerebro.errors import ConfigError
from cerebro.montage import hbn_129
from cerebro.signal import EEGBatch, SignalSpec

State = Callable[[str], dict[str, Tensor]]


@pytest.fixture(scope="module")
def numbers(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "signal_jepa.safetensors")


def encoder_part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("transformer.decoder.")}


def test_base_has_braindecodes_names_and_numbers_of_parameters() -> None:
    encoder = SignalJEPA(signal_of(hbn(), 200))
    counts: dict[str, list[int]] = {}
    for name, value in encoder.state_dict().items():
        counts.setdefault(name.split(".")[0], []).append(value.numel())
    found = {part: (sum(sizes), len(sizes)) for part, sizes in counts.items()}
    assert found == {"feature_encoder": (13_840, 7), "pos_encoder": (3_870, 1), "transformer": (2_249_344, 98)}


def test_tokens_are_braindecodes(
    signal_jepa_state: State, signal_jepa_input: EEGBatch, signal_jepa_signal: SignalSpec, numbers: dict[str, Tensor]
) -> None:
    encoder, batch = SignalJEPA(signal_jepa_signal).eval(), signal_jepa_input
    torch.testing.assert_close(
        encoder.state_dict()["pos_encoder.pos_encoder_spat.weight"], numbers["initial_table"], rtol=0, atol=1e-6
    )
    encoder.load_state_dict(encoder_part(signal_jepa_state("base")), strict=True)
    with torch.no_grad():
        local = encoder.embed(batch)
        torch.testing.assert_close(local.flatten(1, 2), numbers["local"], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(encoder.positions(batch).flatten(1, 2), numbers["positions"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(encoder(batch).flatten(1, 2), numbers["tokens"], rtol=1e-4, atol=1e-5)


def test_braindecodes_own_module_gives_the_same_tokens() -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from braindecode.models import SignalJEPA as Theirs
    except (ImportError, OSError) as error:
        pytest.skip(f"braindecode cannot be imported here ({type(error).__name__}); the stored numbers stand for it")
    signal = signal_of(hbn(), 300)
    places = [{"ch_name": n, "loc": list(p)} for n, p in zip(signal.channels, signal.positions, strict=True)]
    torch.manual_seed(0)
    theirs = Theirs(n_chans=129, n_times=300, sfreq=100, chs_info=places).eval()
    ours = SignalJEPA(signal).eval()
    table = "pos_encoder.pos_encoder_spat.weight"
    torch.testing.assert_close(ours.state_dict()[table], theirs.state_dict()[table], rtol=0, atol=1e-6)
    ours.load_state_dict(encoder_part(theirs.state_dict()), strict=True)
    batch = batch_of(signal, 20 * torch.randn(2, 129, 300))
    with torch.no_grad():
        torch.testing.assert_close(ours(batch).flatten(1, 2), theirs(batch.eeg.clone()), rtol=1e-4, atol=1e-5)


def test_two_seconds_give_one_token_per_channel_and_sixteen_twelve() -> None:
    encoder = SignalJEPA(signal_of(hbn(), 200), depth=0)
    assert [encoder.n_patches(n) for n in (151, 152, 200, 279, 280, 1600)] == [0, 1, 1, 1, 2, 12]


def test_a_window_shorter_than_a_token_says_how_many_samples_tokens_take() -> None:
    with pytest.raises(
        ConfigError, match=r"140 samples .*sees 152: 152 samples \(1.52 s\) give 1 token, 536 .* 4 tokens"
    ):
        SignalJEPA(signal_of(hbn(), 140))


@pytest.mark.parametrize("lost", [(math.nan, 0.0, 0.0), (0.0, 0.0, 0.0)])
def test_a_channel_without_a_position_is_refused_by_name(lost: tuple[float, float, float]) -> None:
    signal = signal_of(hbn(), 200)
    signal = replace(signal, positions=(*signal.positions[:5], lost, *signal.positions[6:]))
    with pytest.raises(ConfigError, match=r"1 of 129 channels have no position \(E6\).*depth: 0"):
        SignalJEPA(signal)
    SignalJEPA(signal, depth=0)  # the convolutions ask for no position


@pytest.mark.parametrize(("wrong", "said"), [({"place_width": 20}, r"one of \[6, 12,"), ({"n_heads": 5}, "n_heads=5")])
def test_sizes_that_do_not_fit_are_refused(wrong: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SignalJEPA(signal_of(hbn(), 200), depth=1, **wrong)


def test_hidden_tokens_tell_only_where_they_are(toy_signal: SignalSpec, toy_eeg: Any) -> None:
    encoder = SignalJEPA(toy_signal, ((8, 16, 8), (16, 8, 8)), depth=2, n_heads=2, feedforward=8, place_width=6).eval()
    batch = toy_eeg(2)
    hidden = torch.zeros(encoder.valid(batch).shape, dtype=torch.bool)
    hidden[:, 3, 1] = True
    local = encoder.embed(batch)
    with torch.no_grad():
        changed = torch.where(hidden[..., None], 99.0, local)
        assert torch.equal(encoder.mix(changed, batch, hidden), encoder.mix(local, batch, hidden))


def test_a_longer_window_than_the_first_gets_a_longer_time_code() -> None:
    signal = signal_of(hbn()[:6], 152)
    encoder = SignalJEPA(signal, depth=1).eval()
    long = batch_of(signal, torch.randn(1, 6, 600))
    with torch.no_grad():
        torch.testing.assert_close(
            encoder.positions(long), SignalJEPA(signal_of(hbn()[:6], 600), depth=1).positions(long)
        )


def test_hours_of_tokens_do_not_repeat_a_time_code() -> None:
    from cerebro.nn.positions import time_code

    distance = torch.cdist(time_code(600, 34), time_code(600, 34)) + 9 * torch.eye(600)
    assert float(distance.min()) > 0.1


def hbn() -> tuple[tuple[str, tuple[float, float, float]], ...]:
    cap = hbn_129()
    return tuple((name, tuple(map(float, place))) for name, place in zip(cap.channels, cap.positions, strict=True))


def signal_of(places: tuple[tuple[str, tuple[float, float, float]], ...], n_times: int) -> SignalSpec:
    names, positions = zip(*places, strict=True)
    return SignalSpec(names, positions, 100.0, n_times)


def batch_of(signal: SignalSpec, eeg: Tensor) -> EEGBatch:
    n_batch, n_channels, n_times = eeg.shape
    rows = torch.arange(n_batch)
    channel = torch.from_numpy(np.tile(np.arange(n_channels), (n_batch, 1)))
    n_valid = torch.full((n_batch,), n_times)
    return EEGBatch(eeg, channel, n_valid, rows, rows, rows, rows, rows, is_padded=False)
