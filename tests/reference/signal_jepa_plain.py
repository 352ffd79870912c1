"""Signal-JEPA's encoder from stock layers of torch, as published: a peer for time and memory, and for results.

Names and shapes of the tensors are those of `cerebro.encoders.SignalJEPA`, so that its state dict loads as it is. Full
windows without padding only, channels in the order of the table.
"""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

CONV_LAYERS = ((8, 32, 8), (16, 2, 2), (32, 2, 2), (64, 2, 2), (64, 2, 2))  # (channels, kernel, stride)
WIDTH, PLACE_WIDTH, N_HEADS, DEPTH, HIDDEN = 64, 30, 8, 8, 2048


class Places(nn.Module):
    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.pos_encoder_spat = nn.Embedding(n_channels, PLACE_WIDTH)


class PlainSignalJEPA(nn.Module):
    """(B, C, T) microvolts to contextual tokens (B, C N, D); dropout is that of ``torch.nn.Transformer``."""

    def __init__(self, n_channels: int, dropout: float = 0.1) -> None:
        super().__init__()
        blocks, n_inputs = [], 1
        for number, (n_maps, kernel, stride) in enumerate(CONV_LAYERS, start=1):
            conv = nn.Conv1d(n_inputs, n_maps, kernel, stride, bias=False)
            norm = [nn.GroupNorm(n_maps, n_maps)] if number == 1 else []
            blocks.append((str(number), nn.Sequential(conv, nn.Dropout(0.0), *norm, nn.GELU())))
            n_inputs = n_maps
        self.feature_encoder = nn.Sequential(OrderedDict(blocks))
        self.pos_encoder = Places(n_channels)
        stock = nn.Transformer(WIDTH, N_HEADS, DEPTH, 1, HIDDEN, dropout, batch_first=True)
        self.transformer = nn.ModuleDict({"encoder": stock.encoder})

    def forward(self, eeg: Tensor) -> Tensor:
        n_batch, n_channels, n_times = eeg.shape
        features = self.feature_encoder(eeg.reshape(n_batch * n_channels, 1, n_times))  # (B C, D, N)
        local = features.transpose(1, 2).reshape(n_batch, n_channels, -1, WIDTH)
        placed = local + self.positions(n_channels, local.shape[2])
        mixed: Tensor = self.transformer["encoder"](placed.flatten(1, 2))
        return mixed

    def positions(self, n_channels: int, n_tokens: int) -> Tensor:
        """Codes of place and time, (C, N, D)."""
        width = WIDTH - PLACE_WIDTH
        rate = torch.exp(torch.arange(0, width, 2) * (-math.log(600) / width))
        time = torch.empty(n_tokens, width)
        time[:, 0::2] = torch.sin(torch.arange(n_tokens)[:, None] * rate)
        time[:, 1::2] = torch.cos(torch.arange(n_tokens)[:, None] * rate)
        place = self.pos_encoder.pos_encoder_spat(torch.arange(n_channels))
        by_token = (place[:, None].expand(-1, n_tokens, -1), time.expand(n_channels, -1, -1))
        return torch.cat(by_token, dim=2)
