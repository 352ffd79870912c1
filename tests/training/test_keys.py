"""Keys of the trainer that contradict the way cerebro trains are refused."""

import pytest

from cerebro.errors import ConfigError
from cerebro.training.keys import TrainerKeys


def test_several_devices_are_refused_with_the_command_that_starts_several_processes() -> None:
    with pytest.raises(ConfigError, match=r"torchrun --nproc_per_node=2 -m cerebro fit"):
        TrainerKeys(devices=2)
