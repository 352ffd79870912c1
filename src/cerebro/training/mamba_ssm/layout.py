"""Names that tensors of Mamba-2 have in mamba-ssm's files, read in both directions.

``mixer_model``: the bare layers (``layers.0.mixer.A_log``). ``language_model``: ``MambaLMHeadModel``, where a
``backbone.`` stands before them; transformers' Mamba-2 has the same names. ``mamba_1``, ``mamba_1_language_model``: the
model before this one, known in order to be refused. Names of ours are those of a phase: ``encoder.stack.*``.
"""

import re
from collections.abc import Collection

STACK = "encoder.stack."
LABELS: dict[str, str] = {
    "mixer_model": "mamba-ssm Mamba2",
    "language_model": "mamba-ssm Mamba2 language model",
    "mamba_1": "mamba-ssm Mamba, the first one",
    "mamba_1_language_model": "mamba-ssm Mamba language model, the first one",
}
MAMBA_1 = ("mamba_1", "mamba_1_language_model")
_PREFIX = {
    "mixer_model": "",
    "language_model": "backbone.",
    "mamba_1": "",
    "mamba_1_language_model": "backbone.",
}
_MIXER = r"dt_bias|A_log|D|in_proj\.weight|conv1d\.weight|conv1d\.bias|norm\.weight|out_proj\.weight"
_FIRST = r"x_proj\.weight|dt_proj\.weight|dt_proj\.bias"  # what Mamba has and Mamba-2 has not
_KNOWN = re.compile(rf"layers\.\d+\.(norm\.weight|mixer\.({_MIXER}))|norm_f\.weight")
_KNOWN_FIRST = re.compile(rf"layers\.\d+\.(norm\.weight|mixer\.({_MIXER}|{_FIRST}))|norm_f\.weight")
_WORDS = ("embedding.weight", "embeddings.weight", "lm_head.weight")  # no words here


def layout_of(names: Collection[str]) -> str | None:
    """Layout that a state dict with these names has; None if it is none of mamba-ssm's."""
    for prefix, second, first in (("", "mixer_model", "mamba_1"), ("backbone.", "language_model", MAMBA_1[1])):
        if any(name.startswith(f"{prefix}layers.") and name.endswith(".mixer.A_log") for name in names):
            return first if any(name.endswith(".mixer.dt_proj.weight") for name in names) else second
    return None


def our_name(name: str, layout: str) -> str | None:
    """Name in a phase of ours for a name of a layout; None if there is none."""
    bare = name.removeprefix(_PREFIX[layout])
    known = _KNOWN_FIRST if layout in MAMBA_1 else _KNOWN
    return STACK + bare if name == _PREFIX[layout] + bare and known.fullmatch(bare) else None


def their_name(name: str, layout: str) -> str | None:
    """Name in a layout for a name in a phase of ours; None if there is none."""
    return _PREFIX[layout] + name.removeprefix(STACK) if name.startswith(STACK) else None


def has_no_place(name: str, layout: str) -> bool:
    """Whether a tensor of a layout is known and has no place here: words come in and go out there."""
    return name.removeprefix(_PREFIX[layout]) in _WORDS
