"""Images inside .zip and .tar files. Nothing is unpacked, and no name in them becomes a path.

The list of members is read once. A worker then needs only the position of one member, so memory
does not grow with the number of workers. A compressed tar has no such positions and is refused.
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
MAX_BYTES = 2**28  # of one member: no photo is larger
ENCRYPTED = 0x1  # flag bit of a zip member
# The header before each member's data in a zip: signature, length of the name, of the extra field.
LOCAL_HEADER = struct.Struct("<4s22xHH")
ARCHIVE_ERRORS = (
    OSError, ValueError, EOFError, struct.error, zlib.error, tarfile.TarError, zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True, slots=True)  # there is one for each photo
class Member:
    """The position of one file in an archive."""

    archive: str
    name: str
    start: int  # of the data in a tar, of the member's header in a zip
    stored: int  # bytes in the archive
    size: int  # bytes after decompression
    method: int | None = None  # of a zip: 0 stored, 8 deflated; None in a tar
    crc: int = 0
    encrypted: bool = False
    error: str = ""  # why the member has no bytes to read

    @property
    def path(self) -> str:
        return f"{self.archive}/{self.name}"

    def read(self) -> bytes:
        """Return the bytes of the file.

        Raises InputError if it is too large, encrypted or damaged, or the archive has changed.
        """
        if self.error:
            raise InputError(self.path, self.error)
        if max(self.size, self.stored) > MAX_BYTES:
            limit = f"at most {MAX_BYTES} bytes in an archive"
            raise InputError(self.path, f"expected {limit}, got {self.size}; unpack it")
        if self.encrypted or self.method not in (None, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            how = "encrypted" if self.encrypted else f"compression method {self.method}"
            raise InputError(self.path, f"expected stored or deflated bytes, got {how}; unpack it")
        try:
            with open(self.archive, "rb") as file:
                file.seek(self.start)
                if self.method is not None:
                    signature, name, extra = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
                    if signature != b"PK\x03\x04":
                        raise ValueError("no file begins there")
                    file.seek(name + extra, os.SEEK_CUR)
                data = file.read(self.stored)
            if self.method == zipfile.ZIP_DEFLATED:
                # One byte more than declared is enough to refuse a decompression bomb.
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, self.size + 1)
            if len(data) != self.size or (self.method is not None and zlib.crc32(data) != self.crc):
                raise ValueError("its bytes are not those that were packed")
        except (OSError, ValueError, struct.error, zlib.error) as error:
            raise InputError(self.path, f"the archive is damaged: {error}") from error
        return data


def members(path: str) -> Iterator[Member]:
    """Yield the members of an archive that are not folders, in the order of the archive.

    Links, devices and sparse files of a tar have no bytes in one place: to read one is an error.
    Raises InputError if the file is no archive.
    """
    try:
        if path.lower().endswith(".tar"):
            with tarfile.open(path, "r:") as tar:
                for entry in tar:
                    if not entry.isdir():
                        where = entry.offset_data, entry.size, entry.size
                        yield Member(path, entry.name, *where, error=_why_unreadable(entry))
                    tar.members = []  # type: ignore[attr-defined]  # else it keeps all of a million
            return
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    where = info.header_offset, info.compress_size, info.file_size
                    encrypted = bool(info.flag_bits & ENCRYPTED)
                    yield Member(
                        path, info.filename, *where, info.compress_type, info.CRC, encrypted
                    )
    except ARCHIVE_ERRORS as error:
        kind = "zip" if path.lower().endswith(".zip") else "uncompressed tar"
        reason = f"expected a {kind} archive, got none ({error}); unpack it"
        raise InputError(path, reason) from error


def _why_unreadable(entry: tarfile.TarInfo) -> str:
    """Return why the bytes of a tar's entry cannot be read from one place, "" where they can."""
    if entry.issparse():
        kind = "a sparse file"
    elif entry.isreg():
        return ""
    else:
        links = {tarfile.LNKTYPE: "a hard link", tarfile.SYMTYPE: "a symbolic link"}
        kind = links.get(entry.type, "a pipe, device or other entry")
    return f"expected a regular file in the archive, got {kind}; unpack it"
