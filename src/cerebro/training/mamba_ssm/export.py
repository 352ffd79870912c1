"""The Mamba-2 layers of a phase in the names of mamba-ssm."""

from cerebro import __version__
from cerebro.encoders.mamba2 import Mamba2
from cerebro.errors import CheckpointError
from cerebro.training.checkpoint import Checkpoint, grouped
from cerebro.training.exported import Exported, arguments_of
from cerebro.training.mamba_ssm.layout import LABELS, their_name

LAYOUT = "mixer_model"


def export_weights(source: Checkpoint) -> Exported:
    """Layers and final norm as in mamba-ssm's ``MixerModel``: ``layers.i.norm``, ``layers.i.mixer.*``, ``norm_f``.

    Raises
    ------
    CheckpointError
        In one line: the encoder is no Mamba2.
    """
    encoder = source.stamp.config["model"]["encoder"]
    keys = arguments_of(encoder, Mamba2)
    if keys is None:
        name = str(encoder["class_path"]).rpartition(".")[2]
        raise CheckpointError(
            f"{source.path} holds the encoder {name}, and format mamba_ssm is Mamba2's; give such a phase."
        )
    renamed = {name: their_name(name, LAYOUT) for name in source.weights}
    state = {theirs: source.weights[name] for name, theirs in renamed.items() if theirs is not None}
    left = sorted(name for name, theirs in renamed.items() if theirs is None)
    n_heads = keys["expand"] * keys["d_model"] // keys["headdim"]
    layer = {"layer": "Mamba2"} | {key: keys[key] for key in ("d_state", "d_conv", "expand", "headdim")}
    lines = [
        f"{len(state)} tensors in the layout of {LABELS[LAYOUT]}",
        f"loads into MixerModel(d_model={keys['d_model']}, n_layer={keys['n_layers']}, d_intermediate=0, "
        f"vocab_size=..., ssm_cfg={layer}, rms_norm=True), with strict=False: it has an embedding of words besides",
    ]
    if keys["direction"] == "bidirectional":
        lines.append("direction: every second layer ran backwards here, and all run forwards in mamba-ssm")
    lines.append(f"not in this format: {grouped(dict.fromkeys(left, ())) or 'nothing'}")
    plain = {
        "version": __version__,
        "phase": source.stamp.phase,
        "weights_sha256": source.stamp.weights_sha256,
        "n_heads": int(n_heads),
    }
    return Exported(state, plain, tuple(lines), is_bare=True)
