"""Sources of a hand-over: checkpoints of cerebro, and files that other programs wrote, without running anything."""

import argparse
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import Tensor

from cerebro.errors import CheckpointError
from cerebro.files import sha256_file
from cerebro.training.checkpoint import STAMP, Checkpoint, Stamp, load_plain, read_checkpoint
from cerebro.training.foreign_file import Family, ForeignFile
from cerebro.training.labram.family import LABRAM
from cerebro.training.mamba_ssm.family import MAMBA_SSM
from cerebro.training.package import as_checkpoint, is_content, is_folder, package_in, read_folder
from cerebro.training.signal_jepa.family import SIGNAL_JEPA

FAMILIES: tuple[Family, ...] = (LABRAM, SIGNAL_JEPA, MAMBA_SSM)
EXPORTED = "cerebro_export"  # key of what cerebro writes beside the tensors of an exported file
HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # of a folder that `save_pretrained` of another program wrote
_HOLDERS = ("model", "state_dict")


def read_source(path: Path) -> Checkpoint:
    """Read what a phase starts from: a checkpoint of cerebro, or weights that another program wrote.

    Those of LaBraM, Signal-JEPA and Mamba-2. Files are torch's (``.pth``, ``.pt``, ``.bin``; of classes only
    ``argparse.Namespace`` is let in, which official files hold their options in) or safetensors; a folder stands for
    its ``model.safetensors`` or ``pytorch_model.bin``. The layout is known by the names of the tensors. Nobody knows
    who took part in training such weights, so their stamp names no participants. A file or folder that cerebro packaged
    (`cerebro.training.package`) is a whole phase, and knows them.

    Raises
    ------
    CheckpointError
        In one line: absent, damaged, holds other classes, or is of no known layout.
    """
    if is_folder(path):
        return as_checkpoint(read_folder(path), path)
    path = next((path / name for name in HUB_FILES if (path / name).is_file()), path)
    content = _safetensors(path) if path.suffix == ".safetensors" else load_plain(path, (argparse.Namespace,))
    if STAMP in content:
        return read_checkpoint(path)
    if is_content(content):
        return as_checkpoint(package_in(content, path), path)
    state = next((content[key] for key in _HOLDERS if isinstance(content.get(key), dict)), content)
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    family, layout = _known(tensors, path)
    names = {name: family.our_name(name, layout) for name in tensors}
    strange = [name for name, ours in names.items() if ours is None and not family.has_no_place(name, layout)]
    if strange:
        raise CheckpointError(
            f"{path} ({family.labels[layout]}) holds {len(strange)} tensors that this layout does not have (first: "
            f"{strange[0]}); nothing was loaded; give a file that the official program or braindecode wrote."
        )
    digest = sha256_file(path)
    exported = content.get(EXPORTED)
    told = exported if isinstance(exported, dict) else {}
    file = ForeignFile(
        family=family,
        layout=layout,
        n_heads=_count(told.get("n_heads")),
        decoder_heads=_count(told.get("decoder_heads")),
        signal=_signal(told.get("signal"), path),
        conv_layers=_layers(told.get("conv_layers")),
        left=tuple(key for key in content if state is not content and content[key] is not state and key != EXPORTED),
        without_place={name: tuple(value.shape) for name, value in tensors.items() if names[name] is None},
    )
    weights = {ours: tensors[name] for name, ours in names.items() if ours is not None}
    stamp = Stamp(
        phase=file.label(),
        version="",
        git_commit="",
        data_hash="",
        config_hash="",
        config={},
        signal=dict(file.signal),
        participants={"train": [], "val": []},
        trained=[],
        seen=[],
        weights_sha256=digest,
    )
    return Checkpoint(path, stamp, weights, content={}, foreign=file)


def read_trained(path: Path) -> Checkpoint:
    """Read a whole phase of cerebro: its checkpoint or its package, and nothing of other programs.

    Raises
    ------
    CheckpointError
        In one line.
    """
    found = read_source(path)
    if found.foreign is not None:
        raise CheckpointError(
            f"{path} ({found.foreign.label()}) is of another program and no whole phase; give a best.ckpt, or a model "
            "that `cerebro export --format package` wrote."
        )
    return found


def unknown_participants(source: Checkpoint) -> str:
    """Line on a source whose participants nobody can check; empty for one of cerebro's."""
    if source.foreign is None:
        return ""
    return (
        f"who took part in training {source.path} is unknown: that nobody scored here was among them cannot be checked"
    )


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open  # late: few sources are of this kind

    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} not found; give the path of a file of weights.")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            content: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            written = (file.metadata() or {}).get(EXPORTED)
    except (SafetensorError, OSError) as error:
        first = str(error).splitlines()[0][:120] if str(error) else "no message"
        raise CheckpointError(
            f"{path} cannot be read as safetensors ({first}); it is damaged; fetch or write it again."
        ) from None
    if written is not None:
        try:
            content[EXPORTED] = json.loads(written)
        except ValueError:
            raise CheckpointError(f"{path} has damaged metadata ({EXPORTED}); export it again.") from None
    return content


def _known(tensors: Collection[str], path: Path) -> tuple[Family, str]:
    """Family and layout of a state dict with these names."""
    for family in FAMILIES:
        if (layout := family.layout_of(tensors)) is not None:
            return family, layout
    raise CheckpointError(
        f"{path} carries no stamp of cerebro (phase, participants, data), and its tensors are those of none of "
        f"{', '.join(label for family in FAMILIES for label in family.labels.values())}; give a best.ckpt or last.ckpt "
        "that `cerebro fit` wrote, or one of these files."
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _layers(value: object) -> tuple[tuple[int, int, int], ...]:
    layers = value if isinstance(value, list) else []
    found = [tuple(_count(number) for number in layer) for layer in layers if isinstance(layer, list)]
    return tuple((layer[0], layer[1], layer[2]) for layer in found if len(layer) == 3 and all(layer))


def _signal(value: object, path: Path) -> dict[str, Any]:
    """Channels, positions and rate that an exported file gives; empty if it gives none."""
    if value is None:
        return {}
    try:
        assert isinstance(value, dict)
        channels = [str(name) for name in value["channels"]]
        positions = [[float(number) for number in place] for place in value["positions"]]
        assert len(positions) == len(channels) and all(len(place) == 3 for place in positions)  # noqa: PT018
        return {"channels": channels, "positions": positions, "sfreq": float(value["sfreq"])}
    except (AssertionError, KeyError, TypeError, ValueError):
        raise CheckpointError(f"{path} has damaged metadata ({EXPORTED}: signal); export it again.") from None
