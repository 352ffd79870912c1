"""The tokenizer that the small configs make: 300 steps on a simulated cohort, judged on people it has not seen."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cerebro.cli.fit import _ask, _parts
from cerebro.cli.main import main
from cerebro.nn.quantizer import CosineCodebook, count_codes
from cerebro.objectives import VQNSP
from cerebro.report.representation import perplexity
from cerebro.signal import EEGBatch
from cerebro.training.checkpoint import read_checkpoint
from cerebro.training.phase import Phase
from cerebro.training.stamp import PhaseData

ROOT = Path(__file__).resolve().parents[2]
N_STEPS, N_WINDOWS = 300, 192

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codebook")
    assert main(["simulate", "--out", str(folder / "cohort"), "--preset", "demo"]) == 0
    reader = ["--reader.init_args.root", str(folder / "cohort"), "--out", str(folder / "store")]
    assert main(["prepare", str(ROOT / "configs/data/demo.yaml"), *reader]) == 0
    config = ["--config", str(ROOT / "configs/labram_small/tokenizer.yaml"), "--out", str(folder / "run")]
    size = ["--data.batches_per_epoch", str(N_STEPS // 5), "--trainer.max_epochs", "5", "--mlflow.enabled", "false"]
    assert main(["fit", *config, "--data.store", str(folder / "store"), *size]) == 0
    return folder / "run"


def load(run: Path, batch_size: int = 32) -> tuple[Phase, PhaseData]:
    build, data, _ = _parts(_ask("fit", ["--config", str(run / "config.yaml"), "--data.batch_size", str(batch_size)]))
    data.setup("fit")
    phase = build(data.signal)
    phase.load_state_dict(read_checkpoint(run / "last.ckpt").weights)
    data.for_device(torch.device("cpu"))
    return phase.eval(), data


@torch.no_grad()
def of_held_out(data: PhaseData, value: Callable[[EEGBatch], Tensor]) -> Tensor:
    return torch.cat([value(batch.to_microvolts()) for batch in data.evaluation_loader("test", N_WINDOWS)])


def test_the_loss_falls_at_each_epoch(run: Path) -> None:
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    losses = [row["val/loss"] for row in history]
    assert history[-1]["step"] == N_STEPS
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]


def test_held_out_people_use_a_fifth_or_more_of_what_k_means_on_them_would(run: Path) -> None:
    phase, data = load(run)
    objective = phase.objective
    assert isinstance(objective, VQNSP)
    tokens = of_held_out(data, lambda batch: objective._features(phase.encoder(batch)).flatten(0, 2))
    n_codes = objective.codebook.n_codes
    own = CosineCodebook(n_codes, tokens.shape[1])
    own.start(tokens, torch.tensor([0]))
    counts = (count_codes(codebook.codes(tokens), n_codes).double().numpy() for codebook in (objective.codebook, own))
    found, best = map(perplexity, counts)
    print(f"{len(tokens)} tokens of held-out people: perplexity {found:.0f}, of a k-means on them {best:.0f}")
    assert len(tokens) > 4 * n_codes
    assert found > 0.2 * best


def test_codes_of_held_out_people_are_the_same_whoever_computes_them(run: Path) -> None:
    codes = []
    for batch_size in (32, 32, 5):
        phase, data = load(run, batch_size)
        assert isinstance(phase.objective, VQNSP)
        codes.append(of_held_out(data, partial(phase.objective.codes, phase.encoder)))
    assert torch.equal(codes[0], codes[1])
    same = (codes[0] == codes[2]).float().mean()
    assert same > 0.999  # a sum of another order may move a patch that lies between two codes
