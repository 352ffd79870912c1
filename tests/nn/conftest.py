from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch


@pytest.fixture(scope="session")
def of_threads() -> Callable[[int], AbstractContextManager[None]]:
    """PyTorch with so many threads, within a `with` block."""

    @contextmanager
    def within(n: int) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(n)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    return within
