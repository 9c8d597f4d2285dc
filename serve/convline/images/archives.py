"""Images inside .zip and .tar files, read from where they lie: nothing is unpacked, no name in them becomes a path.

The list is made once; a worker then needs only the place of one member, so memory does not grow with the workers.
A compressed tar has no places and is refused.
"""

import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from convline.errors import InputError

SUFFIXES = (".zip", ".tar")
MAX_BYTES = 2**28  # of one member: an image above it is no photo
ENCRYPTED = 0x1  # flag bit of a zip member
LOCAL = struct.Struct(
    "<4s22xHH"
)  # a member's own header: signature ... length of name, length of extra field


@dataclass(frozen=True)
class Member:
    """Where a file lies in an archive; `stored` bytes that are `size` bytes when they are inflated."""

    archive: str
    name: str
    start: int  # of the data in a tar, of the member's header in a zip
    stored: int
    size: int
    method: int | None = None  # of a zip: 0 as it is, 8 deflated; None in a tar
    crc: int = 0
    encrypted: bool = False
    trouble: str = ""  # why there are no bytes to read

    @property
    def path(self) -> str:
        return f"{self.archive}/{self.name}"

    def read(self) -> bytes:
        """Return the bytes; InputError where it is too large, encrypted, damaged, or the file has changed."""
        if self.trouble:
            raise InputError(self.path, self.trouble)
        if max(self.size, self.stored) > MAX_BYTES:
            raise InputError(
                self.path,
                f"expected at most {MAX_BYTES} bytes in an archive, got {self.size}; unpack it",
            )
        if self.encrypted or self.method not in (None, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            how = "encrypted" if self.encrypted else f"compression method {self.method}"
            raise InputError(self.path, f"expected stored or deflated bytes, got {how}; unpack it")
        try:
            with open(self.archive, "rb") as file:
                file.seek(self.start)
                if self.method is not None:
                    signature, name, extra = LOCAL.unpack(file.read(LOCAL.size))
                    if signature != b"PK\x03\x04":
                        raise ValueError("no file begins there")
                    file.seek(name + extra, os.SEEK_CUR)
                data = file.read(self.stored)
            if self.method == zipfile.ZIP_DEFLATED:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, self.size + 1)
            if len(data) != self.size or (self.method is not None and zlib.crc32(data) != self.crc):
                raise ValueError("its bytes are not those that were packed")
        except (OSError, ValueError, struct.error, zlib.error) as error:
            raise InputError(self.path, f"the archive is damaged: {error}") from error
        return data


def members(path: str) -> Iterator[Member]:
    """Yield what is not a folder in an archive, in its own order; InputError where it is no archive.

    A tar's links, devices and sparse files have no bytes of their own in one place: reading such a member says so.
    """
    try:
        if path.lower().endswith(".tar"):
            with tarfile.open(path, "r:") as tar:
                for entry in tar:
                    if not entry.isdir():
                        places = entry.offset_data, entry.size, entry.size
                        yield Member(path, entry.name, *places, trouble=_trouble(entry))
                    tar.members = []  # type: ignore[attr-defined]  # it would remember every one of a million
            return
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    places = info.header_offset, info.compress_size, info.file_size
                    locked = bool(info.flag_bits & ENCRYPTED)
                    yield Member(path, info.filename, *places, info.compress_type, info.CRC, locked)
    except (
        OSError,
        tarfile.TarError,
        zipfile.BadZipFile,
        ValueError,
        struct.error,
        zlib.error,
        EOFError,
    ) as error:
        kind = "zip" if path.lower().endswith(".zip") else "uncompressed tar"
        raise InputError(
            path, f"expected a {kind} archive, got none ({error}); unpack it"
        ) from error


def _trouble(entry: tarfile.TarInfo) -> str:
    """Return why the bytes of a tar's entry cannot be read from one place, "" where they can."""
    if entry.isreg() and not entry.issparse():
        return ""
    kinds = {tarfile.LNKTYPE: "a hard link", tarfile.SYMTYPE: "a symbolic link"}
    kind = (
        "a sparse file"
        if entry.issparse()
        else kinds.get(entry.type, "a pipe, device or other entry")
    )
    return f"expected a regular file in the archive, got {kind}; unpack it"
