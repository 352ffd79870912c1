"""Signal-JEPA: convolutions per channel, place and time codes, a post-norm transformer over all channels and times."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError, check_between
from cerebro.nn.attention import take
from cerebro.nn.positions import PositionEncoder
from cerebro.nn.postnorm import DropoutAt, PostNormEncoder
from cerebro.nn.waveform import WaveformEncoder, receptive_field
from cerebro.signal import EEGBatch, SignalSpec

CONV_LAYERS = ((8, 32, 8), (16, 2, 2), (32, 2, 2), (64, 2, 2), (64, 2, 2))  # (channels, kernel, stride)


class SignalJEPA(Encoder):
    """Signal-JEPA's encoders (Guetschel, Moreau & Tangermann 2024, arXiv:2403.11772).

    A token is what the convolutions make of 152 samples of one channel; tokens are 128 samples apart. Names and shapes
    of the tensors are those of braindecode's ``SignalJEPA`` without its decoder, which is the predictor of
    `cerebro.objectives.JEPA` here. Input is microvolts, as there.

    Where a token is hidden its features are zero and its place and time stay: there is no learned mask token. The JEPA
    objective leaves hidden tokens out altogether.

    Parameters
    ----------
    signal : SignalSpec
        Channels with their positions, and window length.
    conv_layers : sequence of (int, int, int)
        Channels, kernel and stride of each convolution; the channels of the last are the width of a token.
    depth : int
        Layers of the transformer; 0 = the convolutions alone, which need no positions (`PreLocal`, `PostLocal`).
    n_heads : int
        Heads of the transformer.
    feedforward : int
        Hidden units of its feed-forward branches.
    place_width : int
        Numbers of a token that tell its place, a multiple of six; the others, an even number, tell its time.
    dropout : float
        Rate in the transformer, in [0, 1).
    dropout_at : {"residual", "everywhere"}
        On what each branch adds, or also on attention weights and hidden units: ``everywhere`` with a rate of 0.1 is
        what braindecode ships, and takes several times as long on a CPU (docs/reference/signal_jepa.md).

    Raises
    ------
    ConfigError
        If the window is shorter than a token, a channel has no position, or sizes do not fit each other.
    """

    local_parts = ("feature_encoder",)
    channel_tables = MappingProxyType({"pos_encoder.pos_encoder_spat.weight": 0})

    @classmethod
    def configuration_name(cls, settings: Mapping[str, Any]) -> str:
        """``signal_jepa_d64_l8``."""
        return f"signal_jepa_d{settings['conv_layers'][-1][0]}_l{settings['depth']}"

    def __init__(
        self,
        signal: SignalSpec,
        conv_layers: Sequence[tuple[int, int, int]] = CONV_LAYERS,
        depth: int = 8,
        n_heads: int = 8,
        feedforward: int = 2048,
        place_width: int = 30,
        dropout: float = 0.0,
        dropout_at: DropoutAt = "residual",
    ) -> None:
        super().__init__(signal)
        if depth < 0:
            raise ConfigError(f"depth={depth} is negative; set depth to 8, or to 0 for the convolutions alone.")
        self.feature_encoder = WaveformEncoder(conv_layers)
        self.patch_samples, self.patch_stride = receptive_field(conv_layers)
        self.d_model, self.n_layers = self.feature_encoder.width, depth
        _check_window(signal, self.patch_samples, self.patch_stride)
        if depth == 0:
            return
        if dropout:
            check_between("dropout", dropout, 0, 1)
        time_width = self.d_model - place_width
        if place_width < 6 or place_width % 6 or time_width < 2 or time_width % 2:
            fitting = [width for width in range(6, self.d_model - 1, 6) if (self.d_model - width) % 2 == 0]
            raise ConfigError(
                f"place_width={place_width} of {self.d_model} numbers cannot be: three coordinates with sines and "
                f"cosines are a multiple of six, and an even number is left for the time; set it to one of {fitting}."
            )
        _check_positions(signal)
        self.pos_encoder = PositionEncoder(signal.positions, place_width, time_width, self.n_patches(signal.n_times))
        self.transformer = nn.ModuleDict(
            {"encoder": PostNormEncoder(self.d_model, depth, n_heads, feedforward, dropout, dropout_at)}
        )

    def embed(self, batch: EEGBatch) -> Float[Tensor, "B C N D"]:
        """Features of each channel alone; its norm knows the whole window of the channel, padding left out."""
        features: Tensor = self.feature_encoder(batch.eeg, batch.n_valid if batch.is_padded else None)
        return features

    def positions(self, batch: EEGBatch) -> Float[Tensor, "B C N D"]:
        """Codes of place and time that are added to the features."""
        codes: Tensor = self.pos_encoder(batch.channel, self.n_patches(batch.eeg.shape[-1]))
        return codes

    def contextualise(
        self, placed: Float[Tensor, "B M D"], valid: Bool[Tensor, "B M"] | None = None
    ) -> Float[Tensor, "B M D"]:
        """The transformer on any tokens that have their positions."""
        mixed: Tensor = self._transformer()(placed, valid)
        return mixed

    def last_layers(
        self, placed: Float[Tensor, "B M D"], n_last: int, valid: Bool[Tensor, "B M"] | None = None
    ) -> list[Float[Tensor, "B M D"]]:
        """Tokens after each of the last layers, before the transformer's last norm."""
        return self._transformer().last_layers(placed, n_last, valid)

    def mix(
        self, tokens: Float[Tensor, "B C N D"], batch: EEGBatch, hidden: Bool[Tensor, "B C N"] | None = None
    ) -> Float[Tensor, "B C N D"]:
        """Contextual tokens; local ones where ``depth`` is 0. Where ``hidden`` is True features are zero."""
        return self.mix_subset(tokens, batch, hidden).view(tokens.shape)

    def mix_subset(
        self,
        tokens: Float[Tensor, "B C N D"],
        batch: EEGBatch,
        hidden: Bool[Tensor, "B C N"] | None = None,
        keep: Int64[Tensor, "B M"] | None = None,
        out: Int64[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B X D"]:
        """Like ``mix`` on the tokens ``keep`` alone; the last layer computes only those at ``out``."""
        if hidden is not None:
            tokens = tokens.masked_fill(hidden[..., None], 0.0)
        if self.n_layers == 0:
            flat = tokens.flatten(1, 2)
            given = keep if out is None else out
            return flat if given is None else take(flat, given)
        placed = (tokens + self.positions(batch)).flatten(1, 2)  # (B, C N, D)
        valid = self.valid(batch).flatten(1, 2) if batch.is_padded else None
        if keep is not None:
            place = torch.zeros(placed.shape[:2], dtype=torch.int64, device=placed.device)
            place.scatter_(1, keep, torch.arange(keep.shape[1], device=placed.device).expand_as(keep))
            placed, valid = take(placed, keep), None if valid is None else valid.gather(1, keep)
            out = None if out is None else place.gather(1, out)
        mixed: Tensor = self._transformer()(placed, valid, out)
        return mixed

    def layer_of(self, parameter: str) -> int:
        """0 for convolutions and positions, i + 1 for layer i, the last for the norm behind them."""
        layer = re.match(r"transformer\.encoder\.layers\.(\d+)\.", parameter)
        if layer:
            return int(layer.group(1)) + 1
        return self.n_layers + 1 if parameter.startswith("transformer.") else 0

    def _transformer(self) -> PostNormEncoder:
        transformer = self.transformer["encoder"]
        assert isinstance(transformer, PostNormEncoder)
        return transformer


def _check_window(signal: SignalSpec, field: int, step: int) -> None:
    """A window must hold a token: say how many samples one needs, and how many tokens more samples give."""
    if signal.n_times >= field:
        return
    examples = [(field + extra * step, extra + 1) for extra in (0, 3)]
    told = ", ".join(
        f"{n} samples ({n / signal.sfreq:.3g} s) give {tokens} token{'s' * (tokens > 1)}" for n, tokens in examples
    )
    raise ConfigError(
        f"the window has {signal.n_times} samples ({signal.n_times / signal.sfreq:.3g} s at {signal.sfreq:g} Hz), and "
        f"a token of SignalJEPA sees {field}: {told} per channel; cut longer windows (duration_s in data.windows)."
    )


def _check_positions(signal: SignalSpec) -> None:
    if lost := signal.unplaced():
        raise ConfigError(
            f"{lost}, and the transformer of SignalJEPA asks where each is; prepare the store with a montage that "
            "places them, drop them in data.channels, or use PreLocal or PostLocal with depth: 0."
        )
