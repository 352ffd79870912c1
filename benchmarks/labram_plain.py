"""LaBraM's masked-code step written out plainly, on the parameters of our modules: a peer for memory and for results.

Attention holds its matrix, each of the two masks embeds the window anew, and every token goes through the last block
and the head, as the published training code does (arXiv:2405.18765). Full windows without padding only.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cerebro.encoders.labram import MICROVOLTS_PER_UNIT, LaBraM
from cerebro.nn.attention import Block
from cerebro.nn.transformer import TokenTransformer
from cerebro.objectives import MaskedCodes
from cerebro.signal import EEGBatch


def embed(encoder: LaBraM, batch: EEGBatch) -> Tensor:
    """Local tokens (B, C N, D)."""
    n_batch, n_channels, n_times = batch.eeg.shape
    n_patches = n_times // encoder.patch_samples
    x = (batch.eeg / MICROVOLTS_PER_UNIT).reshape(n_batch, 1, n_channels * n_patches, encoder.patch_samples)
    patch = encoder.patch
    for conv, norm in ((patch.conv1, patch.norm1), (patch.conv2, patch.norm2), (patch.conv3, patch.norm3)):
        x = F.gelu(norm(conv(x)))
    return x.permute(0, 2, 3, 1).reshape(n_batch, n_channels * n_patches, -1)


def block(part: Block, x: Tensor) -> Tensor:
    """One pre-norm block with its attention matrix in memory."""
    n_batch, n_tokens, width = x.shape
    attn = part.attn
    bias = None
    if attn.q_bias is not None and attn.v_bias is not None:
        bias = torch.cat([attn.q_bias, torch.zeros_like(attn.v_bias), attn.v_bias])
    qkv = F.linear(part.norm1(x), attn.qkv.weight, bias).reshape(n_batch, n_tokens, 3, attn.n_heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    q, k = attn.q_norm(q) * (width // attn.n_heads) ** -0.5, attn.k_norm(k)
    mixed = (q @ k.transpose(-2, -1)).softmax(dim=-1) @ v
    branch = attn.proj(mixed.transpose(1, 2).reshape(n_batch, n_tokens, width))
    x = x + (branch if part.gamma_1 is None else part.gamma_1 * branch)
    branch = part.fc2(F.gelu(part.fc1(part.norm2(x))))
    return x + (branch if part.gamma_2 is None else part.gamma_2 * branch)


def transform(transformer: TokenTransformer, x: Tensor, batch: EEGBatch) -> Tensor:
    """All tokens (B, C N, D) through all blocks."""
    n_batch, n_channels = batch.channel.shape
    n_patches = x.shape[1] // n_channels
    position = transformer.channel_embedding[batch.channel + 1]  # (B, C, D)
    at_class = position[:, 0] if transformer.class_position == "official" else transformer.channel_embedding[0]
    time = transformer.time_embedding[:n_patches]
    x = x + (position[:, :, None] + time).reshape(n_batch, n_channels * n_patches, -1)
    x = torch.cat([(transformer.class_token + at_class).expand(n_batch, -1)[:, None], x], dim=1)
    for part in transformer.blocks:
        assert isinstance(part, Block)
        x = block(part, x)
    return x[:, 1:]


def codes(objective: MaskedCodes, batch: EEGBatch) -> Tensor:
    """Codes of the frozen tokenizer (B, C N), by the distance to every code."""
    tokenizer = objective.tokenizer
    encoder, vqnsp = tokenizer.encoder, tokenizer.objective
    assert isinstance(encoder, LaBraM)
    with torch.no_grad():
        tokens = vqnsp.to_code(vqnsp.norm(transform(encoder.transformer, embed(encoder, batch), batch)))
        unit, weight = F.normalize(tokens, dim=-1), vqnsp.codebook.weight
        distance = (unit**2).sum(-1, keepdim=True) + (weight**2).sum(-1) - 2 * unit @ weight.T
        return distance.argmin(dim=-1)


def masked_codes_loss(encoder: LaBraM, objective: MaskedCodes, batch: EEGBatch, hidden: Tensor) -> Tensor:
    """Sum of the cross-entropies under a mask (B, C N) and under its complement."""
    wanted = codes(objective, batch)
    head: nn.Module = nn.Sequential(objective.norm, objective.head)
    total = torch.zeros(())
    for mask in (hidden, ~hidden):
        x = torch.where(mask[..., None], encoder.mask_token, embed(encoder, batch))
        logits = head(transform(encoder.transformer, x, batch))
        total = total + F.cross_entropy(logits[mask], wanted[mask])
    return total
