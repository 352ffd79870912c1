import google_crc32c
import numpy as np
import pytest

from cerebro.data import page_checksums as module
from cerebro.data.page_checksums import PAGE, has_instruction, page_checksums


@pytest.mark.parametrize("n_pages", [0, 1, 2, 3, 4, 5, 600, 601, 602, 603])
@pytest.mark.parametrize("fewest", [0, 10_000])
def test_pages_have_the_checksums_that_the_library_gives_them(n_pages, fewest, monkeypatch):
    if fewest == 0 and not has_instruction():
        pytest.skip("this processor has no instruction for CRC-32C")
    monkeypatch.setattr(module, "FEWEST_PAGES", fewest)
    generator = np.random.default_rng(n_pages)
    flat = generator.integers(0, 256, 100 * PAGE, dtype=np.uint8)
    starts = generator.integers(0, 99 * PAGE + 1, n_pages)  # any place, aligned to nothing
    expected = [google_crc32c.value(flat[start : start + PAGE].tobytes()) for start in starts]
    assert page_checksums(flat, starts).tolist() == expected


@pytest.mark.parametrize("start", [-1, 3 * PAGE + 1])
def test_a_page_outside_the_array_is_refused(start):
    with pytest.raises(IndexError, match="outside 16,384 bytes"):
        page_checksums(np.zeros(4 * PAGE, np.uint8), np.array([start]))
