import pytest
import torch

from cerebro.errors import ConfigError
from cerebro.nn.waveform import WaveformEncoder, receptive_field


def test_signal_jepas_token_sees_152_samples_every_128() -> None:
    assert receptive_field(((8, 32, 8), (16, 2, 2), (32, 2, 2), (64, 2, 2), (64, 2, 2))) == (152, 128)


def test_a_token_depends_on_its_own_samples_but_for_the_norm() -> None:
    encoder = WaveformEncoder(((4, 8, 4), (6, 3, 2))).double()
    field, step = receptive_field(((4, 8, 4), (6, 3, 2)))
    eeg = torch.randn(1, 1, 60, dtype=torch.float64, requires_grad=True)
    encoder.train(False)
    features = encoder(eeg)
    assert features.shape == (1, 1, (60 - field) // step + 1, 6)
    block = next(iter(encoder.children()))
    assert isinstance(block, torch.nn.Sequential)
    block[2] = torch.nn.Identity()  # the norm looks at the whole window
    seen = torch.autograd.grad(encoder(eeg)[0, 0, 2].sum(), eeg)[0][0, 0].nonzero().flatten()
    assert (int(seen.min()), int(seen.max())) == (2 * step, 2 * step + field - 1)


def test_padding_has_no_part_in_the_norm() -> None:
    encoder = WaveformEncoder(((4, 8, 4), (6, 3, 2)))
    eeg = torch.randn(2, 3, 50)
    longer = torch.cat([eeg, torch.full((2, 3, 31), 1e3)], dim=2)
    found = encoder(longer, torch.tensor([50, 50]))
    torch.testing.assert_close(found[:, :, : encoder(eeg).shape[2]], encoder(eeg), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [(), ((8, 0, 8),), ((8, 32, 8), (-16, 2, 2))])
def test_impossible_layers_are_refused(layers: tuple[tuple[int, int, int], ...]) -> None:
    with pytest.raises(ConfigError, match=r"give \[channels, kernel, stride\]"):
        WaveformEncoder(layers)
