import torch

from cerebro.signal import EEGBatch
from cerebro.training.synchrony import _all_channels


def test_channels_come_to_their_rows_and_what_a_recording_lacks_is_zero() -> None:
    eeg = torch.randn(2, 3, 5)
    number = torch.arange(2)
    batch = EEGBatch(
        eeg=eeg,
        channel=torch.tensor([[2, 0, -1], [3, 1, 2]]),
        n_valid=torch.full((2,), 5),
        key=number,
        sample=number,
        recording=number,
        participant=number,
        pair=number,
    )
    found = _all_channels(batch, 4)
    expected = torch.zeros(2, 4, 5)
    expected[0, [2, 0]] = eeg[0, :2]
    expected[1, [3, 1, 2]] = eeg[1]
    assert (found == expected.numpy()).all()
