"""Columns of an update's rows: in memory where they are small, in scratch files where they are not.

A scratch file has no name once it is open, so that nothing is left of it however a process ends; it lies in the folder
for temporary files (``TMPDIR``). Of a file that is mapped, :func:`release` gives back the memory of what was read. What
is done to a column is done a few rows at a time, and is the same whichever of the two it lies in.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
import mmap
import os
import tempfile
import weakref
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeVar, overload

import msgspec
import numpy as np
import numpy.typing as npt

from components.contracts.errors import ConfigError
from components.contracts.storage import get_bytes, opened, put_bytes, put_parts

T = TypeVar("T")
Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Places = npt.NDArray[np.int64]

IN_MEMORY = 8 << 20
"""Bytes of a column that lies in memory at most."""

ROWS = 512
"""Rows that are looked at together, in their order."""

APART = 128
"""Rows that are looked up together where they lie: each of them may bring 64 KiB of a mapped file into memory."""

ENCODED = 1_024
"""Rows that are encoded together: so many are encoded at once."""

_mapped: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def column(shape: Sequence[int], dtype: npt.DTypeLike) -> Array:
    """A column of that shape, not filled.

    Raises:
        ConfigError: there is no room for it.

    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if size <= IN_MEMORY:
        return np.empty(shape, kind)
    with tempfile.TemporaryFile(prefix="cohobate-") as file:
        with _room(size):
            os.posix_fallocate(file.fileno(), 0, size)
        return mapped(file.fileno(), kind, shape, access=mmap.ACCESS_WRITE)


def mapped(
    file: int, dtype: npt.DTypeLike, shape: Sequence[int], offset: int = 0, access: int = mmap.ACCESS_COPY
) -> Array:
    """What lies in an open file from a place on, as an array. It may be written to; nobody else sees it."""
    whole = mmap.mmap(file, 0, access=access)
    whole.madvise(mmap.MADV_RANDOM)  # else what is around a row comes with it, up to 2 MiB
    _mapped.add(whole)
    return np.frombuffer(whole, dtype, math.prod(shape), offset).reshape(shape)


@contextlib.contextmanager
def _room(size: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        remedy = f"has no room for {size >> 20} MiB of an update's rows: name a folder that has"
        raise ConfigError("TMPDIR", tempfile.gettempdir(), remedy) from error


def release() -> None:
    """Give back the memory that mapped files take: what is read of them next comes from the disk's cache."""
    for whole in list(_mapped):
        whole.madvise(mmap.MADV_DONTNEED)


def spans(rows: int, size: int = ROWS) -> Iterator[slice]:
    """All rows, some at a time, of none a span of none; after each turn what was mapped of files is given back."""
    for first in range(0, max(rows, 1), size):
        yield slice(first, min(first + size, rows))
        release()


def in_files() -> bool:
    """Whether any column lies in a file."""
    return bool(_mapped)


def sample(rows: int, most: int) -> Places:
    """The places of ``most`` rows, the same ones each time, in order; of all where there are no more."""
    return np.arange(rows) if rows <= most else np.sort(np.random.default_rng(0).permutation(rows)[:most])


def taken(values: Array, rows: Places) -> Array:
    """A new column of some rows."""
    out = column((len(rows), *values.shape[1:]), values.dtype)
    for span in spans(len(rows), APART):
        out[span] = values[rows[span]]
    return out


def changed(values: Array, change: Callable[[Array], Array]) -> Array:
    """A new column that ``change`` makes of this one, some rows at a time."""
    return filled(len(values), lambda span: {"": change(values[span])})[""]


def filled(rows: int, make: Callable[[slice], Arrays], size: int = ROWS) -> Arrays:
    """Columns that are made ``size`` rows at a time. A part without one of the columns has zeros there."""
    out: Arrays = {}
    for span in spans(rows, size):
        made = make(span)
        for name in made.keys() - out.keys():
            out[name] = column((rows, *made[name].shape[1:]), made[name].dtype)
            out[name][: span.start] = 0
        for name, values in out.items():
            values[span] = made.get(name, 0)
    return out


def encoded(items: Sequence[T], encode: Callable[[Sequence[T]], Arrays], sized: Callable[[T], int]) -> Arrays:
    """What ``encode`` makes of all items together, though it is given some at a time.

    Its arrays may be as wide as the items that it is given need. So each part is encoded beside the items that need
    most; where a part shows them to need more than was known, those before it are encoded again in the end. ``sized``:
    what an item probably needs, to begin with the widest.
    """
    if len(items) <= ENCODED:
        return encode(items[:])
    widest = [max(items, key=sized)]
    out: Arrays = {}
    shapes: dict[str, tuple[int, ...]] = {}
    again = 0
    for span in spans(len(items), ENCODED):
        part = encode([*items[span], *widest])
        if _shapes(part) != shapes:
            shapes, again = _shapes(part), span.start
            widest = _needing(items[span], widest, encode, shapes)
            out = {name: column((len(items), *a.shape[1:]), a.dtype) for name, a in part.items()}
            part = encode([*items[span], *widest])
        _put(out, part, span)
    for span in spans(again, ENCODED) if again else ():
        _put(out, encode([*items[span], *widest]), span)
    return out


def _put(out: Arrays, part: Arrays, span: slice) -> None:
    for name, values in part.items():
        out[name][span] = values[: span.stop - span.start]


def _shapes(made: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: values.shape[1:] for name, values in made.items()}


def _needing(
    items: Sequence[T], widest: list[T], encode: Callable[[Sequence[T]], Arrays], shapes: dict[str, tuple[int, ...]]
) -> list[T]:
    """Items that together need arrays of these shapes: ``widest`` and, of the others, those that need more."""
    now = _shapes(encode(widest))
    for item in items:
        if now == shapes:
            break
        if (found := _shapes(encode([*widest, item]))) != now:
            widest, now = [*widest, item], found
    return widest


class Texts(Sequence[bytes]):
    """Strings of bytes one after the other, which are only ever added to."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY, prefix="cohobate-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._ends = array("q", [0])

    def add(self, text: bytes) -> None:
        """Add one.

        Raises:
            ConfigError: there is no room for it.

        """
        with _room(len(text)):
            self._file.seek(self._ends[-1])
            self._file.write(text)
        self._ends.append(self._ends[-1] + len(text))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        first = self._ends[at]
        self._file.seek(first)
        return self._file.read(self._ends[at + 1] - first)


class View(Sequence[T]):
    """Some places of a few sequences, taken as one after the other; equal to a sequence of the same items."""

    def __init__(self, sources: Sequence[Sequence[Any]], places: Places, read: Callable[[Any], T]) -> None:
        self._sources, self._places, self._read = sources, places, read
        self._starts = list(accumulate((len(s) for s in sources), initial=0))

    @classmethod
    def of(cls, source: Sequence[Any], places: Places, read: Callable[[Any], T] = lambda item: item) -> View[T]:
        """A view of one sequence; ``read`` makes an item of what lies there."""
        return cls([source], places, read)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> list[T]: ...
    def __getitem__(self, at: int | slice) -> T | list[T]:
        places = self._places[at]
        if not isinstance(at, slice):
            return self._at(int(places))
        return [self._at(place) for place in places.tolist()]

    def __iter__(self) -> Iterator[T]:
        for span in (slice(first, first + ROWS) for first in range(0, len(self), ROWS)):
            yield from self[span]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"View({self[:]!r})"

    def _at(self, place: int) -> T:
        source = bisect_right(self._starts, place) - 1
        return self._read(self._sources[source][place - self._starts[source]])

    def take(self, indices: Places, known: dict[int, Places]) -> View[T]:
        """Some of the items. ``known``: places that views of equal places share, before and after."""
        key = id(self._places)
        if key not in known:
            known[key] = self._places[indices]
        return View(self._sources, known[key], self._read)

    def join(self, other: View[T], known: dict[int, Places]) -> View[T]:
        """The items of both, this one's first."""
        key = id(self._places)
        if key not in known:
            known[key] = np.concatenate([self._places, other._places + self._starts[-1]])
        return View([*self._sources, *other._sources], known[key], self._read)


def spooled(items: Iterable[T], write: Callable[[T], bytes], read: Callable[[bytes], T]) -> View[T]:
    """Items as a sequence that holds them written down."""
    texts = Texts()
    for item in items:
        texts.add(write(item))
    return View.of(texts, np.arange(len(texts)), read)


def saved(folder: str, arrays: Mapping[str, Array]) -> None:
    """Write columns into a folder, one file of NumPy's format each, from where other processes map them."""
    for number, values in enumerate(arrays.values()):
        put_parts(f"{folder}/{number}.npy", _npy(values))
    put_bytes(f"{folder}/names.json", msgspec.json.encode(list(arrays)))


def _npy(array: Array) -> Iterator[bytes]:
    header = io.BytesIO()
    told = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(header, told)
    yield header.getvalue()
    for span in spans(len(array)):
        yield array[span].tobytes()


def read(folder: str) -> Arrays:
    """The columns of a folder.

    Raises:
        ArtifactError: they are not there.

    """
    names = msgspec.json.decode(get_bytes(f"{folder}/names.json"), type=list[str])
    return {name: _mapped_npy(f"{folder}/{number}.npy") for number, name in enumerate(names)}


def _mapped_npy(uri: str) -> Array:
    with opened(uri) as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return mapped(file.fileno(), dtype, shape, file.tell())
