"""Mamba-2 and the transformer learn under the objectives that all encoders share, on challenge windows."""

import pytest
import torch

from cerebro.encoders import Mamba2, Transformer
from cerebro.montage import hbn_129
from cerebro.objectives import Contrastive, Supervised, WeightedSum
from cerebro.readouts import LinearReadout, MLPReadout
from cerebro.signal import EEGBatch, SignalSpec

ENCODERS = {
    "Mamba2": lambda signal: Mamba2(signal, 50, 32, 2, "bidirectional", d_state=16, headdim=8),
    "Transformer": lambda signal: Transformer(signal, 50, 32, 2),
}


def trait(encoder, signal):
    return Supervised(encoder, signal, target="trait", readout=LinearReadout)


def state(encoder, signal):
    return Supervised(encoder, signal, target="state", readout=MLPReadout, kind="classification")


OBJECTIVES = {
    "contrastive": Contrastive,
    "supervised": trait,
    "classification": state,
    "auxiliary": lambda e, s: WeightedSum(
        e, s, {"contrastive": Contrastive, "trait": trait}, {"contrastive": 1.0, "trait": 0.15}
    ),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_loss_falls_on_simulated_eeg(toy_signal, toy_eeg, encoder, objective):
    torch.manual_seed(0)
    model = ENCODERS[encoder](toy_signal)
    learned = OBJECTIVES[objective](model, toy_signal)
    batches = [toy_eeg(16, seed) for seed in range(4)]
    learned.start(model, batches * 10)
    optimiser = torch.optim.AdamW([*model.parameters(), *learned.parameters()], lr=3e-3, weight_decay=0.0)
    losses = []
    for step in range(40):
        loss = learned(model, batches[step % 4]).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4]), losses


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_challenge_window_of_129_channels_gives_one_prediction(encoder):
    cap = hbn_129()
    places = tuple((float(x), float(y), float(z)) for x, y, z in cap.positions)
    signal = SignalSpec(tuple(cap.channels), places, 100.0, 200, ("response_time",))
    model, rows = ENCODERS[encoder](signal), torch.arange(2)
    batch = EEGBatch(
        eeg=20 * torch.randn(2, 129, 200, generator=torch.Generator().manual_seed(0)),
        channel=torch.arange(129).repeat(2, 1),
        n_valid=torch.full((2,), 200),
        key=rows,
        sample=rows,
        recording=rows,
        participant=rows,
        pair=rows,
        targets={"response_time": torch.tensor([0.7, 1.4])},
        known={"response_time": torch.ones(2, dtype=torch.bool)},
        is_padded=False,
    )
    assert model(batch).shape == (2, 129, 4, 32)
    objective = Supervised(model, signal, target="response_time", readout=LinearReadout)
    loss = objective(model, batch).total
    loss.backward()
    assert bool(loss.isfinite())
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())
