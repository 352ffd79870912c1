"""EDF files written by hand, so that a test can break one field of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass
class Signal:
    """One signal: counts of shape (records, samples per record) and what the header says."""

    label: str
    counts: np.ndarray
    unit: str = "uV"
    physical: tuple[str, str] = ("-3276.8", "3276.7")
    digital: tuple[str, str] = ("-32768", "32767")

    def values(self) -> np.ndarray:
        """Physical values, float64, (T,)."""
        low, high = map(float, self.physical)
        least, most = map(float, self.digital)
        return low + (self.counts.ravel().astype(float) - least) * (high - low) / (most - least)


def noise(label: str, n_records: int = 10, n_samples: int = 250, seed: int = 0, **header: object) -> Signal:
    """A signal of seeded noise of about 50 microvolts at steps of 0.1."""
    draw = np.random.default_rng([seed, *label.encode()])
    return Signal(label, draw.normal(0, 500, (n_records, n_samples)).astype("<i2"), **header)  # type: ignore[arg-type]


def write_edf(
    path: Path,
    signals: list[Signal],
    patient: str = "aaaaaaaa M 01-JAN-1950 aaaaaaaa Age:51",
    reserved: str = "",
    record_s: str = "1",
) -> Path:
    """Write an EDF file; nothing is checked."""
    n_records = len(signals[0].counts)
    fixed = [
        ("0", 8), (patient, 80), ("Startdate 01-JAN-2001 X X X", 80), ("01.01.01", 8), ("00.00.00", 8),
        (str(256 * (len(signals) + 1)), 8), (reserved, 44), (str(n_records), 8), (record_s, 8), (str(len(signals)), 4),
    ]  # fmt: skip
    cells = [
        (16, [s.label for s in signals]), (80, [""] * len(signals)), (8, [s.unit for s in signals]),
        (8, [s.physical[0] for s in signals]), (8, [s.physical[1] for s in signals]),
        (8, [s.digital[0] for s in signals]), (8, [s.digital[1] for s in signals]),
        (80, [""] * len(signals)), (8, [str(s.counts.shape[1]) for s in signals]), (32, [""] * len(signals)),
    ]  # fmt: skip
    head = b"".join(text.encode("latin-1").ljust(width) for text, width in fixed)
    head += b"".join(text.encode("latin-1").ljust(width) for width, texts in cells for text in texts)
    body = np.concatenate([signal.counts for signal in signals], axis=1).astype("<i2")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + body.tobytes())
    return path
