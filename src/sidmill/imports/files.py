"""The files of a published data set: in a folder, or in archives, which are read in place.

Nothing is extracted: members of .zip and .tar archives are read as streams, so no name in an
archive can lead outside. Links, hidden files and what macOS adds are left out.
"""

import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

import pyarrow as pa

from sidmill.core.errors import SidmillError

ZIPS = (".zip",)
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
COMPRESSIONS = (".gz", ".zst")
DAMAGED = (
    OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowInvalid, zipfile.BadZipFile,
    tarfile.TarError,
)  # fmt: skip


class Entry(NamedTuple):
    """One file of a data set.

    Attributes:
        name: its path for messages: of the file, or of the archive and the member in it.
        path: its path within the data set, with slashes, without .gz or .zst.
        size: bytes as it is stored.
        start: opens it as it is stored.
        local: the file itself, None for a member of an archive.
    """

    name: str
    path: str
    size: int
    start: Callable[[], IO[bytes]]
    local: Path | None

    @property
    def base(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    @contextmanager
    def opened(self) -> Iterator[io.BufferedReader]:
        """Open for reading bytes, decompressed where the name ends in .gz or .zst.

        Raises:
            SidmillError: if it cannot be read to its end.
        """
        try:
            with self.start() as raw, _decompressed(self.name, raw) as stream:
                yield stream
        except DAMAGED as error:
            raise SidmillError(
                f"{self.name}: cannot be read to its end ({error}): fetch it again"
            ) from None


class Files(NamedTuple):
    """All files of a data set.

    Attributes:
        source: what the user named.
        entries: the files, sorted by path.
        fetch: what to fetch, and from where, for messages.
    """

    source: str
    entries: tuple[Entry, ...]
    fetch: str

    def find(self, pattern: str) -> list[Entry]:
        """Files whose last part of the path, without .gz or .zst, matches a regular expression."""
        return [entry for entry in self.entries if re.fullmatch(pattern, entry.base)]

    def need(self, pattern: str, wanted: str) -> list[Entry]:
        """Like :meth:`find`, at least one.

        Args:
            pattern: the regular expression.
            wanted: names of the files, for the message.

        Raises:
            SidmillError: if there is none: what to fetch, and where to put it.
        """
        found = self.find(pattern)
        if not found:
            names = ", ".join(entry.base for entry in self.entries[:10]) or "no file"
            more = ", ..." if len(self.entries) > 10 else ""
            raise SidmillError(
                f"{self.source}: no {wanted} in it (it has {names}{more}): {self.fetch}, and put "
                f"it into {self.source}"
            )
        return found

    def need_one(self, pattern: str, wanted: str) -> Entry:
        """Like :meth:`need`, exactly one.

        Raises:
            SidmillError: if there is none, or several: an archive and its folder, or two data sets.
        """
        found = self.need(pattern, wanted)
        refuse_several(found)
        return found[0]


def refuse_several(entries: list[Entry]) -> None:
    """Stop where two files would be read for one: each row would count twice.

    Raises:
        SidmillError: naming the first two.
    """
    if len(entries) > 1:
        raise SidmillError(
            f"{entries[0].name} and {entries[1].name}: two data sets, or one twice (an archive and "
            f"what was unpacked from it): name the folder or archive of one"
        )


def refuse_repeated(entries: list[Entry]) -> None:
    """Stop where two files have one name in two folders.

    Raises:
        SidmillError: naming both.
    """
    known: dict[str, Entry] = {}
    for entry in entries:
        refuse_several([known[entry.base], entry] if entry.base in known else [])
        known[entry.base] = entry


def open_files(source: str | Path, fetch: str) -> Files:
    """List the files of a folder, or of an archive; archives within a folder are looked into.

    Args:
        source: a folder, an archive (.zip, .tar, .tgz) or a single file.
        fetch: what to fetch, for messages.

    Raises:
        SidmillError: if there is no such file or folder, or an archive cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        paths = sorted(one for one in path.rglob("*") if one.is_file())
        listed = [(one, one.relative_to(path).as_posix()) for one in paths]
    elif path.is_file():
        listed = [(path, path.name)]
    else:
        raise SidmillError(f"{source}: no such file or folder: {fetch}, and name its folder")

    entries: list[Entry] = []
    for one, inner in listed:
        if _is_hidden(inner):
            continue
        name = one.name.lower()
        if name.endswith(ZIPS):
            entries += _zip_entries(one, inner)
        elif name.endswith(TARS):
            entries += _tar_entries(one, inner)
        else:
            entries.append(_local_entry(one, inner))
    entries.sort(key=lambda entry: entry.path)
    return Files(str(source), tuple(entries), fetch)


def _local_entry(path: Path, inner: str) -> Entry:
    def start() -> IO[bytes]:
        return path.open("rb")

    return Entry(str(path), _plain(inner), path.stat().st_size, start, path)


def _zip_entries(path: Path, inner: str) -> Iterator[Entry]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise SidmillError(f"{path}: no readable .zip ({error}): fetch it again") from None
    for member in members:
        name = member.filename

        def start(name: str = name) -> IO[bytes]:
            try:
                return zipfile.ZipFile(path).open(name)
            except RuntimeError as error:  # a password, or a compression that Python lacks
                raise SidmillError(
                    f"{path}: {name} cannot be opened ({error}): unpack it"
                ) from None

        if not _is_hidden(name):
            yield Entry(f"{path}/{name}", _plain(f"{inner}/{name}"), member.file_size, start, None)


def _tar_entries(path: Path, inner: str) -> Iterator[Entry]:
    try:
        with tarfile.open(path) as archive:
            members = [member for member in archive.getmembers() if member.isfile()]
    except DAMAGED as error:
        reason = str(error).partition("\n")[0].rstrip(":")  # then a line for each compression
        raise SidmillError(f"{path}: no readable .tar ({reason}): fetch it again") from None
    for member in members:
        name = member.name

        def start(name: str = name) -> IO[bytes]:
            stream = tarfile.open(path).extractfile(name)  # noqa: SIM115 - the caller closes it
            return cast(IO[bytes], stream)

        if not _is_hidden(name):
            yield Entry(f"{path}/{name}", _plain(f"{inner}/{name}"), member.size, start, None)


def _is_hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    hidden = (part.startswith(".") and part not in (".", "..") for part in parts)
    return any(hidden) or "__MACOSX" in parts


def _plain(name: str) -> str:
    end = next((end for end in COMPRESSIONS if name.lower().endswith(end)), "")
    return name[: len(name) - len(end)]


def _decompressed(name: str, raw: IO[bytes]) -> io.BufferedReader:
    if name.lower().endswith(".gz"):
        stream = cast(io.RawIOBase, gzip.GzipFile(fileobj=raw))
    elif name.lower().endswith(".zst"):
        stream = cast(io.RawIOBase, pa.CompressedInputStream(raw, "zstd"))
    else:
        stream = cast(io.RawIOBase, raw)
    return io.BufferedReader(stream, 1 << 20)
