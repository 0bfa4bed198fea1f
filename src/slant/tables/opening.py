"""Bytes of an input file, wherever it lies: decompressed, and text as UTF-8."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from slant.errors import InputError, UsageError
from slant.storage import is_url, open_url

__all__ = [
    "COMPRESSIONS",
    "MAX_LINE_BYTES",
    "Input",
    "is_cut",
    "read_line",
    "refuse_bomb",
    "skip_blank_lines",
    "split_compression",
]

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2"}
"""Endings of compressed files, and what they are compressed with."""
MAX_LINE_BYTES = 64 << 20
"""A longer line is no row."""

_BUFFER_BYTES = 1 << 20
_DECOMPRESSED_BYTES = 16 << 10  # at once: as much is lost before a damaged place
# Text compresses to a third or a tenth. What grows so much more is made to fill a machine.
_BOMB_RATIO, _BOMB_BYTES = 500, 64 << 20

_UTF8_MARK = b"\xef\xbb\xbf"
_Decode = Callable[[bytes, str, bool], tuple[str, int]]
_MARKS: dict[bytes, _Decode] = {  # UTF-32's little-endian mark begins with that of UTF-16
    b"\xff\xfe\x00\x00": codecs.utf_32_le_decode,
    b"\x00\x00\xfe\xff": codecs.utf_32_be_decode,
    b"\xff\xfe": codecs.utf_16_le_decode,
    b"\xfe\xff": codecs.utf_16_be_decode,
}
_NOT_TEXT = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF-": "a PDF file",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b\x08": "compressed with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"PAR1": "a Parquet file",
    b"ARROW1\0\0": "an Arrow file",
}


def split_compression(name: str) -> tuple[str, str | None]:
    """A file name without the ending of its compression, and the codec."""
    for ending, codec in COMPRESSIONS.items():
        if name.lower().endswith(ending):
            return name[: -len(ending)], codec
    return name, None


@dataclass(frozen=True)
class Input:
    """A file to read.

    Attributes:
        location: Its path or URL.
        name: How messages name it.
        patience_s: How long a URL's storage may stay away, in seconds.
        block_bytes: How much of a URL is asked for at once.
    """

    location: str
    name: str
    patience_s: float
    block_bytes: int

    def open_stored(self) -> io.BufferedReader:
        """The file's bytes as they are stored; seekable.

        Raises:
            UsageError: There is no such local file, or no such protocol.
            InputError: The file's storage does not answer; also while reading.
        """
        if is_url(self.location):
            file: Any = open_url(
                self.location, patience_s=self.patience_s, block_bytes=self.block_bytes
            )
        elif Path(self.location).is_file():
            file = Path(self.location).open("rb", buffering=_BUFFER_BYTES)  # noqa: SIM115
        else:
            raise UsageError(f"{self.name}: no such file", hint=f"Looked for {self.location}")
        opened: io.BufferedReader = file
        return opened

    def open(self) -> io.BufferedReader:
        """The file's bytes, decompressed as its name says.

        Raises:
            UsageError, InputError: As ``open_stored``.
            OSError: While reading: the file is damaged, or made to fill a machine.
        """
        file = self.open_stored()
        codec = split_compression(self.location)[1]
        if codec is None:
            return file
        return io.BufferedReader(_Decompressed(file, codec), _BUFFER_BYTES)

    def open_text(self) -> io.BufferedReader:
        """The file's text as UTF-8, behind its byte order mark, if it has one.

        Bytes that are no text in the encoding that the mark tells are no UTF-8 either.

        Raises:
            UsageError, InputError: As ``open``; InputError too if it is empty or no text.
            OSError: As ``open``.
        """
        file = self.open()
        start = file.peek(8)
        if not start:
            file.close()
            raise InputError(f"{self.name}: is empty (0 bytes)")
        for magic, what in _NOT_TEXT.items():
            if start.startswith(magic):
                file.close()
                raise InputError(
                    f"{self.name}: is {what}, not text",
                    hint="Give the file the ending of what it holds.",
                )
        if start.startswith(_UTF8_MARK):
            file.read(len(_UTF8_MARK))
            return file
        for mark, decode in _MARKS.items():
            if start.startswith(mark):
                file.read(len(mark))
                return io.BufferedReader(_AsUtf8(file, decode), _BUFFER_BYTES)
        return file


@final
class _Decompressed(io.RawIOBase):
    """A compressed file's content. Arrow's streams tell, unlike others, when a file was cut."""

    def __init__(self, file: io.BufferedReader, codec: str) -> None:
        import pyarrow as pa

        super().__init__()
        self._file = file
        self._num_bytes = 0
        self._stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        import pyarrow as pa

        try:
            num_read = int(self._stream.readinto(buffer[:_DECOMPRESSED_BYTES]))
        except pa.ArrowException as error:
            raise OSError(str(error)) from error
        self._num_bytes += num_read
        refuse_bomb(self._num_bytes, self._file.tell())
        return num_read

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def refuse_bomb(num_bytes: int, num_compressed: int) -> None:
    """Raise OSError if ``num_bytes`` came of so few compressed ones as no text does."""
    if num_bytes > max(_BOMB_BYTES, _BOMB_RATIO * num_compressed):
        raise OSError(f"it grows more than {_BOMB_RATIO}-fold when decompressed, as no text does")


@final
class _AsUtf8(io.RawIOBase):
    """UTF-16 or UTF-32 text as UTF-8; what cannot be decoded becomes bytes that UTF-8 lacks."""

    def __init__(self, file: io.BufferedReader, decode: _Decode) -> None:
        super().__init__()
        self._file = file
        self._decode = decode
        self._rest = b""  # the beginning of a character
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            block = self._file.read(_BUFFER_BYTES)
            if not block and not self._rest:
                return 0
            self._ready = memoryview(self._encoded(self._rest + block, final=not block))
        part = self._ready[: len(buffer)]
        buffer[: len(part)] = part
        self._ready = self._ready[len(part) :]
        return len(part)

    def _encoded(self, block: bytes, *, final: bool) -> bytes:
        encoded, start = [], 0
        while True:
            try:
                text, used = self._decode(block[start:], "surrogatepass", final)
            except UnicodeDecodeError as error:
                good = self._decode(error.object[: error.start], "surrogatepass", True)[0]
                encoded += [good.encode("utf-8", "surrogatepass"), b"\xff"]
                start += error.end
                continue
            self._rest = block[start + used :]
            return b"".join([*encoded, text.encode("utf-8", "surrogatepass")])

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def read_line(file: io.BufferedReader) -> bytes:
    """The next line; of a line over the limit, what was within it. Empty at the end."""
    line = file.readline(MAX_LINE_BYTES)
    if is_cut(line):
        while (rest := file.readline(_BUFFER_BYTES)) and not rest.endswith(b"\n"):
            pass
    return line


def is_cut(line: bytes) -> bool:
    """Whether ``line`` is only the beginning of one."""
    return len(line) == MAX_LINE_BYTES and not line.endswith(b"\n")


def skip_blank_lines(file: io.BufferedReader) -> int:
    """Go past newlines, as far as is fast; the number of them."""
    ahead = file.peek()
    num_blank = len(ahead) - len(ahead.lstrip(b"\n"))
    file.read(num_blank)
    return num_blank
