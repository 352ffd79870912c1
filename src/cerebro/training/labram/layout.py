"""Names that tensors of LaBraM have in the files of other programs: one table per layout, read in both directions.

``labram``: the official pretraining checkpoint (``labram-base.pth``). ``finetuned``: an official fine-tuned one.
``vqnsp``: the official tokenizer (``vqnsp.pth``). ``braindecode``: the state dict of braindecode's ``Labram``. Names of
ours are those of a phase: ``encoder.*`` and ``objective.*``.
"""

import re
from collections.abc import Collection

LABELS: dict[str, str] = {
    "labram": "official LaBraM, pretraining",
    "finetuned": "official LaBraM, fine-tuned",
    "vqnsp": "official VQNSP tokenizer",
    "braindecode": "braindecode Labram",
}


def _transformer(ours: str, theirs: str, channel: str = "pos_embed", time: str = "time_embed") -> list[tuple[str, str]]:
    return [
        (f"{ours}class_token", f"{theirs}cls_token"),
        (f"{ours}channel_embedding", f"{theirs}{channel}"),
        (f"{ours}time_embedding", f"{theirs}{time}"),
        (f"{ours}blocks.", f"{theirs}blocks."),
    ]


# Ours and theirs; a name that ends with a dot stands for all below it.
_PAIRS: dict[str, list[tuple[str, str]]] = {
    "labram": [
        ("encoder.mask_token", "student.mask_token"),
        ("encoder.patch.", "student.patch_embed."),
        *_transformer("encoder.transformer.", "student."),
        ("objective.norm.", "student.norm."),
        ("objective.head.", "lm_head."),
    ],
    "finetuned": [
        ("encoder.patch.", "patch_embed."),
        *_transformer("encoder.transformer.", ""),
        ("objective.norm.", "norm."),
        ("objective.readout.norm.", "fc_norm."),
        ("objective.readout.head.", "head."),
    ],
    "vqnsp": [
        ("encoder.patch.", "encoder.patch_embed."),
        *_transformer("encoder.transformer.", "encoder."),
        ("objective.norm.", "encoder.fc_norm."),
        ("objective.to_code.", "encode_task_layer."),
        ("objective.codebook.weight", "quantize.embedding.weight"),
        ("objective.codebook.use", "quantize.cluster_size"),
        ("objective.from_code.", "decoder.patch_embed.proj."),
        *_transformer("objective.decoder.", "decoder."),
        ("objective.decoder_norm.", "decoder.fc_norm."),
        ("objective.to_amplitude.", "decode_task_layer."),
        ("objective.to_phase.", "decode_task_layer_angle."),
    ],
    "braindecode": [
        ("encoder.patch.", "patch_embed.temporal_conv."),
        *_transformer("encoder.transformer.", "", "position_embedding", "temporal_embedding"),
        ("objective.norm.", "norm."),
        ("objective.readout.norm.", "fc_norm."),
        ("objective.readout.head.", "final_layer."),
    ],
}
# Tensors of a layout that have no place here: heads that nothing uses, and a codebook's copies of itself.
_WITHOUT_PLACE: dict[str, tuple[str, ...]] = {
    "labram": ("student.lm_head.", "projection_head."),
    "finetuned": (),
    "vqnsp": (
        "quantize.embedding.cluster_size",
        "quantize.embedding.embed_avg",
        "quantize.embedding.initted",
        "teacher.",
        "scaling",
        "loss",
    ),
    "braindecode": (),
}
_SIGNATURES: list[tuple[str, tuple[str, ...]]] = [
    ("vqnsp", ("quantize.embedding.weight",)),
    ("labram", ("student.cls_token", "student.pos_embed")),
    ("braindecode", ("position_embedding", "temporal_embedding")),
    ("finetuned", ("cls_token", "pos_embed")),
]


def layout_of(names: Collection[str]) -> str | None:
    """Layout that a state dict with these names has; None if it is none of LaBraM's."""
    return next((layout for layout, signature in _SIGNATURES if all(name in names for name in signature)), None)


def our_name(name: str, layout: str) -> str | None:
    """Name in a phase of ours for a name of a layout; None if there is none."""
    for ours, theirs in _PAIRS[layout]:
        if name == theirs or (theirs.endswith(".") and name.startswith(theirs)):
            found = ours + name.removeprefix(theirs)
            for layer in ("fc1", "fc2"):
                found = re.sub(rf"(blocks\.\d+)\.{re.escape(_mlp(layer, layout))}\.", rf"\1.{layer}.", found)
            return found
    return None


def their_name(name: str, layout: str) -> str | None:
    """Name in a layout for a name in a phase of ours; None if there is none."""
    for ours, theirs in _PAIRS[layout]:
        if name == ours or (ours.endswith(".") and name.startswith(ours)):
            found = theirs + name.removeprefix(ours)
            for layer in ("fc1", "fc2"):
                found = re.sub(rf"(blocks\.\d+)\.{layer}\.", rf"\1.{_mlp(layer, layout)}.", found)
            return found
    return None


def has_no_place(name: str, layout: str) -> bool:
    """Whether a tensor of a layout is known and has no place here."""
    return name.startswith(_WITHOUT_PLACE[layout])


def _mlp(layer: str, layout: str) -> str:
    """Name of a layer of an MLP: ``fc1`` or ``fc2``, or its place among braindecode's modules."""
    return {"fc1": "mlp.0", "fc2": "mlp.2"}[layer] if layout == "braindecode" else f"mlp.{layer}"
