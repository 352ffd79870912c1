import pytest
import torch

from cerebro.errors import ConfigError
from cerebro.nn.patch import PatchEncoder, masked_group_norm
from cerebro.nn.pooling import mean_over_valid


@pytest.mark.parametrize(
    ("patch_samples", "stride", "conv_channels", "width"),
    [(200, 8, 8, 200), (100, 4, 8, 200), (100, 4, 2, 50), (100, 8, 8, 104), (50, 4, 4, 52)],
)
def test_the_width_is_steps_times_feature_maps(patch_samples: int, stride: int, conv_channels: int, width: int) -> None:
    patch = PatchEncoder(patch_samples, stride, conv_channels)
    assert patch.width == width
    assert patch(torch.randn(2, 3, patch_samples)).shape == (2, 3, width)


def test_masked_group_norm_equals_group_norm_without_padding() -> None:
    norm = torch.nn.GroupNorm(4, 8)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    maps = torch.randn(2, 8, 5, 6) * 3 + 1
    everything = torch.ones(2, 5, dtype=torch.bool)
    torch.testing.assert_close(masked_group_norm(maps, everything, norm), norm(maps), rtol=1e-4, atol=1e-5)


def test_masked_group_norm_leaves_padding_out_of_its_statistics() -> None:
    norm, maps = torch.nn.GroupNorm(4, 8), torch.randn(2, 8, 5, 6)
    valid = torch.tensor([[True, True, True, False, False]] * 2)
    torch.testing.assert_close(
        masked_group_norm(maps, valid, norm)[:, :, :3], norm(maps[:, :, :3]), rtol=1e-4, atol=1e-5
    )


def test_a_stride_longer_than_the_patch_is_refused() -> None:
    with pytest.raises(ConfigError, match="conv_stride=20"):
        PatchEncoder(10, 20, 4)


def test_the_mean_leaves_padding_out() -> None:
    tokens = torch.arange(12.0).view(1, 2, 3, 2)
    valid = torch.tensor([[[True, True, False], [False, False, False]]])
    assert mean_over_valid(tokens, valid).tolist() == [[1.0, 2.0]]
    assert mean_over_valid(tokens, torch.zeros_like(valid)).tolist() == [[0.0, 0.0]]
