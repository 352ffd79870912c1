"""Tokens of windows that a frozen encoder gave before: a table in memory, and a file that keeps it."""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cerebro.encoders.base import Encoder
from cerebro.files import write_atomically
from cerebro.nn.sample_rows import SampleRows
from cerebro.signal import EEGBatch


@dataclass(frozen=True)
class Outline:
    """Windows whose tokens are wanted, and how many each has; known without a look at the signals.

    Parameters
    ----------
    sample : int64 (W,)
        Numbers of the windows (``EEGBatch.sample``), ascending, each once.
    n_channels, n_tokens : int64 (W,)
        Channels, and tokens of each up to the last one that is not padding.
    """

    sample: Int64[Tensor, " W"]
    n_channels: Int64[Tensor, " W"]
    n_tokens: Int64[Tensor, " W"]

    @property
    def end(self) -> Int64[Tensor, " W"]:
        """Row behind the last token of each window, where all tokens stand one below the other."""
        return (self.n_channels * self.n_tokens).cumsum(0)

    @property
    def n_rows(self) -> int:
        """Tokens of all windows."""
        return int((self.n_channels * self.n_tokens).sum())

    def plain(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        return {"sample": self.sample, "n_channels": self.n_channels, "n_tokens": self.n_tokens}


class FrozenTokens:
    """Tokens by the number of their window, of any number for each window; zeros stand where a batch is padded.

    Parameters
    ----------
    outline : Outline
        Windows and their sizes.
    values : (R, D)
        Tokens of the windows, one below the other: those of the first channel of the first window, of its second ...
    """

    def __init__(self, outline: Outline, values: Float[Tensor, "R D"]) -> None:
        device = values.device
        self.values = values
        self._n_tokens = outline.n_tokens.to(device)
        self._first = (outline.end - outline.n_channels * outline.n_tokens).to(device)
        self._rows = SampleRows(outline.sample.to(device))

    def of(self, encoder: Encoder, batch: EEGBatch) -> Float[Tensor, "B C N D"]:
        """What ``encoder(batch)`` gives, but zeros for padding."""
        _, n_channels, n_most = encoder.valid(batch).shape
        place = self._rows.of(batch.sample.to(self.values.device))
        first, n_tokens = self._first[place], self._n_tokens[place]
        channel = torch.arange(n_channels, device=place.device)
        token = torch.arange(n_most, device=place.device)
        row = first[:, None, None] + channel[:, None] * n_tokens[:, None, None] + token  # (B, C, N)
        is_padding = token >= n_tokens[:, None, None]
        tokens = self.values[row.masked_fill(is_padding, 0)]
        if bool(is_padding.any()):
            tokens = tokens.masked_fill(is_padding[..., None], 0.0)
        return tokens.to(batch.sample.device)


def write_tokens(path: Path, outline: Outline, tokens: FrozenTokens, key: str) -> None:
    """Write the file atomically: safetensors, the key and a checksum in its metadata."""
    from safetensors.torch import save  # late, as in `cerebro.training.foreign`

    tensors = {**outline.plain(), "values": tokens.values.cpu()}
    content = save(tensors, {"key": key, "crc32c": _checksum(tensors)})
    write_atomically(path, lambda file: _write(file, content), len(content))


def read_tokens(path: Path, key: str, device: torch.device) -> tuple[FrozenTokens | None, str]:
    """Tokens of a file, if it is whole and its key is this one; else why not, to be said behind another sentence."""
    from safetensors import SafetensorError, safe_open  # late, as in `cerebro.training.foreign`

    if not path.is_file():
        return None, ""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("key") != key:
                return None, "; those that lie there are of other weights, data or windows, and are replaced"
            tensors = {name: file.get_tensor(name) for name in ("sample", "n_channels", "n_tokens", "values")}
    except (SafetensorError, OSError):
        return None, "; the file that lies there is damaged, and is replaced"
    if metadata.get("crc32c") != _checksum(tensors):
        return None, "; the file that lies there is damaged, and is replaced"
    values = tensors.pop("values")
    return FrozenTokens(Outline(**tensors), values.to(device)), ""


def _checksum(tensors: dict[str, Tensor]) -> str:
    checksum = 0
    for name in sorted(tensors):
        flat = tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy()
        checksum = google_crc32c.extend(checksum, flat)
    return f"{checksum:08x}"


def _write(file: BinaryIO, content: bytes) -> None:
    file.write(content)
