"""The phase that a packaged config describes, with its weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings
from torch import Tensor

from cerebro.cli import fit
from cerebro.errors import CheckpointError
from cerebro.signal import SignalSpec
from cerebro.training.checkpoint import check_same_tensors
from cerebro.training.phase import Phase


def rebuild(model: Mapping[str, Any], signal: SignalSpec, weights: Mapping[str, Tensor], path: Path) -> Phase:
    """Phase of the ``model`` section of a config, in evaluation mode; classes may only come from the allow list.

    Raises
    ------
    CheckpointError
        In one line: the config asks for a class that is unknown or forbidden, or the weights are of another model.
    """
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=fit.ALLOWED_IMPORTS)
    parser = ArgumentParser(exit_on_error=False, default_env=False)
    parser.add_class_arguments(Phase, "model", skip={"signal"}, instantiate=False)
    try:
        built = parser.instantiate(parser.parse_object({"model": {**model, "init": []}}))
    except (ArgumentError, TypeError, ValueError) as error:
        first = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"{path} describes a model that this cerebro cannot build ({first}); use the one that wrote it."
        ) from None
    phase = Phase(signal=signal, **vars(built.model))
    check_same_tensors(weights, phase.state_dict(), path, f"all of phase {phase.name!r}")
    phase.load_state_dict(dict(weights))
    return phase.eval()
