"""Files that are whole or absent: atomic writes, folder locks, checksums."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from cerebro.errors import CerebroError, DataError


def write_atomically(path: Path, write: Callable[[BinaryIO], None], n_bytes: int = 0) -> None:
    """Write ``path`` so that it is either complete or not there.

    ``write`` fills a temporary file beside ``path`` (never in another file system), which is flushed to disk and then
    renamed. A full disk raises DataError, which names the ``n_bytes`` needed where they are known, and leaves the old
    file as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            needs = f"needs {n_bytes:,} bytes, " if n_bytes else ""
            raise DataError(
                f"the disk is full while writing {path} ({needs}{free_bytes(path.parent):,} bytes left); free some "
                "space and run the same command again, it continues where it stopped."
            ) from error
        raise
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def copy_atomically(source: Path, target: Path) -> None:
    """Let ``target`` be the file that ``source`` is, as a hard link, or a copy where the file system has no links."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        write_atomically(target, lambda file: _copy_into(source, file), source.stat().st_size)
        return
    os.replace(part, target)
    part.unlink(missing_ok=True)  # it stays where target was the same file already
    sync_folder(target.parent)


def _copy_into(source: Path, target: BinaryIO) -> None:
    with open(source, "rb") as file:
        shutil.copyfileobj(file, target)


def remove_orphans(folder: Path, pattern: str = ".*.part") -> int:
    """Remove the half-written files of killed writers; gives their number.

    Only for the holder of the folder's lock (`lock_folder`): a file of a writer that is still at work would go too.
    ``pattern`` may reach into subfolders that nobody else locks.
    """
    orphans = [path for path in folder.glob(pattern) if path.is_file()]
    for path in orphans:
        path.unlink(missing_ok=True)
    return len(orphans)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, atomically, with sorted keys and a final newline."""
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_atomically(path, lambda file: _write_text(file, text), len(text))


def _write_text(file: BinaryIO, text: str) -> None:
    file.write(text.encode())


def read_json(path: Path) -> Any:
    """Read JSON; a damaged file raises DataError that names it."""
    try:
        return json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no valid JSON ({error}); remove it and run the command that writes it.") from None


def write_checked_json(path: Path, content: dict[str, Any]) -> None:
    """`write_json` of an object with the SHA-256 of its other entries under ``sha256``."""
    write_json(path, {**content, "sha256": _sha256_json(content)})


def read_checked_json(path: Path) -> dict[str, Any]:
    """Object that `write_checked_json` wrote; DataError that names the file if a letter of its meaning has changed."""
    content = read_json(path)
    if not isinstance(content, dict) or content.pop("sha256", "") != _sha256_json(content):
        raise DataError(f"{path} is damaged; remove it and run the command that writes it.")
    return content


def _sha256_json(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_arrays(path: Path) -> dict[str, Any]:
    """All arrays of an ``.npz`` file; a damaged one raises DataError that names it."""
    import numpy as np  # late: whoever only prints help needs no arrays

    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (EOFError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} is damaged ({error}); remove it and run the command that writes it, it makes what is missing."
        ) from None


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def free_bytes(folder: Path) -> int:
    """Bytes that an ordinary user may still write below ``folder``."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def lock_folder(folder: Path, purpose: str) -> Iterator[None]:
    """Let one process at a time write into ``folder``; a second is refused and told of the first.

    The lock is a file ``.lock`` that names host, process and purpose. A lock whose process has ended on this host is
    taken over, so that a killed run never blocks its successor; whether one on another host lives cannot be known here.

    Raises
    ------
    CerebroError
        If another process holds the folder, or it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None
    lock = folder / ".lock"
    me = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "purpose": purpose,
    }
    for _ in range(100):
        try:
            if _make_lock(lock, json.dumps(me)):
                break
        except OSError as error:
            raise _unwritable(folder, error) from None
        _clear_lock(lock, folder)
    else:
        raise CerebroError(f"{lock} cannot be taken; remove it if no other process writes into {folder}.")
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _make_lock(lock: Path, content: str) -> bool:
    """Make the lock with its content in one step; False if there is one."""
    mine = lock.with_name(f".lock.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        mine.write_text(content)
        os.link(mine, lock)
    except (FileExistsError, FileNotFoundError):  # the second: the holder of the lock has tidied up
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP):
            raise
        try:
            with open(lock, "x") as file:  # a file system without hard links
                file.write(content)
        except FileExistsError:
            return False
    finally:
        mine.unlink(missing_ok=True)
    return True


def _clear_lock(lock: Path, folder: Path) -> None:
    """Remove the lock of a dead process; raise if its process lives. Of several that judge one lock, one removes it."""
    with contextlib.suppress(FileNotFoundError), open(lock) as file:
        with contextlib.suppress(OSError):  # a file system without such locks: the check below has to do
            fcntl.flock(file, fcntl.LOCK_EX)
        if not os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
            return  # another process has cleared this one meanwhile
        holder = _holder(file.read())
        if holder is not None and _is_alive(holder):
            is_far = holder["host"] != socket.gethostname()
            raise CerebroError(
                f"{folder} is being written by process {holder['pid']} on {holder['host']} ({holder['purpose']}); "
                "wait for it to end or choose another folder"
                + (f", or remove {lock} if it has ended there." if is_far else ".")
            )
        lock.unlink()


def _unwritable(folder: Path, error: OSError) -> CerebroError:
    return CerebroError(
        f"{folder} cannot be made or written as a folder ({error.strerror}); choose another folder with --out, or "
        "change its permissions."
    )


def _holder(text: str) -> dict[str, Any] | None:
    try:
        content = json.loads(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) and {"host", "pid", "started", "purpose"} <= set(content) else None


def _is_alive(holder: dict[str, Any]) -> bool:
    if holder["host"] != socket.gethostname():
        return True
    try:
        process = psutil.Process(holder["pid"])
        return abs(process.create_time() - holder["started"]) < 2 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
