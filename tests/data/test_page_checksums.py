import sys

import google_crc32c
import numpy as np
import pytest

from cerebro.data import page_checksums as module
from cerebro.data.page_checksums import PAGE, Pages, has_instruction


@pytest.mark.parametrize("n_pages", [0, 1, 2, 3, 4, 5, 600, 601, 602, 603])
@pytest.mark.parametrize("fewest", [0, 10_000])
def test_pages_have_the_checksums_that_the_library_gives_them(n_pages, fewest, monkeypatch):
    if fewest == 0 and not has_instruction():
        pytest.skip("this processor has no instruction for CRC-32C")
    monkeypatch.setattr(module, "FEWEST_PAGES", fewest)
    monkeypatch.delitem(sys.modules, "cerebro.data.checksum_kernel", raising=False)
    generator = np.random.default_rng(n_pages)
    shards = [generator.integers(0, 32768, n * PAGE // 2, dtype=np.int16) for n in (60, 40)]
    which = generator.integers(0, 2, n_pages)
    starts = generator.integers(0, np.array([59, 39])[which] * PAGE + 1)  # any place, aligned to nothing
    wanted = [shards[one].tobytes()[start : start + PAGE] for one, start in zip(which, starts, strict=True)]
    assert Pages(shards).checksums(which, starts).tolist() == [google_crc32c.value(page) for page in wanted]


@pytest.mark.parametrize("start", [-1, 3 * PAGE + 1])
def test_a_page_outside_the_array_is_refused(start):
    pages = Pages([np.zeros(8 * PAGE, np.int16), np.zeros(2 * PAGE, np.int16)])
    with pytest.raises(IndexError, match="outside its shard of 16,384 bytes"):
        pages.checksums(np.array([0, 1]), np.array([0, start]))
