"""What the folder of a run holds before it trains: nothing, this run begun or finished, or another one."""

from pathlib import Path
from typing import Any

from cerebro.errors import CheckpointError, ConfigError
from cerebro.files import read_json
from cerebro.training.checkpoint import Checkpoint, Stamp, read_checkpoint
from cerebro.training.keys import RunKeys


def look_into(keys: RunKeys, stamp: Stamp) -> tuple[dict[str, Any] | None, bool]:
    """What the output folder holds: the record of this run if it is finished, whether it is begun if it is not."""
    out = keys.out
    if keys.overwrite:
        for name in (
            "run.json",
            "last.ckpt",
            "best.ckpt",
            "history.jsonl",
            "mlflow.json",
            "nonfinite.json",
            "isc.json",
        ):
            (out / name).unlink(missing_ok=True)
        return None, False
    found: dict[str, Any] | None = None
    if (out / "run.json").exists():
        found = read_json(out / "run.json")
        theirs = (found["config_hash"], found["data_hash"], sorted(found["inputs"].values()))
    elif (out / "last.ckpt").exists():
        own = read_checkpoint(out / "last.ckpt")
        theirs = (own.stamp.config_hash, own.stamp.data_hash, sorted(own.stamp.inputs.values()))
    else:
        return None, False
    ours = (stamp.config_hash, stamp.data_hash, sorted(stamp.inputs.values()))
    differs = [what for what, a, b in zip(("config", "data", "source weights"), ours, theirs, strict=True) if a != b]
    if differs:
        raise ConfigError(
            f"{out} holds a run with another {' and '.join(differs)}; choose another --out, or add --overwrite true to "
            "train anew there."
        )
    return found, found is None


def nothing_to_resume(out: Path) -> CheckpointError:
    """Error for ``--resume`` where there is no run."""
    return CheckpointError(
        f"--resume: {out} holds no run to go on with (no last.ckpt); correct --out, or leave --resume away to begin it."
    )


def no_state(package: Checkpoint) -> CheckpointError:
    """Error for a packaged model where a state of training is to be resumed."""
    return CheckpointError(
        f"{package.path} is a packaged model of this very phase ({package.stamp.phase}) and holds no state of training "
        "to resume; give the run's last.ckpt, or start another phase from it (--model.name, or model.init)."
    )
