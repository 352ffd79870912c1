"""Files below a folder, also behind links: data sets are often put together of links to disks and subsets."""

import os
from pathlib import Path
from typing import NoReturn

from cerebro.errors import DataError


def files_below(root: Path, pattern: str) -> list[Path]:
    """Paths below ``root`` that fit a glob and are no folders, sorted; a link that leads nowhere is one of them.

    Unlike that of `pathlib.Path.glob`, ``**`` enters folders that are links, and none that is hidden (`folders_below`).

    Raises
    ------
    DataError
        If a folder cannot be listed.
    """
    before, stars, after = pattern.partition("**/")
    if not stars:
        return sorted(path for path in root.glob(pattern) if not path.is_dir())
    starts = sorted(root.glob(before)) if before else [root]
    folders = [folder for start in starts if start.is_dir() for folder in folders_below(start)]
    return sorted({path for folder in folders for path in files_below(folder, after)})


def folders_below(root: Path) -> list[Path]:
    """``root`` and the folders below it, each once: under a link's name only where it stands nowhere below ``root``.

    Hidden folders are not entered: git-annex keeps the files of a data set a second time below ``.git``.

    Raises
    ------
    DataError
        If a folder cannot be listed.
    """
    found: list[Path] = []
    entered: set[tuple[int, int]] = set()
    tops = [root]  # links wait until all that is no link has been entered
    for top in tops:
        for folder, names, _ in os.walk(top, onerror=_refuse):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in entered:
                names.clear()
                continue
            entered.add((status.st_dev, status.st_ino))
            found.append(Path(folder))
            names[:] = sorted(name for name in names if not name.startswith("."))
            tops += [Path(folder, name) for name in names if os.path.islink(os.path.join(folder, name))]
    return found


def _refuse(error: OSError) -> NoReturn:
    raise DataError(
        f"folder {error.filename} cannot be listed ({error.strerror}); make it readable or take it out of the data set."
    )
