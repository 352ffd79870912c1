"""By which bytes a recording is known: those of its source and, where windows were cut from raw files, of these too."""

import pandas as pd

from cerebro.data.mixture import Mixture
from cerebro.data.processing import DIGITS, processing_of
from cerebro.data.store import Store


def sources_of(store: Store, recordings: pd.DataFrame) -> dict[str, str]:
    """Hash (SHA-256, 16 digits) of the source of recordings -> recording.

    Of a primary data set both the file of windows and the raw files that they were cut from count, also where it is a
    member of a mixture.

    Parameters
    ----------
    store : Store
    recordings : DataFrame
        Rows of the store's table of recordings, with ``key`` and ``source_sha256``.

    Raises
    ------
    DataError
        If what stands beside the store speaks of other data.
    """
    pairs = zip(recordings["source_sha256"].astype(str), recordings["key"].astype(str), strict=True)
    found = {digest[:DIGITS]: key for digest, key in pairs if digest}
    members = [("", store)]
    if isinstance(store, Mixture):
        members = [(f"{member.name}/", member.store) for member in store.members]
    there = set(recordings["key"].astype(str))
    for prefix, one in members:
        raw: dict[str, str] = processing_of(one.path).get("sources", {})
        found |= {digest: f"{prefix}{key}" for key, digest in raw.items() if f"{prefix}{key}" in there}
    return found
