"""Left and right of a cap: which electrodes of the 10-05 system mirror each other, told by their names alone."""

import re
from collections.abc import Sequence

# Rows of the 10-05 system (Oostenveld & Praamstra 2001, doi:10.1016/S1388-2457(00)00527-7) from front to back; numbers
# go up to 10, odd ones on the left, and an h stands halfway to the next place.
_ROWS = "NZ|N|FP|AFP|AF|AFF|F|FFT|FFC|FT|FC|FTT|FCC|T|C|TTP|CCP|TP|CP|TPP|CPP|P|PPO|PO|POO|O|OI|I"
_PLACE = re.compile(rf"({_ROWS})(10|[1-9])(H?)")
_OF_BIOSEMI = {"A3", "A4"}  # a cap with both numbers its electrodes by letter, C3 among them


def homologous(channels: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs (left, right) of electrodes that mirror each other in the 10-05 system, in the order of the left ones.

    Odd numbers are left, and the next even one is right: AF7-AF8, TP9-TP10, F3-F4, FFC5h-FFC6h. Names that are no
    places of that system (E11 of a HydroCel net, B3 of a BioSemi cap) have no partner.
    """
    spelled = {channel.strip().upper(): channel for channel in channels}
    if spelled.keys() >= _OF_BIOSEMI:
        return []
    pairs = []
    for upper, channel in spelled.items():
        place = _PLACE.fullmatch(upper)
        if place and int(place[2]) % 2:
            partner = spelled.get(f"{place[1]}{int(place[2]) + 1}{place[3]}")
            pairs += [(channel, partner)] if partner else []
    return pairs
