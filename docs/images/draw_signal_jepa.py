"""python docs/images/draw_signal_jepa.py: pictures of Signal-JEPA for docs/reference/signal_jepa.md.

Every shape and number of parameters is read from the modules while they run, so that a changed model changes the
pictures; a test draws them again and compares.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import torch
from torch import Tensor, nn

from cerebro.encoders import SignalJEPA
from cerebro.montage import hbn_129
from cerebro.objectives import JEPA
from cerebro.readouts import Contextual, PostLocal, PreLocal, Readout
from cerebro.signal import EEGBatch, SignalSpec

FOLDER = Path(__file__).resolve().parent
SFREQ, N_BATCH = 100.0, 3
LONG, SHORT = 1600, 200  # samples: 16 s for pretraining, 2 s for the heads
COLOURS = {  # fill, edge, meaning
    "local": ("#cfe3f5", "#2b6ca3", "moves with transfer: feature_encoder or all"),
    "rest": ("#d9efd9", "#3c8a4a", "moves with transfer: all"),
    "new": ("#fde3c8", "#c26a12", "trains from scratch"),
    "left": ("#eee3f5", "#7d4f9e", "pretraining alone: stays behind"),
    "plain": ("#f4f4f4", "#888888", "nothing to train"),
}
BOX_HEIGHT, GAP, MARGIN = 92, 26, 24


@dataclass(frozen=True)
class Box:
    """A step: its name, some words, the shape that comes out, its parameters and its colour."""

    name: str
    words: str
    shape: str
    n_parameters: int
    kind: str


# What is drawn --------------------------------------------------------------------------------------------------------
def pictures() -> dict[str, str]:
    """SVG text by the name of its file."""
    return {"signal_jepa_encoder.svg": encoder_picture(), "signal_jepa_heads.svg": heads_picture()}


def encoder_picture() -> str:
    """Encoder with each of its parts, and what pretraining adds."""
    signal, batch = signal_of(LONG), batch_of(LONG)
    encoder = SignalJEPA(signal)
    jepa = JEPA(encoder, signal)
    maps, tokens = watched(encoder.feature_encoder, lambda: encoder(batch))
    n_tokens = encoder.n_patches(LONG)
    eeg = Box("EEG", "microvolts", shape_of(batch.eeg), 0, "plain")
    first_row = [eeg]
    for number, block in enumerate(encoder.feature_encoder.children(), start=1):
        conv = next(part for part in block.modules() if isinstance(part, nn.Conv1d))
        normed = any(isinstance(part, nn.GroupNorm) for part in block.modules())
        words = f"kernel {conv.kernel_size[0]}, stride {conv.stride[0]}"
        name = f"conv {number}{' + norm' if normed else ''}"
        first_row.append(Box(name, words, shape_of(maps[number - 1], channels_in_batch=True), count(block), "local"))
    local = encoder.embed(batch)
    table, times = encoder.pos_encoder.pos_encoder_spat.weight, encoder.pos_encoder.times
    width = tuple(table.shape)[1], tuple(times.shape)[1]
    n_layers, layer = encoder.n_layers, encoder.transformer["encoder"].layers[0]
    second_row = [
        Box("local tokens", "of each channel alone", shape_of(local), 0, "plain"),
        Box(
            "+ positions",
            f"{width[0]} place, {width[1]} time",
            shape_of(encoder.positions(batch)),
            table.numel(),
            "rest",
        ),
        Box(
            f"transformer, {n_layers} layers",
            f"{layer.self_attn.n_heads} heads, {layer.linear1.out_features} hidden",
            shape_of(tokens),
            count(encoder.transformer),
            "rest",
        ),
        Box("contextual tokens", "all channels, all times", shape_of(tokens), 0, "plain"),
    ]
    third_row = [
        Box("mask", "which tokens the encoder sees", "context and targets", count(jepa.mask), "plain"),
        Box(
            f"predictor, {len(jepa.predictor.layers)} layers",
            "a mask token asks the context",
            f"targets, {encoder.d_model} numbers each",
            count(jepa.predictor) + jepa.mask_token.numel(),
            "left",
        ),
        Box("L1 loss", "predicted beside wanted", "one number", 0, "plain"),
        Box(
            "teacher",
            f"slow copy; mean of its last {jepa.teacher_layers} layers",
            shape_of(jepa.targets(batch, local)),
            count(jepa.teacher),
            "left",
        ),
    ]
    canvas = Canvas(f"SignalJEPA on {len(signal.channels)} channels, {told(LONG)}: {n_tokens} tokens per channel", 1240)
    canvas.row(f"feature_encoder: each channel alone, {count(encoder.feature_encoder):,} parameters", first_row)
    canvas.row(f"encoder: {count(encoder):,} parameters with feature_encoder", second_row)
    canvas.row("pretraining (JEPA): the encoder sees the context alone", third_row, arrows="→→←")
    return canvas.svg(("local", "rest", "left", "plain"))


def heads_picture() -> str:
    """The three heads, each from the EEG to an output."""
    signal, batch = signal_of(SHORT), batch_of(SHORT)
    canvas = Canvas(f"Heads on {len(signal.channels)} channels, {told(SHORT)}, one output", 1240)
    for head in (PreLocal, PostLocal, Contextual):
        encoder = SignalJEPA(signal, depth=8 if head is Contextual else 0)
        readout = head(encoder, signal, 1)
        total = count(encoder) + count(readout)
        line = "no transformer" if encoder.n_layers == 0 else f"{encoder.n_layers} layers"
        canvas.row(f"{head.__name__}: {total:,} parameters ({line})", head_row(encoder, readout, batch))
    return canvas.svg(("local", "rest", "new", "plain"))


def head_row(encoder: SignalJEPA, readout: Readout, batch: EEGBatch) -> list[Box]:
    """Steps of one head in the order in which they run."""
    given: dict[str, Tensor] = {}
    readout.head.register_forward_hook(lambda _, inputs, output: given.update(flat=inputs[0], out=output))
    embedded: dict[str, Tensor] = {}
    encoder.feature_encoder.register_forward_hook(
        lambda _, inputs, output: embedded.update(eeg=inputs[0], local=output)
    )
    readout(encoder, batch)
    weight, bias = readout.spatial_weight, readout.spatial_bias
    n_filters, n_channels = weight.shape
    local = Box(
        "feature_encoder", "five convolutions", shape_of(embedded["local"]), count(encoder.feature_encoder), "local"
    )
    before = isinstance(readout, PreLocal)
    filtered = embedded["eeg"] if before else given["flat"].unflatten(1, (n_filters, -1, encoder.d_model))
    words, n_spatial = f"{n_channels} to {n_filters} channels", weight.numel() + bias.numel()
    spatial = Box("spatial filter", words, shape_of(filtered), n_spatial, "new")
    boxes = [Box("EEG", "microvolts", shape_of(batch.eeg), 0, "plain"), *([spatial, local] if before else [local])]
    if encoder.n_layers:
        n_rest = count(encoder) - count(encoder.feature_encoder)
        words = f"positions, {encoder.n_layers} layers"
        boxes.append(Box("transformer", words, shape_of(encoder(batch)), n_rest, "rest"))
    if not before:
        boxes.append(spatial)
    outputs = Box("linear", f"on {given['flat'].shape[1]} numbers", shape_of(given["out"]), count(readout.head), "new")
    return [*boxes, outputs]


# Reading modules ------------------------------------------------------------------------------------------------------
def signal_of(n_times: int) -> SignalSpec:
    """HBN's net at 100 Hz."""
    cap = hbn_129()
    places = tuple((float(x), float(y), float(z)) for x, y, z in cap.positions)
    return SignalSpec(tuple(cap.channels), places, SFREQ, n_times)


def batch_of(n_times: int) -> EEGBatch:
    """A few windows of noise."""
    rows, n_channels = torch.arange(N_BATCH), len(hbn_129().channels)
    eeg = 20 * torch.randn(N_BATCH, n_channels, n_times, generator=torch.Generator().manual_seed(0))
    channel = torch.arange(n_channels).repeat(N_BATCH, 1)
    return EEGBatch(eeg, channel, torch.full((N_BATCH,), n_times), rows, rows, rows, rows, rows, is_padded=False)


def watched(module: nn.Module, run: Callable[[], Tensor]) -> tuple[list[Tensor], Tensor]:
    """What each child of a module gave while ``run`` ran, and what ``run`` gave."""
    found: list[Tensor] = []
    hooks = [part.register_forward_hook(lambda _, inputs, output: found.append(output)) for part in module.children()]
    with torch.no_grad():
        result = run()
    for hook in hooks:
        hook.remove()
    return found, result


def count(module: nn.Module) -> int:
    """Parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def shape_of(tensor: Tensor, channels_in_batch: bool = False) -> str:
    """``B × 129 × 12 × 64``; B windows, or B windows of so many channels, come first."""
    first = f"(B {tensor.shape[0] // N_BATCH})" if channels_in_batch else "B"
    return " × ".join([first, *map(str, tensor.shape[1:])])


def told(n_times: int) -> str:
    """``1600 samples (16 s at 100 Hz)``."""
    return f"{n_times} samples ({n_times / SFREQ:g} s at {SFREQ:g} Hz)"


# Drawing --------------------------------------------------------------------------------------------------------------
class Canvas:
    """Rows of boxes with arrows between them, one under the other.

    Parameters
    ----------
    title : str
        First line of the picture.
    width : int
        Pixels.
    """

    def __init__(self, title: str, width: int) -> None:
        self.width, self.bottom = width, MARGIN + 8
        self.parts = [text(MARGIN, self.bottom, title, size=19, weight="bold")]
        self.bottom += 22

    def row(self, title: str, boxes: list[Box], arrows: str = "") -> None:
        """Add a row; an arrow is ``→`` or ``←``."""
        self.parts.append(text(MARGIN, self.bottom + 22, title, size=15, weight="bold"))
        top = self.bottom + 34
        width = min(210.0, (self.width - 2 * MARGIN - (len(boxes) - 1) * GAP) / len(boxes))
        for number, box in enumerate(boxes):
            left = MARGIN + number * (width + GAP)
            self.parts += drawn(box, left, top, width)
            if number:
                way = arrows[number - 1] if arrows else "→"
                start, end = (left - GAP + 3, left - 3) if way == "→" else (left - 3, left - GAP + 3)
                middle = top + BOX_HEIGHT / 2
                self.parts.append(
                    f'<line x1="{start:.1f}" y1="{middle:.1f}" x2="{end:.1f}" y2="{middle:.1f}" stroke="#333" '
                    'stroke-width="1.6" marker-end="url(#head)"/>'
                )
        self.bottom = top + BOX_HEIGHT + 14

    def svg(self, kinds: Iterable[str]) -> str:
        """The picture, with what the colours of ``kinds`` mean below it."""
        left, line = float(MARGIN), self.bottom + 16
        for kind in kinds:
            fill, edge, meaning = COLOURS[kind]
            self.parts.append(rectangle(left, line, 16, 16, fill, edge))
            self.parts.append(text(left + 22, line + 13, meaning, size=13))
            left += 22 + 7.0 * len(meaning) + 24
        self.parts.append(
            text(MARGIN, line + 38, "A box: what it does, the shape that comes out, its parameters.", size=13)
        )
        height = line + 38 + MARGIN
        head = (
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#333"/></marker></defs>'
        )
        opened = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{height}" '
            f'viewBox="0 0 {self.width} {height}" font-family="Helvetica, Arial, sans-serif">'
        )
        ground = rectangle(0, 0, self.width, height, "#ffffff", "#ffffff")
        return "\n".join([opened, head, ground, *self.parts, "</svg>", ""])


def drawn(box: Box, left: float, top: float, width: float) -> list[str]:
    """A box with its four lines."""
    fill, edge, _ = COLOURS[box.kind]
    middle = left + width / 2
    lines = [
        text(middle, top + 22, box.name, size=14, weight="bold", anchor="middle"),
        text(middle, top + 41, box.words, size=12, anchor="middle"),
        text(middle, top + 61, box.shape, size=13, anchor="middle", colour="#222"),
    ]
    if box.n_parameters:
        lines.append(text(middle, top + 81, f"{box.n_parameters:,}", size=13, anchor="middle", colour=edge))
    return [rectangle(left, top, width, BOX_HEIGHT, fill, edge), *lines]


def rectangle(left: float, top: float, width: float, height: float, fill: str, edge: str) -> str:
    """A rectangle with round corners."""
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="6" fill="{fill}" '
        f'stroke="{edge}" stroke-width="1.4"/>'
    )


def text(
    x: float, y: float, words: str, size: int, weight: str = "normal", anchor: str = "start", colour: str = "#111"
) -> str:
    """A line of text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{colour}">{escape(words)}</text>'
    )


if __name__ == "__main__":
    for name, picture in pictures().items():
        (FOLDER / name).write_text(picture, encoding="utf-8")
