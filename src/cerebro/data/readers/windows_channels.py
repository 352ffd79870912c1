"""Which columns of a file of windows are electrodes, and files whose channels are not those of the others."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cerebro.data.readers.base import Finding
from cerebro.data.readers.windows_file import FIXED, LABEL, is_list, is_number
from cerebro.errors import DataError
from cerebro.montage import Montage, canonical_names, names_of

N_NAMED = 8  # channels that a finding names


def electrode_columns(file: Any, montage: Montage, ignored: Sequence[str], path: Path) -> dict[str, str]:
    """Electrode -> column, in the order of the montage.

    Raises
    ------
    DataError
        In one line: a column of lists that is no electrode, an electrode of another type, two columns of one
        electrode, no channel at all.
    """
    no_channels = {*FIXED, LABEL, *(name.lower() for name in ignored)}
    columns = [field for field in file.schema_arrow if field.name.lower() not in no_channels]
    try:
        names = canonical_names([field.name for field in columns], montage)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    channels = {}
    for field, name in zip(columns, names, strict=True):
        holds_lists = is_list(field.type)
        if holds_lists and name is None:
            raise DataError(
                f"{path} has a channel {field.name} that montage {montage.name} does not know; choose another montage, "
                "or name it in ignore_columns."
            )
        if name is not None and not (holds_lists and is_number(field.type.value_type)):
            raise DataError(f"{path} column {field.name} holds {field.type}, expected lists of numbers.")
        if name is not None:
            channels[name] = field.name
    if not channels:
        raise DataError(f"{path} has no channel (columns {', '.join(file.schema_arrow.names[:9])}); choose others.")
    order = {name: number for number, name in enumerate(montage.channels)}
    return dict(sorted(channels.items(), key=lambda item: order[item[0]]))


def named_channels(list_columns: Sequence[str], montage: Montage, ignored: Sequence[str]) -> frozenset[str]:
    """Electrodes that columns of lists mean, and the names of those that mean none; nothing is judged."""
    no_channels = {name.lower() for name in ignored}
    labels = [name for name in list_columns if name.lower() not in no_channels]
    return frozenset(name or label for name, label in zip(names_of(labels, montage), labels, strict=True))


def differing_channels(channels: Mapping[str, frozenset[str]]) -> list[Finding]:
    """Files whose channels are not those that most files have (of equally common ones, the most channels).

    Parameters
    ----------
    channels : mapping of str to frozenset of str
        File -> its channels.
    """
    if not channels:
        return []
    n_files = Counter(channels.values())
    usual = max(n_files, key=lambda names: (n_files[names], len(names), sorted(names)))
    found = []
    for where, names in channels.items():
        said = [f"no {', '.join(sorted(usual - names)[:N_NAMED])}"] if usual - names else []
        said += [f"also {', '.join(sorted(names - usual)[:N_NAMED])}"] if names - usual else []
        if said:
            detail = f"has {' and '.join(said)}, unlike {n_files[usual]} of {len(channels)} files; kept with its own"
            found.append(Finding("channels-differ", "repaired", where, detail))
    return found
