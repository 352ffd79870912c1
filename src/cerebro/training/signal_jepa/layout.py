"""Names that tensors of Signal-JEPA have in braindecode: one table per class, read in both directions.

``signal_jepa``: ``SignalJEPA``, or ``_without-chans`` weights, which have no table of channels. ``contextual``,
``post_local``, ``pre_local``: its three classifiers. Names of ours are those of a phase: ``encoder.*``,
``objective.predictor.*`` and ``objective.readout.*``.
"""

from collections.abc import Collection

ROWS = "pos_encoder_spat.weight"
TABLE = f"pos_encoder.{ROWS}"
SPATIAL = "objective.readout.spatial_weight"

LABELS: dict[str, str] = {
    "signal_jepa": "braindecode SignalJEPA",
    "contextual": "braindecode SignalJEPA_Contextual",
    "post_local": "braindecode SignalJEPA_PostLocal",
    "pre_local": "braindecode SignalJEPA_PreLocal",
}

_CONVOLUTIONS = [("encoder.feature_encoder.", "feature_encoder.")]
_TRANSFORMER = [
    ("encoder.pos_encoder.", "pos_encoder."),
    ("encoder.transformer.encoder.", "transformer.encoder."),
    ("objective.predictor.", "transformer.decoder."),
]
_BEHIND = [
    (SPATIAL, "final_layer.spat_conv.weight"),
    ("objective.readout.spatial_bias", "final_layer.spat_conv.bias"),
    ("objective.readout.head.", "final_layer.linear."),
]
_BEFORE = [
    (SPATIAL, "spatial_conv.1.weight"),
    ("objective.readout.spatial_bias", "spatial_conv.1.bias"),
    ("objective.readout.head.", "final_layer.1."),
]
# Ours and theirs; a name that ends with a dot stands for all below it.
_PAIRS: dict[str, list[tuple[str, str]]] = {
    "signal_jepa": [*_CONVOLUTIONS, *_TRANSFORMER],
    "contextual": [*_CONVOLUTIONS, *_TRANSFORMER, *_BEHIND],
    "post_local": [*_CONVOLUTIONS, *_BEHIND],
    "pre_local": [*_CONVOLUTIONS, *_BEFORE],
}


def layout_of(names: Collection[str]) -> str | None:
    """Layout that a state dict with these names has; None if it is none of Signal-JEPA's."""
    if "feature_encoder.1.0.weight" not in names and TABLE not in names:
        return None
    if "spatial_conv.1.weight" in names:
        return "pre_local"
    if "final_layer.spat_conv.weight" in names:
        return "contextual" if TABLE in names else "post_local"
    return "signal_jepa"


def our_name(name: str, layout: str) -> str | None:
    """Name in a phase of ours for a name of a layout; None if there is none."""
    return _renamed(name, [(theirs, ours) for ours, theirs in _PAIRS[layout]])


def their_name(name: str, layout: str) -> str | None:
    """Name in a layout for a name in a phase of ours; None if there is none."""
    return _renamed(name, _PAIRS[layout])


def has_no_place(name: str, layout: str) -> bool:
    """Whether a tensor of a layout is known and has no place here: all of them have one."""
    return False


def _renamed(name: str, pairs: list[tuple[str, str]]) -> str | None:
    for old, new in pairs:
        if name == old or (old.endswith(".") and name.startswith(old)):
            return new + name.removeprefix(old)
    return None
