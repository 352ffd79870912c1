"""The model card of a packaged model: README.md, in words, from its config alone."""

from collections.abc import Mapping
from typing import Any


def card(config: Mapping[str, Any]) -> str:
    """Text of README.md: what it is, data, participants, scores, how to use it, limits, licence.

    Parameters
    ----------
    config : dict
        Config of a package (`cerebro.training.package`).
    """
    target, signal = config["target"], config["signal"]
    lines = [
        "---",
        "library_name: cerebro",
        "tags: [EEG]",
        "---",
        f"# {config['name']}",
        "",
        _what(config),
        "",
        "## Data",
        "",
        *_data(config),
        "",
        "## Scores",
        "",
        *_scores(config),
        "",
        "## Use",
        "",
        "```bash",
        *_use(config),
        "```",
        "",
        f"It reads {len(signal['channels'])} channels ({_some(signal['channels'])}) at {signal['sfreq']:g} Hz.",
        "Files are `config.json` (everything that rebuilds the model), `model.safetensors` (its weights) and, where",
        "what the training recordings are like is known, `profile.safetensors`. None of them can run code.",
        "",
        "## Limits",
        "",
        *_limits(target),
        "",
        "## Licence",
        "",
        "None is given here. Whoever shares the model decides it, and is bound by what the people recorded agreed to.",
    ]
    return "\n".join(lines) + "\n"


def _what(config: Mapping[str, Any]) -> str:
    encoder = str(config["model"]["encoder"].get("class_path", "an encoder")).rpartition(".")[2]
    target = config["target"]
    made = f"phase `{config['phase']}` of cerebro {config['version']} (commit {config['git_commit']})"
    if not target:
        return f"{encoder} for EEG, made by {made}. It predicts no target: it is what other phases start from."
    if target["kind"] == "classification":
        classes = ", ".join(f"{number} = {name}" for number, name in enumerate(target["classes"]))
        return f"{encoder} that tells the classes of `{target['name']}` ({classes}) from EEG, made by {made}."
    return f"{encoder} that predicts `{target['name']}` from EEG, made by {made}."


def _data(config: Mapping[str, Any]) -> list[str]:
    people = config["participants"]
    name = f" `{config['data_name']}`" if config["data_name"] else ""
    lines = [
        f"- data set{name}, content {config['data_hash'][:16]}",
        f"- {len(people.get('train', []))} participants trained it, {len(people.get('val', []))} chose the best epoch; "
        f"with all that it started from it has seen {len(config['seen'])}",
        "- people are in `config.json` as hashes of their ids: whoever has an id can ask whether it is among them",
    ]
    for link in config["started_from"]:
        run = f", MLflow run {link['mlflow_run_id']}" if link.get("mlflow_run_id") else ""
        lines.append(f"- started from {link['file']} (weights {link['weights_sha256'][:12]}{run})")
    known = "in `config.json` under `processing`" if config["processing"] else "not known to the model"
    return [*lines, f"- what was done to the recordings is {known}"]


def _scores(config: Mapping[str, Any]) -> list[str]:
    if not config["scores"]:
        return ["None were computed."]
    return [
        "Of the validation participants, in the epoch that they chose; expect less of people who chose nothing.",
        "",
        "| score | value |",
        "|---|---|",
        *(f"| {key} | {value:.4g} |" for key, value in sorted(config["scores"].items())),
    ]


def _use(config: Mapping[str, Any]) -> list[str]:
    start = "cerebro fit --config CONFIG.yaml --ckpt_path THIS_FOLDER   # another phase starts from its encoder"
    is_classifier = config["target"].get("kind") == "classification"
    return [*(["cerebro predict THIS_FOLDER recording.edf"] if is_classifier else []), start]


def _limits(target: Mapping[str, Any]) -> list[str]:
    lines = [
        "- It has learned from the participants above, their headset and processing; elsewhere it is untried.",
    ]
    if target:
        lines += [
            "- The scores are no clinical validation: this is no medical device, and it makes no diagnosis.",
            "- Its probabilities are calibrated only as far as somebody has checked that they are.",
        ]
    return lines


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
