"""Which row of a table, computed before, belongs to each sample of a batch."""

import torch
from jaxtyping import Int64
from torch import Tensor


class SampleRows:
    """Rows of a table by the number of the sample (``EEGBatch.sample``), on the device of ``sample``.

    Parameters
    ----------
    sample : int64 (W,)
        Number of the sample that each row of the table is of, each once.
    """

    def __init__(self, sample: Int64[Tensor, " W"]) -> None:
        absent = len(sample)  # out of range: a sample that is not in the table is an error and never another's row
        self.row = torch.full((int(sample.max()) + 1,), absent, dtype=torch.int64, device=sample.device)
        self.row[sample] = torch.arange(len(sample), device=sample.device)

    def of(self, sample: Int64[Tensor, " B"]) -> Int64[Tensor, " B"]:
        """Row of each; indexing the table with it raises ``IndexError`` where a sample has none."""
        return self.row[sample]
