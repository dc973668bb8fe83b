"""The encoding of a text file: UTF-8, unless its first bytes or the user say otherwise.

A file in another encoding is read as the UTF-8 that it stands for. Bytes that the encoding does
not know become bytes that are no UTF-8, so that one check finds the bad row in either case.
"""

import codecs
import io
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from sidmill.core.errors import SidmillError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

AUTO = "auto"
UTF8 = "utf-8"
# https://www.unicode.org/faq/utf_bom.html: the longer marks first, UTF-32 begins as UTF-16 does.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, UTF8),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
UNKNOWN_BYTE = "\udc80"  # a lone surrogate: written to UTF-8 it is refused by every strict reader
CHUNK = 1 << 16
UNPACKERS = {".gz": "zcat", ".zst": "zstdcat"}


def _unknown_byte(error: UnicodeError) -> tuple[str, int]:
    """Put ``UNKNOWN_BYTE`` where bytes have no letter in their encoding, and go on behind them."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return UNKNOWN_BYTE, error.end


codecs.register_error("sidmill.unknown", _unknown_byte)


def check(encoding: str, setting: str) -> None:
    """Stop where a setting names no encoding of text.

    Raises:
        SidmillError: naming the setting.
    """
    try:
        exists = encoding == AUTO or codecs.lookup(encoding)._is_text_encoding
    except (LookupError, ValueError):
        exists = False
    if not exists:
        raise SidmillError(
            f"{setting}: no encoding is named {encoding!r:.80}: set auto, or one such as utf-8, "
            f"latin-1, cp1252, gb18030 or utf-16"
        )


def detect(head: bytes) -> str:
    """Name the encoding that the first bytes of a file show; UTF-8 where they show none.

    They are a byte order mark, or the zeros in the first two letters of UTF-16.
    """
    for mark, name in MARKS:
        if head.startswith(mark):
            return name
    zeros = [byte == 0 for byte in head[:4]]
    if zeros == [False, True, False, True]:
        return "utf-16-le"
    if zeros == [True, False, True, False]:
        return "utf-16-be"
    return UTF8


def name_of(stream: io.BufferedReader, encoding: str = AUTO) -> str:
    """Name the encoding of an open file: as given, or as its first bytes show."""
    return detect(stream.peek(4)[:4]) if encoding == AUTO else encoding


def as_utf8(stream: io.BufferedReader, encoding: str = AUTO) -> io.BufferedReader:
    """Read a file as UTF-8, past its byte order mark. Memory: a chunk.

    Args:
        stream: the file, at its beginning.
        encoding: its name in Python, or ``auto``.
    """
    name = codecs.lookup(name_of(stream, encoding)).name
    if name != UTF8:
        stream = io.BufferedReader(_Decoded(stream, name), CHUNK)
    if stream.peek(3)[:3] == codecs.BOM_UTF8:
        stream.read(3)
    return stream


def remedy(path: str | Path, setting: str | None, encoding: str = AUTO) -> str:
    """What to do about a file that is not in the encoding it is read in.

    Args:
        path: the file.
        setting: config key that names its encoding, or None where there is none.
        encoding: what that key says now.
    """
    if encoding != AUTO:
        return f"set {setting} to the encoding that the file was written in"
    quoted, end = shlex.quote(str(path)), Path(path).suffix.lower()
    unpack = f"{UNPACKERS[end]} {quoted} | " if end in UNPACKERS else ""
    source = "" if unpack else f" {quoted}"
    name = "" if setting is None else f"set {setting} to the one that it is, or "
    return (
        f"the file may be in another encoding, such as latin-1, cp1252 or gb18030: {name}convert "
        f"it, such as: {unpack}iconv -f latin1 -t utf-8{source} > NEW_FILE"
    )


class _Decoded(io.RawIOBase):
    """A file in another encoding, as UTF-8."""

    def __init__(self, stream: io.BufferedReader, encoding: str) -> None:
        self.stream = stream
        self.decoder = codecs.getincrementaldecoder(encoding)("sidmill.unknown")
        self.waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "Buffer") -> int:
        target = memoryview(buffer).cast("B")
        while not self.waiting:
            chunk = self.stream.read(CHUNK)
            text = self.decoder.decode(chunk, not chunk)
            if not chunk and not text:
                return 0
            self.waiting = text.encode(UTF8, "surrogatepass")
        part, self.waiting = self.waiting[: len(target)], self.waiting[len(target) :]
        target[: len(part)] = part
        return len(part)

    def close(self) -> None:
        if not self.closed:
            self.stream.close()
        super().close()
