"""The kind `parquet`: tables with a column of images that are encoded as PNG or JPEG, as hubs hand them out."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from difftime.images.data import BadImages, ImageData, image_data
from difftime.images.readers.encoded import Encoded, decoded_all
from difftime.images.readers.shares import checked_share, held_out
from difftime.support.extras import lacks

log = logging.getLogger("difftime")

SPLIT = re.compile(r"(train|test|val(?:id(?:ation)?)?)(?![A-Za-z])", re.IGNORECASE)
USUAL = ("image", "img")
"""What the column of images is called where it has a usual name."""
ROWS = 256
"""Rows whose images are in memory before they are decoded."""


class _Column(NamedTuple):
    """The column of encoded images in a file: its name, the name of its bytes, and how many rows it has."""

    file: Path
    name: str
    leaf: str
    rows: int


def is_split(path: Path) -> bool:
    """Whether training and test images are told apart there."""
    return any(_half(file, path) for file in _files(path))


def read(
    path: Path, column: str | None = None, channels: int | None = None, test_share: float | None = None
) -> ImageData:
    """A Parquet file, or all of a folder, with a column of PNG and JPEG images, 8-bit grey or RGB, all of one size.

    Files whose name, or whose folder's, begins with train or test hold training or test images, in the order of their
    paths. Of others, `test_share` of the images, chosen by the hash of their bytes, are test images. The column holds
    bytes, or structs with a field `bytes`; `column` names it where there is more than one. `channels` (1 or 3), if it
    is set, must be what the images have. Raises BadImages if anything is otherwise.
    """
    if not path.exists():
        raise BadImages(f"{path} does not exist.")
    if not (files := _files(path)):
        raise BadImages(f"{path} holds no file that ends in .parquet.")
    if not is_split(path):
        share = checked_share(test_share, str(path))
        columns = [_column(file, column) for file in files]
        tested: list[bool] = []

        def note(content: bytes) -> None:
            tested.append(held_out(hashlib.sha256(content).hexdigest(), share))

        images = _read(columns, channels, note)
        chosen = torch.tensor(tested)
        return image_data(path.stem, images[~chosen], images[chosen])
    if test_share is not None:
        raise BadImages(f"{path} is split already by the names of its files. Leave test_share out.")
    train, test = ([_column(file, column) for file in half] for half in _halves(files, path))
    images, n = _read([*train, *test], channels), sum(one.rows for one in train)
    return image_data(path.resolve().stem, images[:n], images[n:])


def _files(path: Path) -> list[Path]:
    """The file, or all in the folder and those below it, by path; hidden ones are passed over."""
    if path.is_file():
        return [path]
    found = []
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".") and name.endswith(".parquet")]
    return sorted(found)


def _half(file: Path, path: Path) -> str:
    """Which split a file is of, by its own name or by that of a folder it is in, below `path`; empty if none."""
    if file == path:
        return ""
    for part in reversed(file.relative_to(path).parts):
        if found := SPLIT.match(part):
            return "validation" if found[1].lower().startswith("val") else found[1].lower()
    return ""


def _halves(files: list[Path], path: Path) -> tuple[list[Path], list[Path]]:
    """The files of training and of test images; validation images are test images where there are no others."""
    of = {half: [file for file in files if _half(file, path) == half] for half in ("train", "test", "validation", "")}
    train, test = of["train"], of["test"] or of["validation"]
    for half, found in (("train", train), ("test", test)):
        if not found:
            raise BadImages(f"{path} has no file whose name begins with {half}, but others: {_some(files, path)}.")
    if test is of["validation"]:
        log.warning("WARNING: %s has no test images: its validation images are measured.", path)
    if others := [file for file in files if file not in (*train, *test)]:
        log.warning("WARNING: the images of %s are neither trained on nor tested.", _some(others, path))
    return train, test


def _some(files: list[Path], path: Path) -> str:
    names = [str(file.relative_to(path)) for file in files]
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """A Parquet file. Raises BadImages if it cannot be opened, or what is done with it cannot be done."""
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise BadImages(lacks("This data set", error, "study")) from error
    try:
        with ParquetFile(file, page_checksum_verification=True) as opened:
            yield opened
    except (pa.ArrowException, OSError) as error:
        raise BadImages(f"{file} cannot be read as Parquet ({error}). Replace it.") from error


def _column(file: Path, wanted: str | None) -> _Column:
    """The column of encoded images. Raises BadImages if there is none, or more than one and none that is wanted."""
    with _opened(file) as opened:
        leaves = {field.name: leaf for field in opened.schema_arrow if (leaf := _leaf(field))}
        names, rows = opened.schema_arrow.names, opened.metadata.num_rows
        types = {field.name: str(field.type) for field in opened.schema_arrow}
    if wanted is not None and wanted not in names:
        raise BadImages(f"{file} has no column {wanted}; it has {', '.join(names)}.")
    fitting = [wanted] if wanted else [name for name in USUAL if name in leaves] or [*leaves]
    if len(fitting) != 1:
        found = f"more than one column of bytes: {', '.join(fitting)}" if fitting else "no column of encoded images"
        has = ", ".join(f"{name} ({kind})" for name, kind in types.items())
        raise BadImages(f"{file} has {found}. Name the right one by column; there are {has}.")
    (name,) = fitting
    if name not in leaves:
        raise BadImages(
            f"The column {name} of {file} is {types[name]}; images are bytes of PNG or JPEG, or a struct with a field "
            "bytes."
        )
    return _Column(file, name, leaves[name], rows)


def _leaf(field: Any) -> str:
    """The dotted name of the bytes in a column; empty if it has none."""
    from pyarrow import types

    if types.is_binary(field.type) or types.is_large_binary(field.type):
        return str(field.name)
    if types.is_struct(field.type) and (at := field.type.get_field_index("bytes")) >= 0:
        inner = field.type.field(at).type
        return f"{field.name}.bytes" if types.is_binary(inner) or types.is_large_binary(inner) else ""
    return ""


def _read(columns: list[_Column], channels: int | None, note: Callable[[bytes], None] = lambda content: None) -> Any:
    """The images of all columns, in order; `note` is told the bytes of each."""
    n = sum(column.rows for column in columns)
    if not n:
        raise BadImages(f"{columns[0].file} has no images: it has no rows.")
    return decoded_all((one for column in columns for one in _encoded(column, note)), n, channels)


def _encoded(column: _Column, note: Callable[[bytes], None]) -> Iterator[Encoded]:
    """The images of a column, one row group after another."""
    row = 0
    with _opened(column.file) as opened:
        for batch in opened.iter_batches(ROWS, columns=[column.leaf]):
            values = batch.column(0)
            if column.leaf != column.name:
                (values,) = values.flatten()  # a struct that is null has no bytes
            for value in values:
                where = f"{column.file}, row {row},"
                if (content := value.as_py()) is None:
                    raise BadImages(
                        f"{where} has no bytes of an image. Remove the row, or write the file with its bytes."
                    )
                note(content)
                yield Encoded(where, partial(bytes, content))
                row += 1
