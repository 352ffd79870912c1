"""What carried a prediction is exactly what changes when it is taken away."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cerebro.data.new_recordings import NewRecording
from cerebro.encoders.base import Encoder
from cerebro.errors import ConfigError, DataError
from cerebro.nn.pooling import mean_over_valid
from cerebro.objectives.supervised import Supervised
from cerebro.readouts.base import Readout
from cerebro.signal import EEGBatch, SignalSpec
from cerebro.training.explain import explain
from cerebro.training.phase import Phase
from cerebro.training.rows import Layout, layout_of, rows_of

LENGTH = 8
SIGNAL = SignalSpec(("A", "B", "C"), ((0.0, 0.1, 0.0), (0.1, 0.0, 0.0), (0.0, 0.0, 0.1)), 8.0, 5 * LENGTH, ("y",))
LAYOUTS = {
    "all windows of all channels": Layout(has_all_channels=True),
    "two windows of all channels": Layout(has_all_channels=True, windows_per_row=2),
    "one window of all channels": Layout(has_all_channels=True, windows_per_row=1),
    "all windows of one channel": Layout(has_all_channels=False),
}


class Loudness(Encoder):
    """A token is the mean square of its patch; ``mixes`` adds the mean over all visible tokens of the row."""

    def __init__(self, signal: SignalSpec, patch: int = LENGTH, mixes: bool = False, hides: bool = False) -> None:
        super().__init__(signal)
        self.d_model, self.patch_samples, self.patch_stride, self.n_layers = 2, patch, patch, 1
        self.mixes = mixes
        self.hides_inputs = hides  # type: ignore[misc]
        self.unused = nn.Parameter(torch.zeros(1))

    def embed(self, batch: EEGBatch) -> Float[Tensor, "B C N D"]:
        whole = batch.eeg[..., : self.n_patches(batch.eeg.shape[2]) * self.patch_samples]
        square = whole.unflatten(2, (-1, self.patch_samples)).square().mean(dim=-1)
        return torch.stack([square, torch.ones_like(square)], dim=-1)

    def mix(
        self, tokens: Float[Tensor, "B C N D"], batch: EEGBatch, hidden: Bool[Tensor, "B C N"] | None = None
    ) -> Float[Tensor, "B C N D"]:
        seen = self.valid(batch) if hidden is None else self.valid(batch) & ~hidden
        tokens = tokens if hidden is None else tokens.masked_fill(hidden[..., None], 0.0)
        if not self.mixes:
            return tokens
        mean = (tokens * seen[..., None]).sum(dim=(1, 2)) / seen.sum(dim=(1, 2)).clamp(min=1)[:, None]
        return tokens + 2 * mean[:, None, None]

    def layer_of(self, parameter: str) -> int:
        return 0


class Plain(Readout):
    """Linear in the mean token: a normalised one would not know how loud it is."""

    def __init__(self, encoder: Encoder, signal: SignalSpec, n_outputs: int) -> None:
        super().__init__(encoder, signal, n_outputs)
        self.linear = nn.Linear(encoder.d_model, n_outputs)

    def forward(
        self, encoder: Encoder, batch: EEGBatch, tokens: Float[Tensor, "B C N D"] | None = None
    ) -> Float[Tensor, "B O"]:
        tokens = encoder(batch) if tokens is None else tokens
        outputs: Tensor = self.linear(mean_over_valid(tokens, encoder.valid(batch)))
        return outputs


def phase_of(**keys: Any) -> Phase:
    phase = Phase(
        "toy",
        SIGNAL,
        lambda signal: Loudness(signal, **keys),
        lambda encoder, signal: Supervised(encoder, signal, "y", Plain, kind="classification"),
    )
    (linear,) = (module for module in phase.objective.modules() if isinstance(module, nn.Linear))
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[0.0, 0.0], [0.3, 0.0]]))
        linear.bias.copy_(torch.tensor([0.0, -0.5]))
    return phase.eval()


def recording_of(eeg: npt.NDArray[Any], channels: tuple[str, ...] = ("A", "B", "C")) -> NewRecording:
    n = len(eeg)
    start = np.arange(n, dtype=np.float64)
    return NewRecording(
        "r", "p", "", eeg.astype(np.float32), channels, start, start + 1, np.full(n, LENGTH, np.int64), 8.0
    )


@pytest.fixture
def eeg() -> npt.NDArray[np.float32]:
    """Windows (5, 3, 8) of which the second and the channel C are loud."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((5, 3, LENGTH)) * np.array([1.0, 3.0, 1.0, 0.5, 1.0])[:, None, None]
    return (noise * np.array([1.0, 0.5, 2.0])[None, :, None]).astype(np.float32)


def probability(phase: Phase, eeg: npt.NDArray[Any], layout: Layout, channels: tuple[str, ...]) -> float:
    rows = rows_of(recording_of(eeg, channels), SIGNAL, layout, 0)
    each = torch.cat([phase.objective.predict(phase.encoder, batch)["y"] for batch in rows.batches])
    return float(each[:, 1].mean())


@pytest.mark.parametrize("hides", [False, True])
@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_taking_a_channel_or_a_moment_away_is_as_if_it_had_not_been_recorded(
    name: str, mixes: bool, hides: bool, eeg: npt.NDArray[Any]
) -> None:
    phase, layout, names = phase_of(mixes=mixes, hides=hides), LAYOUTS[name], ("A", "B", "C")
    found = explain(phase, "y", rows_of(recording_of(eeg), SIGNAL, layout, 0), 5, "toy")
    whole = probability(phase, eeg, layout, names)
    assert found.probability[1] == pytest.approx(whole, abs=1e-6)
    for channel, change in found.channels.items():
        rest = [row for row in range(3) if row != channel]
        without = probability(phase, eeg[:, rest], layout, tuple(names[row] for row in rest))
        assert change[1] == pytest.approx(whole - without, abs=1e-6)
    assert len(found.channels) == 3
    assert [(first, stop) for first, stop, _ in found.moments] == [(n, n + 1) for n in range(5)]
    if layout.windows_per_row in (0, 1):
        for first, _, change in found.moments:
            without = probability(phase, np.delete(eeg, first, axis=0), layout, names)
            assert change[1] == pytest.approx(whole - without, abs=1e-6)
    loudest = max(found.moments, key=lambda moment: float(moment[2][1]))
    assert loudest[0] == 1
    assert max(found.channels, key=lambda channel: float(found.channels[channel][1])) == 2


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_window_alone_is_predicted_from_its_own_tokens(name: str, eeg: npt.NDArray[Any]) -> None:
    phase, layout = phase_of(), LAYOUTS[name]
    found = explain(phase, "y", rows_of(recording_of(eeg), SIGNAL, layout, 0), 5, "toy")
    for window in range(5):
        alone = probability(phase, eeg[window : window + 1], layout, ("A", "B", "C"))
        assert found.windows[window, 1] == pytest.approx(alone, abs=1e-6)
        assert found.windows[window].sum() == pytest.approx(1)


@pytest.mark.parametrize("n_needed", [3, 9])
def test_a_head_that_needs_several_tokens_sees_a_window_among_its_neighbours(
    n_needed: int, eeg: npt.NDArray[Any]
) -> None:
    phase, layout = phase_of(), LAYOUTS["all windows of all channels"]
    phase.objective.readout.fewest_tokens = n_needed
    found = explain(phase, "y", rows_of(recording_of(eeg), SIGNAL, layout, 0), 5, "toy")
    spans = [(0, 3), (0, 3), (1, 4), (2, 5), (2, 5)] if n_needed == 3 else [(0, 5)] * 5
    for window, (first, stop) in enumerate(spans):
        expected = probability(phase, eeg[first:stop], layout, ("A", "B", "C"))
        assert found.windows[window, 1] == pytest.approx(expected, abs=1e-6)


def test_tokens_across_windows_are_encoded_again(eeg: npt.NDArray[Any]) -> None:
    phase = phase_of(patch=5)  # 8 patches in 40 samples, and one that is cut by each border
    layout = LAYOUTS["all windows of all channels"]
    found = explain(phase, "y", rows_of(recording_of(eeg[:5]), SIGNAL, layout, 0), 5, "toy")
    assert np.isfinite(found.windows).all()
    assert max(found.moments, key=lambda moment: float(moment[2][1]))[0] == 1


def test_a_long_recording_loses_several_windows_at_a_time(eeg: npt.NDArray[Any]) -> None:
    long = np.concatenate([eeg] * 20)
    found = explain(
        phase_of(), "y", rows_of(recording_of(long), SIGNAL, LAYOUTS["all windows of all channels"], 0), 100, "toy"
    )
    assert len(found.moments) <= 40
    assert [first for first, _, _ in found.moments[1:]] == [stop for _, stop, _ in found.moments[:-1]]
    assert found.moments[-1][1] == 100


def test_one_channel_and_one_window_have_nothing_to_be_compared_with(eeg: npt.NDArray[Any]) -> None:
    rows = rows_of(recording_of(eeg[:1, :1], ("A",)), SIGNAL, LAYOUTS["all windows of all channels"], 0)
    found = explain(phase_of(), "y", rows, 1, "toy")
    assert found.channels == {}
    assert found.moments == []
    assert found.windows[0, 1] == pytest.approx(found.probability[1])


def test_rows_are_refused_that_the_model_cannot_have(eeg: npt.NDArray[Any]) -> None:
    layout = LAYOUTS["all windows of all channels"]
    with pytest.raises(DataError, match=r"no channel of the model \(A, B, C\)"):
        rows_of(recording_of(eeg, ("X", "Y", "Z")), SIGNAL, layout, 0)
    with pytest.raises(DataError, match="8 Hz after processing and the model 16 Hz"):
        rows_of(recording_of(eeg), SignalSpec(SIGNAL.channels, SIGNAL.positions, 16.0, 40, ("y",)), layout, 0)
    with pytest.raises(DataError, match="that ever changes"):
        rows_of(recording_of(np.zeros_like(eeg)), SIGNAL, layout, 0)
    for windows in ("SlidingWindows", "StimulusLocked"):
        with pytest.raises(ConfigError, match="cerebro predict --config"):
            layout_of({"windows": {"class_path": f"cerebro.data.{windows}"}})
    with pytest.raises(ConfigError, match="MapChannels"):
        layout_of({"windows": {"class_path": "RecordingWindows"}, "channels": {"class_path": "MapChannels"}})
