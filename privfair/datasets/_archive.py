"""Bounded reading of zip members and gzip files: by exact name, by exact size, never to disk."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence

from privfair.core.exceptions import DataIntegrityError, UnsafeFileError

__all__ = ["MAX_RATIO", "gunzip", "read_member"]

MAX_RATIO = 100
"""A member that claims to unpack to more than this many times its size is refused."""


def _info(archive: zipfile.ZipFile, member: str, label: str) -> zipfile.ZipInfo:
    found = [info for info in archive.infolist() if info.filename == member]
    if len(found) != 1:
        raise DataIntegrityError(
            f"{label} holds {len(found)} entries with the exact name {member!r}, and one is "
            "needed. Download the official archive again, or place the unpacked file itself."
        )
    return found[0]


def read_member(raw: bytes, members: Sequence[str], *, limit: int, label: str) -> bytes:
    """Return one member of a zip archive; several names lead through nested archives.

    Parameters
    ----------
    raw : bytes
        The archive.
    members : sequence of str
        Exact names; all but the last are archives themselves.
    limit : int
        The most bytes that any member may unpack to.
    label : str
        The archive's name, for messages.

    Raises
    ------
    UnsafeFileError
        The declared or real size passes the limit, the ratio passes ``MAX_RATIO``, or the
        member is encrypted.
    DataIntegrityError
        Not a zip archive, or the exact name is not in it once.
    """
    data = raw
    for member in members:
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                info = _info(archive, member, label)
                ratio = info.file_size / max(info.compress_size, 1)
                if info.file_size > limit or ratio > MAX_RATIO or info.flag_bits & 0x1:
                    raise UnsafeFileError(
                        f"{label}: the member {member!r} is encrypted, or would unpack to "
                        f"{info.file_size:,} bytes ({ratio:.0f} times its size); at most "
                        f"{limit:,} bytes and a ratio of {MAX_RATIO} are read."
                    )
                with archive.open(info) as stream:
                    data = stream.read(limit + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise DataIntegrityError(
                f"{label} is not a readable zip archive ({type(error).__name__}). Delete it and "
                "download it again from the official source."
            ) from error
        if len(data) > limit:
            raise UnsafeFileError(f"{label}: {member!r} unpacks to more than {limit:,} bytes.")
    return data


def gunzip(raw: bytes, *, limit: int, label: str) -> bytes:
    """Unpack gzip data to at most ``limit`` bytes, without ever holding more.

    Raises
    ------
    UnsafeFileError
        The content is larger than ``limit``.
    DataIntegrityError
        The data are not gzip, are cut off, or go on after the end of the first member.
    """
    engine = zlib.decompressobj(wbits=31)
    try:
        out = engine.decompress(raw, limit + 1)
    except zlib.error as error:
        raise DataIntegrityError(
            f"{label} is not a gzip file. Delete it and get it again from its source."
        ) from error
    if len(out) > limit:
        raise UnsafeFileError(f"{label} unpacks to more than {limit:,} bytes.")
    if not engine.eof or engine.unused_data:
        raise DataIntegrityError(f"{label} is cut off, or goes on after its end.")
    return out
