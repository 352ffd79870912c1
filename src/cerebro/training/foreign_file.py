"""What a file of weights of another program is: its family of models and its layout, and what is asked of a family."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cerebro.errors import CheckpointError
from cerebro.signal import SignalSpec
from cerebro.training.channel_rows import Rows


@dataclass(frozen=True)
class Fitted:
    """Tensors as a module of ours takes them, lines for the user, and names of the module that keep their start."""

    tensors: dict[str, Tensor]
    lines: tuple[str, ...]
    initial: tuple[str, ...] = ()


@dataclass(frozen=True)
class ForeignFile:
    """What is known of a file of another program beside its tensors.

    Parameters
    ----------
    family : Family
        Model that it holds.
    layout : str
        Key of ``family.labels``: which program and which kind of file.
    n_heads, decoder_heads : int
        Heads, where the tensors do not show them and the file says so; 0 = it does not.
    signal : dict
        ``channels``, ``positions`` and ``sfreq`` of a file that cerebro exported and that says so, else empty.
    conv_layers : tuple of (int, int, int)
        Channels, kernel and stride of convolutions, of such a file, else empty.
    left : tuple of str
        What else stands in the file and has no use here: ``optimizer``, ``scaler``.
    without_place : dict of str to tuple of int
        Shapes of tensors that have no place here, by their names in the file: ``projection_head.0.weight``.
    """

    family: "Family"
    layout: str
    n_heads: int = 0
    decoder_heads: int = 0
    signal: Mapping[str, Any] = field(default_factory=dict)
    conv_layers: tuple[tuple[int, int, int], ...] = ()
    left: tuple[str, ...] = ()
    without_place: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def label(self) -> str:
        """Program and kind of the file, in words."""
        return self.family.labels[self.layout]


@dataclass(frozen=True)
class Request:
    """What is to move out of a file into a module.

    Parameters
    ----------
    taken : mapping of str to Tensor
        What is to move, by its names in ``target``.
    weights : mapping of str to Tensor
        All tensors of the file, by our names.
    file : ForeignFile
        Where they come from.
    path : Path
        The file, for messages.
    target : Module
        What receives them: an encoder, an objective, a part of one, or something that holds both.
    signal : SignalSpec
        Channels and rate of the encoder.
    rows : {"by_name", "nearest", "initial", "interpolated"}
        What a channel's row starts from.
    """

    taken: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    file: ForeignFile
    path: Path
    target: nn.Module
    signal: SignalSpec
    rows: Rows = "by_name"


@dataclass(frozen=True)
class Family:
    """A model that other programs have too: names of its tensors there, and how they come into ours.

    Parameters
    ----------
    name : str
        Name of the model.
    labels : mapping of str to str
        Layout -> program and kind of file, in words.
    layout_of : callable
        Layout that a state dict with these names has; None if it is none of this family.
    our_name, their_name : callable
        ``(name, layout)``: name in a phase of ours for one of the layout, and the reverse; None if there is none.
    has_no_place : callable
        ``(name, layout)``: whether a tensor of the layout is known and has no place here.
    fit : callable
        Brings tensors into shapes, channels and window of ours, or raises CheckpointError in one line.
    """

    name: str
    labels: Mapping[str, str]
    layout_of: Callable[[Collection[str]], str | None]
    our_name: Callable[[str, str], str | None]
    their_name: Callable[[str, str], str | None]
    has_no_place: Callable[[str, str], bool]
    fit: Callable[[Request], Fitted]


def in_their_names(tensors: Mapping[str, Tensor], prefix: str, file: ForeignFile) -> dict[str, Tensor]:
    """Tensors of a part of a phase (``encoder.``) under the names that they have in a file, for messages."""
    return {file.family.their_name(prefix + name, file.layout) or name: value for name, value in tensors.items()}


def check_float32(name: str, value: Tensor, path: Path) -> None:
    """Raise CheckpointError unless a tensor holds float32 or narrower numbers with a fraction."""
    if not torch.is_floating_point(value) or value.dtype == torch.float64:
        raise CheckpointError(
            f"{path} holds {name} as {str(value.dtype).removeprefix('torch.')}, expected float32; nothing was "
            "loaded; save the file anew with float32 weights."
        )


def reshaped(value: Tensor, place: Tensor | None) -> Tensor:
    """A tensor in the shape of its place, if both differ in axes of length one alone."""
    if place is not None and _without_ones(value) == _without_ones(place):
        return value.reshape(place.shape)
    return value


def refuse_differences(told: str, theirs: Mapping[str, object], ours: Mapping[str, object], place: str) -> None:
    """Raise CheckpointError that names every key in which a file and a model of ours differ.

    Parameters
    ----------
    told : str
        What the file holds and what there is here.
    theirs, ours : mapping
        Constructor keys, of the file and of ours.
    place : str
        Where the keys stand in a config.
    """
    differing = [key for key in theirs if theirs[key] != ours[key]]
    if not differing:
        return
    there = ", ".join(f"{key} {_written(key, theirs[key])}" for key in differing)
    here = ", ".join(f"{key} {_written(key, ours[key])}" for key in differing)
    raise CheckpointError(
        f"{told}: {there} there, {here} here; nothing was loaded; set these keys of {place} as there."
    )


def _written(key: str, value: object) -> str:
    if key == "layer_scale":
        return "above 0" if value else "0"
    return str(value).lower()


def _without_ones(tensor: Tensor) -> list[int]:
    return [size for size in tensor.shape if size != 1]
