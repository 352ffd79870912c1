import pytest
import torch
from torch import nn

from cerebro.errors import ConfigError
from cerebro.nn.attention import Attention, Block, DropPath


def test_attention_equals_pytorchs_own() -> None:
    attention = Attention(24, 4, qkv_bias=True, qk_norm=False)
    assert attention.q_bias is not None
    assert attention.v_bias is not None
    nn.init.normal_(attention.q_bias)
    nn.init.normal_(attention.v_bias)
    reference = nn.MultiheadAttention(24, 4, batch_first=True)
    bias = torch.cat([attention.q_bias, torch.zeros(24), attention.v_bias])
    reference.load_state_dict(
        {
            "in_proj_weight": attention.qkv.weight.data,
            "in_proj_bias": bias.detach(),
            "out_proj.weight": attention.proj.weight.data,
            "out_proj.bias": attention.proj.bias.data,
        }
    )
    x = torch.randn(2, 7, 24)
    valid = torch.arange(7).expand(2, -1) < torch.tensor([[7], [4]])
    with torch.no_grad():
        theirs = reference(x, x, x, key_padding_mask=~valid, need_weights=False)[0]
        torch.testing.assert_close(attention(x, valid), theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize("layer_scale", [0.0, 0.1])
def test_a_block_gives_the_same_for_some_outputs_as_for_all(qk_norm: bool, qkv_bias: bool, layer_scale: float) -> None:
    block = Block(24, 4, qkv_bias=qkv_bias, qk_norm=qk_norm, layer_scale=layer_scale)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    x, out = torch.randn(2, 7, 24), torch.tensor([[6, 0, 2], [1, 1, 5]])
    with torch.no_grad():
        full = block(x)
        torch.testing.assert_close(block(x, None, out), torch.stack([full[0, out[0]], full[1, out[1]]]))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match=r"n_heads=7 does not divide the width 50; .*\[1, 2, 5, 10, 25, 50\]"):
        Attention(50, 7)


def test_drop_path_keeps_the_mean_and_does_nothing_in_evaluation() -> None:
    drop, ones = DropPath(0.25), torch.ones(4000, 1, 1)
    torch.manual_seed(0)
    dropped = drop(ones)
    assert sorted(set(dropped.flatten().tolist())) == [0.0, pytest.approx(4 / 3)]
    assert float(dropped.mean()) == pytest.approx(1, abs=0.05)
    assert drop.eval()(ones) is ones
