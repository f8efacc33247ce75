"""Parquet files with a column of encoded images, as hubs hand them out, are read pixel by pixel."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import pixels
from PIL import Image

from difftime.images.data import BadImages
from difftime.images.readers.parquet import is_split, read


def png(array: np.ndarray, kind: str = "PNG") -> bytes:
    place = io.BytesIO()
    Image.fromarray(array).save(place, kind)
    return place.getvalue()


def hub(arrays: np.ndarray) -> list[dict[str, Any]]:
    """What hubs store: a struct with the bytes, and a path that may be null."""
    return [{"bytes": png(array), "path": None if i % 2 else f"{i}.png"} for i, array in enumerate(arrays)]


def write(path: Path, rows: int = 3, **columns: Any) -> Path:
    """A Parquet file whose row groups have a few rows each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=rows)
    return path


TRAIN, TEST = pixels(10, 4, 6, 3), pixels(4, 4, 6, 3, seed=1)


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """A data set as it is downloaded from a hub: two files of training images, one of test images."""
    folder = tmp_path / "set"
    for i, part in enumerate((TRAIN[:7], TRAIN[7:])):
        write(folder / f"data/train-0000{i}-of-00002.parquet", image=hub(part), label=[*range(len(part))])
    write(folder / "data/test-00000-of-00001.parquet", image=hub(TEST), label=[*range(len(TEST))])
    (folder / "README.md").write_text("about")
    return folder


def planes(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 3, 1, 2)


def test_files_are_split_by_their_names_and_read_in_their_order(split: Path) -> None:
    data = read(split)
    assert (data.train.numpy() == planes(TRAIN)).all()
    assert (data.test.numpy() == planes(TEST)).all()
    assert (data.name, data.shape, is_split(split)) == ("set", (3, 4, 6), True)


def test_files_are_split_by_the_names_of_their_folders(split: Path, tmp_path: Path) -> None:
    for half in ("train", "test"):
        (tmp_path / "other/default" / half).mkdir(parents=True)
        for i, file in enumerate(sorted((split / "data").glob(f"{half}-*"))):
            file.rename(tmp_path / f"other/default/{half}/000{i}.parquet")
    assert (read(tmp_path / "other").train.numpy() == planes(TRAIN)).all()


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_column_may_hold_the_bytes_themselves(tmp_path: Path, kind: pa.DataType) -> None:
    for half, arrays in (("train", TRAIN), ("test", TEST)):
        write(tmp_path / f"{half}.parquet", picture=pa.array([png(one) for one in arrays], kind))
    assert (read(tmp_path).train.numpy() == planes(TRAIN)).all()


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", img=hub(TRAIN[..., 0]))
    write(tmp_path / "test.parquet", img=hub(TEST[..., 0]))
    assert (read(tmp_path, channels=1).train.numpy()[:, 0] == TRAIN[..., 0]).all()


def test_a_share_is_chosen_by_the_bytes_wherever_they_stand(tmp_path: Path) -> None:
    whole = pixels(60, 4, 4, 3, seed=2)
    one = read(write(tmp_path / "all.parquet", image=hub(whole)), test_share=0.3)
    write(tmp_path / "parts/b.parquet", image=hub(whole[:20]))
    write(tmp_path / "parts/a.parquet", image=hub(whole[20:]))
    other = read(tmp_path / "parts", test_share=0.3)
    first, second = ({image.tobytes() for image in data.test.numpy()} for data in (one, other))
    assert first == second
    assert 5 < len(first) < 35
    assert len(one.train) + len(one.test) == 60
    assert not is_split(tmp_path / "parts")


def test_validation_images_are_not_used_beside_test_images_and_said(
    split: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = read(split).digest
    write(split / "data/validation-00000-of-00001.parquet", image=hub(TEST))
    assert read(split).digest == before
    assert caplog.text.count("validation-00000-of-00001.parquet are neither trained on nor tested") == 1


def test_validation_images_are_measured_where_there_are_no_others_and_said(
    split: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = read(split).digest
    file = split / "data/test-00000-of-00001.parquet"
    file.rename(file.with_name("valid-00000-of-00001.parquet"))
    assert read(split).digest == before
    assert caplog.text.count("has no test images: its validation images are measured") == 1


def test_the_image_column_is_found_among_other_bytes_or_named(split: Path, tmp_path: Path) -> None:
    for half, arrays in (("train", TRAIN), ("test", TEST)):
        write(tmp_path / f"two/{half}.parquet", image=hub(arrays), mask=hub(255 - arrays))
        write(tmp_path / f"odd/{half}.parquet", face=hub(arrays), mask=hub(255 - arrays))
    assert read(tmp_path / "two").digest == read(tmp_path / "odd", column="face").digest == read(split).digest
    assert (read(tmp_path / "two", column="mask").train.numpy() == 255 - planes(TRAIN)).all()
    with pytest.raises(BadImages, match=r"more than one column of bytes: face, mask\. Name the right one by column"):
        read(tmp_path / "odd")


HUB = hub(TRAIN)


def but(i: int, image: Any) -> dict[str, Any]:
    """The training images with another one in this row; bytes stand for the image that has them."""
    image = {"bytes": image, "path": ""} if isinstance(image, bytes) else image
    return {"image": pa.array([*HUB[:i], image, *HUB[i + 1 :]])}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a text": (but(4, b"no image"), "row 4, cannot be read as a PNG"),
    "a cut image": (but(9, png(TRAIN[0])[:-20]), "row 9, cannot be read as a PNG"),
    "an empty one": (but(4, b""), "row 4, .*the file is empty"),
    "only a path": (but(4, {"bytes": None, "path": "a.png"}), "row 4, has no bytes"),
    "null": (but(5, None), "row 5, has no bytes"),
    "another size": (but(8, png(pixels(4, 5, 3))), "row 8, is RGB, 5 × 4 pixels, but .*row 0, is RGB, 6 × 4"),
    "another mode": (but(8, png(pixels(4, 6))), "row 8, is L"),
    "transparency": (but(2, png(pixels(4, 6, 4))), "row 2, is not an 8-bit grey or RGB"),
    "numbers": ({"image": [1, 2, 3]}, r"no column of encoded images\. .*image \(int64\)"),
    "lists of pixels": ({"image": [[1, 2], [3, 4]]}, r"no column of encoded images"),
    "a struct without bytes": ({"image": [{"path": "a.png"}]}, r"no column of encoded images"),
    "no rows": ({"image": pa.array([], pa.binary())}, "has no rows"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_images_are_named_by_file_and_row(tmp_path: Path, fault: str) -> None:
    columns, message = BAD[fault]
    write(tmp_path / "a.parquet", **columns)
    with pytest.raises(BadImages, match=rf"a\.parquet.* ?{message}"):
        read(tmp_path / "a.parquet", test_share=0.5)


def test_a_column_that_is_not_there_or_holds_no_images_is_refused_with_those_that_are(split: Path) -> None:
    with pytest.raises(BadImages, match="has no column picture; it has image, label"):
        read(split, column="picture")
    with pytest.raises(BadImages, match=r"The column label of .* is int64; images are bytes"):
        read(split, column="label")


@pytest.mark.parametrize("kept", [0, 10, 500, -30])
def test_a_truncated_file_is_refused_by_name(split: Path, kept: int) -> None:
    path = split / "data/test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BadImages, match=r"test-00000-of-00001\.parquet cannot be read as Parquet"):
        read(split)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", rows=100, image=[png(one) for one in pixels(40, 8, 8, 3)])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadImages, match=r"a\.parquet"):
        read(path, test_share=0.5)


@pytest.mark.parametrize(
    ("gone", "share", "message"),
    [
        ("data/train-*", None, "no file whose name begins with train, but others: data/test-00000"),
        ("data/test-*", None, "no file whose name begins with test, but others: data/train-00000"),
        ("data/*", None, "holds no file that ends in .parquet"),
        ("nothing", 0.2, "is split already"),
    ],
)
def test_a_folder_of_another_form_is_refused(split: Path, gone: str, share: float | None, message: str) -> None:
    for file in split.glob(gone):
        file.unlink()
    with pytest.raises(BadImages, match=message):
        read(split, test_share=share)


def test_what_is_not_split_needs_a_share(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", image=hub(TRAIN))
    with pytest.raises(BadImages, match="is not split"):
        read(path)
    with pytest.raises(BadImages, match="does not exist"):
        read(tmp_path / "gone.parquet")


def test_other_channels_than_asked_for_are_refused(split: Path) -> None:
    with pytest.raises(BadImages, match=r"channels is 1, but .*row 0, is RGB"):
        read(split, channels=1)
