"""What ``cerebro process-primary`` does to one recording: the keys of its YAML, and the names that follow from them."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cerebro.data.preprocess import NARROWEST_TRANSITION_HZ, Preprocessing
from cerebro.dsp.filters import lowpass_transition_hz
from cerebro.errors import ConfigError, DataError, check_positive
from cerebro.files import read_json, write_json
from cerebro.montage import Montage, hbn_129, read_asa, standard_1005

MONTAGES = {"standard_1005": standard_1005, "hbn_129": hbn_129}
PROCESSING_FILE = "processing.json"  # of a store
DIGITS = 16  # of a SHA-256 that names a source
LONGEST_NAME = 120  # letters of a channel list in the name of a file, of which a file system takes 255 in all


@dataclass(frozen=True)
class Processing:
    """What is done to every recording of a primary data set; its windows depend on nothing else.

    Upsampling, filtering and downsampling are linear, and so they are done in one pass in the frequency domain
    (`cerebro.data.preprocess`): the result is that of the three steps one after another. Recordings at a rate above
    ``upsample_hz`` are filtered at their own.

    Parameters
    ----------
    channels : tuple of str
        Electrodes, in the order in which they are kept; upper and lower case are the same. Empty = all of a recording.
    montage : {"standard_1005", "hbn_129"}
        Electrodes that labels of channels may mean.
    asa_path : Path or None
        ASA electrode file (``.elc``) with names and places to use in place of ``montage``.
    reference : {"as_is", "average"}
        ``average`` subtracts, after filtering, the mean over all usable electrodes of the recording, eight or more.
    upsample_hz : float
        Rate at which the filter works, at least ``downsample_hz``; 0 = nothing is upsampled, and a recording at a rate
        below ``downsample_hz`` is refused.
    highpass_hz, lowpass_hz : float
        Edges of the pass band; a ``highpass_hz`` of 0 keeps slow drifts.
    notch_hz : float
        Frequency of the power line, 50 or 60; 0 = no notch. One in the stop band needs none and gets none.
    downsample_hz : float
        Rate of the windows.
    parent_window_s : float
        Seconds of the parent windows, side by side from the start of the recording.
    window_s : float
        Seconds of the windows, cut from a parent; none crosses the border of its parent.
    overlap : float
        Share of a window that it has in common with the next one of its parent, in [0, 1).
    peak_uV : float
        Windows in which a channel goes beyond plus or minus this, without its offset, are left out; 0 = no limit.
    flat : {"leave_out", "keep"}
        What becomes of windows in which a channel never changes that changes elsewhere. A channel that never changes
        in the whole recording is kept as zeros and counted.
    railed : {"leave_out", "keep"}
        What becomes of windows in which a channel lies at a rail of its converter (`cerebro.data.plausible`).

    Raises
    ------
    ConfigError
        In one line, if the numbers do not fit each other.
    """

    channels: tuple[str, ...] = ()
    montage: Literal["standard_1005", "hbn_129"] = "standard_1005"
    asa_path: Path | None = None
    reference: Literal["as_is", "average"] = "as_is"
    upsample_hz: float = 512.0
    highpass_hz: float = 0.5
    lowpass_hz: float = 45.0
    notch_hz: float = 50.0
    downsample_hz: float = 256.0
    parent_window_s: float = 32.0
    window_s: float = 8.0
    overlap: float = 0.0
    peak_uV: float = 0.0
    flat: Literal["leave_out", "keep"] = "leave_out"
    railed: Literal["leave_out", "keep"] = "leave_out"

    def __post_init__(self) -> None:
        check_positive("downsample_hz", self.downsample_hz)
        check_positive("window_s", self.window_s)
        if self.upsample_hz and not self.upsample_hz >= self.downsample_hz:
            raise ConfigError(
                f"upsample_hz={self.upsample_hz:g} is below downsample_hz={self.downsample_hz:g}; set upsample_hz to "
                f"{self.downsample_hz:g} or more, or to 0 to upsample nothing."
            )
        highest = self.downsample_hz / 2 - NARROWEST_TRANSITION_HZ
        if not 0 <= self.highpass_hz < self.lowpass_hz <= highest:
            raise ConfigError(
                f"band {self.highpass_hz:g}-{self.lowpass_hz:g} Hz does not fit downsample_hz={self.downsample_hz:g}; "
                f"set 0 <= highpass_hz < lowpass_hz <= {highest:g}, or a higher downsample_hz."
            )
        if self.notch_hz and not self.notch_hz > 1:
            raise ConfigError(f"notch_hz={self.notch_hz:g} is no power line's frequency; set it to 50, 60 or 0 (none).")
        if not 0 <= self.overlap < 1:
            raise ConfigError(f"overlap={self.overlap:g} is no share of a window; set overlap to 0 or more, below 1.")
        if not self.peak_uV >= 0:
            raise ConfigError(f"peak_uV={self.peak_uV:g} is no limit; set peak_uV to microvolts, or to 0 for none.")
        if not self.window_s <= self.parent_window_s < 1e6:
            raise ConfigError(
                f"parent_window_s={self.parent_window_s:g} holds no window of window_s={self.window_s:g}; set "
                f"parent_window_s to {self.window_s:g} or more."
            )
        for name, seconds in (
            ("window_s", self.window_s),
            ("parent_window_s", self.parent_window_s),
            ("window_s x (1 - overlap)", self.window_s * (1 - self.overlap)),
        ):
            n_samples = seconds * self.downsample_hz
            if abs(n_samples - round(n_samples)) > 1e-6 or round(n_samples) < 1:
                raise ConfigError(
                    f"{name}={seconds:g} s is {n_samples:g} samples at downsample_hz={self.downsample_hz:g}; make it a "
                    "whole number of samples."
                )
        twice = [name for name in self.channels if [one.upper() for one in self.channels].count(name.upper()) > 1]
        if twice:
            raise ConfigError(f"channels names {twice[0]} twice; name each electrode once.")

    @property
    def window_samples(self) -> int:
        """Samples of a window."""
        return round(self.window_s * self.downsample_hz)

    @property
    def parent_samples(self) -> int:
        """Samples of a parent window."""
        return round(self.parent_window_s * self.downsample_hz)

    @property
    def step_samples(self) -> int:
        """Samples from the start of a window to that of the next one of its parent."""
        return round(self.window_s * (1 - self.overlap) * self.downsample_hz)

    def electrodes(self) -> Montage:
        """Electrodes of the montage, or those of its electrode file."""
        return MONTAGES[self.montage]() if self.asa_path is None else read_asa(self.asa_path)

    def filters(self, sfreq: float) -> Preprocessing:
        """The one pass in which a recording at ``sfreq`` Hz is upsampled, filtered, downsampled and re-referenced.

        Raises
        ------
        DataError
            If the recording is slower than ``downsample_hz`` and nothing is to be upsampled.
        """
        if sfreq < self.downsample_hz and not self.upsample_hz:
            raise DataError(
                f"the recording has {sfreq:g} Hz, less than downsample_hz={self.downsample_hz:g}; set upsample_hz to "
                f"{self.downsample_hz:g} or more, or downsample_hz to {sfreq:g}."
            )
        nyquist_hz = min(sfreq, self.downsample_hz) / 2
        stop_hz = self.lowpass_hz + lowpass_transition_hz(self.lowpass_hz, max(nyquist_hz, self.lowpass_hz))
        return Preprocessing(
            sfreq=self.downsample_hz,
            highpass_hz=self.highpass_hz,
            lowpass_hz=self.lowpass_hz,
            notch_hz=self.notch_hz if self.notch_hz < stop_hz else 0.0,
            reference=self.reference,
        )

    def plain(self) -> dict[str, Any]:
        """Plain types for JSON, from which `from_plain` makes an equal one."""
        return asdict(self) | {
            "channels": list(self.channels),
            "asa_path": None if self.asa_path is None else str(self.asa_path),
        }

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> "Processing":
        """The processing that `plain` described.

        Raises
        ------
        ConfigError
            In one line, for unknown keys: another version of cerebro wrote them.
        """
        unknown = sorted(set(content) - set(cls.__dataclass_fields__))
        if unknown:
            raise ConfigError(f"processing has the unknown key {unknown[0]!r}; another version of cerebro wrote it.")
        asa_path = content.get("asa_path")
        return cls(
            **{
                **content,
                "channels": tuple(content.get("channels", ())),
                "asa_path": None if asa_path is None else Path(asa_path),
            }
        )


def data_set_name(window_s: float, channels: Sequence[str]) -> str:
    """``8s_af7-af8-tp9-tp10``: the start of the names of files and folders of a primary data set.

    A list of channels longer than `LONGEST_NAME` letters becomes its number and the first eight digits of the SHA-256
    of the list, ``8s_64ch-1f0e9a3c``; the file itself says which channels they are.
    """
    listed = "-".join(re.sub(r"[^a-z0-9.+]", "_", name.lower()) for name in channels)
    if len(listed) > LONGEST_NAME:
        listed = f"{len(channels)}ch-{hashlib.sha256(listed.encode()).hexdigest()[:8]}"
    return f"{window_s:g}s_{listed}"


def processing_of(store: Path) -> dict[str, Any]:
    """What made a store of a primary data set: ``data_hash, processing, label, sources``; ``{}`` for any other store.

    Raises
    ------
    DataError
        If it speaks of other data than the store holds.
    """
    path = Path(store) / PROCESSING_FILE
    if not path.is_file():
        return {}
    content = read_json(path)
    manifest = Path(store) / "manifest.json"
    if manifest.is_file() and read_json(manifest).get("data_hash") != content.get("data_hash"):
        raise DataError(
            f"{path} speaks of other data than {store} holds; run `cerebro process-primary` again, or remove the file "
            "if the store was prepared by hand."
        )
    return dict(content)


def write_processing(
    store: Path, data_hash: str, plan: Processing, column: str, values: Sequence[str], sources: Mapping[str, str]
) -> None:
    """Keep beside a store how its windows were made.

    Parameters
    ----------
    column, values
        Where the label stands, and the names of label 0 and 1, empty without one.
    sources : mapping of str to str
        Recording of the store -> hash of the raw file that it was made of (SHA-256, 16 digits).
    """
    label = {"column": column, "values": list(values)}
    content = {"data_hash": data_hash, "processing": plan.plain(), "label": label, "sources": dict(sources)}
    write_json(store / PROCESSING_FILE, content)
