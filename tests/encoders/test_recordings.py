"""Every encoder takes samples of several channels and windows of a recording, and is trained on them."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from cerebro.data import EEGData, ParticipantSplit, RecordingWindows
from cerebro.data.arrays import write_store
from cerebro.data.readers.base import Segment
from cerebro.data.store import Store
from cerebro.encoders import Encoder, LaBraM, Mamba2, SignalJEPA, Transformer
from cerebro.montage import standard_1005
from cerebro.objectives import Supervised
from cerebro.readouts import MLPReadout
from cerebro.signal import SignalSpec

LENGTH, SFREQ = 2048, 256.0
CHANNELS = ("AF7", "AF8", "TP9", "TP10")
ENCODERS: dict[str, tuple[int, Callable[[SignalSpec], Encoder]]] = {
    "Mamba2": (0, partial(Mamba2, d_model=16, n_layers=2, d_state=8, headdim=8)),
    "Transformer": (0, partial(Transformer, d_model=16, n_layers=1)),
    "LaBraM": (1, partial(LaBraM, patch_samples=256, conv_stride=32, conv_channels=2, depth=1, n_heads=2)),
    "SignalJEPA": (1, partial(SignalJEPA, depth=1, feedforward=32)),
}
WAYS = [("mean", "mean"), ("attention", "attention"), ("concat", "statistics"), ("concat", "vote")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Eight people with two to four windows of 8 s; one lacks an electrode, one has a dead one."""
    draw = np.random.default_rng(0)
    n_windows = {f"p{i}": 2 + i % 3 for i in range(8)}
    eeg = {key: draw.normal(0, 20, (4, n * LENGTH)).astype(np.float32) for key, n in n_windows.items()}
    eeg["p1"], eeg["p2"][3] = eeg["p1"][:3], 0
    full = standard_1005()
    rows = [full.channels.index(name) for name in CHANNELS]
    return write_store(
        tmp_path_factory.mktemp("recordings") / "s",
        eeg,
        type(full)("muse", CHANNELS, full.positions[rows]),
        SFREQ,
        tasks=dict.fromkeys(eeg, "rest"),
        people={key: key for key in eeg},
        participants=pd.DataFrame(
            {"remission": np.arange(8) // 2 % 2.0}, index=pd.Index(list(eeg), name="participant_id")
        ),
        channels={"p1": CHANNELS[:3]},
        segments={
            key: tuple(
                Segment(i, 0, 8.0 * i, 8.0 * i + 8, 1300 if key == "p3" and i == n - 1 else LENGTH) for i in range(n)
            )
            for key, n in n_windows.items()
        },
    )


def data_of(store: Store, windows_per_sample: int) -> EEGData:
    windows = RecordingWindows(windows_per_sample)
    split = ParticipantSplit(val_ratio=0.0, test_ratio=0.0, seed=0)
    data = EEGData(store.path, windows, split, ("remission",), batch_size=4)
    data.for_device(torch.device("cpu"))
    return data


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ENCODERS)
def test_a_supervised_phase_runs_two_steps_on_recordings(store: Store, name: str, way: tuple[str, str]) -> None:
    windows_per_sample, build = ENCODERS[name]
    data = data_of(store, windows_per_sample)
    torch.manual_seed(0)
    encoder = build(data.signal)
    readout = partial(MLPReadout, over_channels=way[0], over_windows=way[1])
    objective = Supervised(encoder, data.signal, "remission", readout, "classification")
    batches = [raw.to_microvolts() for raw in data.train_dataloader()]
    objective.start(encoder, batches)
    trained = [*encoder.named_parameters(), *objective.readout.named_parameters()]
    before = [parameter.detach().clone() for _, parameter in trained]
    parameters = [parameter for _, parameter in trained]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    for batch in batches[:2]:
        loss = objective(encoder, batch)
        assert bool(loss.total.isfinite())
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
    still = [name for (name, now), then in zip(trained, before, strict=True) if torch.equal(now, then)]
    assert set(still) <= {"mask_token"}
    predicted = objective.predict(encoder, batches[0])["remission"]
    torch.testing.assert_close(predicted.sum(dim=1), torch.ones(len(predicted)))


@pytest.mark.parametrize("name", ENCODERS)
def test_a_recording_is_predicted_alike_alone_and_in_a_batch(store: Store, name: str) -> None:
    windows_per_sample, build = ENCODERS[name]
    data = data_of(store, windows_per_sample)
    torch.manual_seed(0)
    encoder = build(data.signal).eval()
    heads = [MLPReadout(encoder, data.signal, 2, over_channels=a, over_windows=b).eval() for a, b in WAYS]
    loader = data.predict_dataloader()
    n_padded = 0
    with torch.no_grad():
        for raw in loader:
            batch = raw.to_microvolts()
            n_padded += batch.is_padded
            for row, sample in enumerate(batch.sample.numpy()):
                one = loader.maker.make(np.array([sample]), 0).to_microvolts()
                for head in heads:
                    torch.testing.assert_close(head(encoder, batch)[row], head(encoder, one)[0], rtol=1e-3, atol=1e-4)
    assert n_padded > 0
