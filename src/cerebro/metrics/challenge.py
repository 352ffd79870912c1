"""The total score of the 2025 EEG Foundation Challenge."""

import math


def competition_score(challenge1_nrmse: float, challenge2_nrmse: float) -> float:
    """``0.3 x Challenge 1 + 0.7 x Challenge 2``, lower is better, 1.0 is a constant; NaN if either is missing.

    https://eeg2025.github.io: Challenge 1 predicts response time, Challenge 2 a factor of psychopathology.
    """
    if math.isnan(challenge1_nrmse) or math.isnan(challenge2_nrmse):
        return float("nan")
    return 0.3 * challenge1_nrmse + 0.7 * challenge2_nrmse
