"""Every column of a feature table: how it is named, its unit, what it means and where it comes from."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from cerebro.dsp.spectrum import ALPHA, BETA, DELTA, THETA, Band
from cerebro.hemispheres import homologous

GAMMA = Band("gamma", 30.0, 45.0)  # ends below the line noise of 50 and 60 Hz
FEATURE_BANDS = (DELTA, THETA, ALPHA, BETA, GAMMA)
WELCH = "Welch 1967, doi:10.1109/TAU.1967.1161901"
HJORTH = "Hjorth 1970, doi:10.1016/0013-4694(70)90143-4"
_EDGES = ", ".join(f"{band.name} {band.low_hz:g}-{band.high_hz:g}" for band in FEATURE_BANDS)


@dataclass(frozen=True)
class Feature:
    """One kind of column.

    Parameters
    ----------
    pattern : str
        Name of its columns, with ``{channel}``, ``{left}-{right}`` and ``{band}`` for what varies.
    unit : str
        Unit of the values; ``1`` where they have none.
    meaning : str
        How a value is computed from one window.
    source : str
        Paper, and the function of a library where one computes it.
    is_scale : bool
        Whether it grows with the size of the signal, so that its logarithm is what models should see.
    """

    pattern: str
    unit: str
    meaning: str
    source: str
    is_scale: bool = False

    def columns(self, channels: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[str]:
        """Names of its columns for ``channels`` and homologous ``pairs`` of them."""
        bands = [band.name for band in FEATURE_BANDS] if "{band}" in self.pattern else [""]
        if "{left}" in self.pattern:
            return [self.pattern.format(left=left, right=right, band=band) for left, right in pairs for band in bands]
        return [self.pattern.format(channel=channel, band=band) for channel in channels for band in bands]


FEATURES = (
    Feature(
        "{channel}_{band}_power",
        "microvolt^2",
        f"power between the edges of the band ({_EDGES} Hz; the upper edge is outside): the sum over the power density",
        f"{WELCH}; scipy.signal.welch",
        is_scale=True,
    ),
    Feature("{channel}_{band}_relative", "1", "that power over the power from 1 to 45 Hz, 0 to 1", WELCH),
    Feature(
        "{channel}_spectral_edge",
        "Hz",
        "frequency below which 95 % of the power from 1 to 45 Hz lies",
        "Rampil 1998, doi:10.1097/00000542-199810000-00023",
    ),
    Feature("{channel}_median_frequency", "Hz", "the same with 50 %", "as the spectral edge"),
    Feature(
        "{channel}_spectral_entropy",
        "1",
        "entropy of the power density from 1 to 45 Hz over its largest value; 0 one frequency, 1 white",
        "Inouye et al. 1991, doi:10.1016/0013-4694(91)90138-T; scipy.stats.entropy",
    ),
    Feature(
        "{channel}_spectral_slope",
        "1",
        "slope of the logarithm of power density over that of frequency, 2 to 40 Hz without 7 to 14 Hz, by least "
        "squares; 0 white, -1 for 1/f",
        "He 2014, doi:10.1016/j.tics.2014.04.003",
    ),
    Feature("{channel}_hjorth_activity", "microvolt^2", "variance", HJORTH, is_scale=True),
    Feature(
        "{channel}_hjorth_mobility",
        "1/s",
        "standard deviation of the slope over that of the signal; about 2 pi f of a sine",
        f"{HJORTH}; antropy.hjorth_params",
    ),
    Feature(
        "{channel}_hjorth_complexity",
        "1",
        "mobility of the slope over that of the signal; 1 of a sine",
        f"{HJORTH}; antropy.hjorth_params",
    ),
    Feature("{channel}_sd", "microvolt", "standard deviation, which is also the RMS: a window has no offset", "", True),
    Feature("{channel}_skewness", "1", "third standardised moment; 0 where symmetric", "scipy.stats.skew"),
    Feature(
        "{channel}_kurtosis", "1", "fourth standardised moment less 3; 0 of Gaussian noise", "scipy.stats.kurtosis"
    ),
    Feature("{channel}_peak_to_peak", "microvolt", "largest less smallest value", "", is_scale=True),
    Feature(
        "{channel}_line_length",
        "microvolt/s",
        "sum of the absolute differences of neighbouring samples, over the duration",
        "Esteller et al. 2001, doi:10.1109/IEMBS.2001.1020545",
        is_scale=True,
    ),
    Feature("{channel}_zero_crossings", "1/s", "changes of sign in a second", "antropy.num_zerocross"),
    Feature(
        "{channel}_permutation_entropy",
        "1",
        "entropy of the order of 4 neighbouring samples over its largest value",
        "Bandt and Pompe 2002, doi:10.1103/PhysRevLett.88.174102; antropy.perm_entropy",
    ),
    Feature(
        "{channel}_sample_entropy",
        "1",
        "-ln of how often 2 samples that match elsewhere (within 0.2 standard deviations) match with the third",
        "Richman and Moorman 2000, doi:10.1152/ajpheart.2000.278.6.H2039",
    ),
    Feature(
        "{channel}_higuchi_dimension",
        "1",
        "fractal dimension from the lengths of the curve at 1 to 10 samples; 1 smooth, 2 white noise",
        "Higuchi 1988, doi:10.1016/0167-2789(88)90081-4; antropy.higuchi_fd",
    ),
    Feature(
        "{channel}_petrosian_dimension",
        "1",
        "fractal dimension from how often the slope changes sign; 1 for never",
        "Petrosian 1995, doi:10.1109/CBMS.1995.465426; antropy.petrosian_fd",
    ),
    Feature(
        "{channel}_lempel_ziv",
        "1",
        "number of different pieces of the signal cut at its median, over that of a coin; near 0 regular, 1 random",
        "Lempel and Ziv 1976, doi:10.1109/TIT.1976.1055501; antropy.lziv_complexity",
    ),
    Feature(
        "{left}-{right}_{band}_asymmetry",
        "1",
        "ln of the band's power on the right less that on the left",
        "Allen et al. 2004, doi:10.1016/j.biopsycho.2004.03.007",
    ),
    Feature(
        "{left}-{right}_{band}_coherence",
        "1",
        "magnitude-squared coherence, mean over the band, 0 to 1; of independent signals it is about one over "
        "the number of segments (1/7 in 8 s), not 0",
        "Nunez et al. 1997, doi:10.1016/S0013-4694(97)00066-7; scipy.signal.coherence",
    ),
)


def feature_columns(channels: Sequence[str]) -> list[str]:
    """Names of all columns of ``channels``, as `feature_table` orders them: by channel, then by pair."""
    pairs = homologous(channels)
    alone = [column for channel in channels for feature in FEATURES for column in feature.columns([channel], [])]
    return alone + [column for pair in pairs for feature in FEATURES for column in feature.columns([], [pair])]


def feature_of(column: str) -> Feature | None:
    """What a column of a feature table is; None if it is none of ours."""
    return next((feature for feature in FEATURES if _expression(feature.pattern).fullmatch(column)), None)


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    bands = "|".join(band.name for band in FEATURE_BANDS)
    holes = {"{channel}": ".+", "{left}": ".+", "{right}": ".+", "{band}": f"({bands})"}
    text = re.escape(pattern).replace(r"\{", "{").replace(r"\}", "}")
    for hole, expression in holes.items():
        text = text.replace(hole, expression)
    return re.compile(text)
