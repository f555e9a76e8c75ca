"""Pictures of every kind decode to what a plain, full decode gives; what is no picture is named and refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.core.errors import DataError
from headstart.core.types import InputContract, Limits
from headstart.modalities.image import EXTENSIONS, augment, batch, inspect, prepare, thumbnail

CONTRACT = InputContract((64, 64), (0.5,) * 3, (0.5,) * 3)


def contract(channels: int = 3, side: int = 64, **values: object) -> InputContract:
    return InputContract((side, side), (0.5,) * channels, (0.5,) * channels, channels=channels, **values)  # type: ignore[arg-type]


def scene(width: int = 200, height: int = 160, seed: int = 0) -> np.ndarray:
    """Draw smooth blobs with some texture, uint8 [height, width, 3]."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    return (smooth + draw.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)


def plain(picture: Image.Image, side: int = 64, crop: float = 0.875) -> np.ndarray:
    """Resize the shorter side and crop the centre as torchvision does."""
    resized = int(side / crop)
    width, height = picture.size
    size = (
        (resized, int(resized * height / width))
        if width <= height
        else (int(resized * width / height), resized)
    )
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    small = picture.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(small.crop((left, top, left + side, top + side)))


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


def saved(folder: Path, picture: Image.Image, name: str, **options: object) -> Path:
    path = folder / name
    picture.save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("size", [(200, 160), (160, 200), (64, 64), (50, 40), (73, 300)])
def test_a_png_comes_out_as_torchvision_would_give_it(tmp_path: Path, size: tuple[int, int]) -> None:
    picture = Image.fromarray(scene(*size))
    prepared = prepare(saved(tmp_path, picture, "a.png"), CONTRACT)
    assert prepared.value.shape == (64, 64, 3)
    assert prepared.value.dtype == np.uint8
    assert prepared.value.flags.c_contiguous
    assert distance(prepared.value, plain(picture)) < 0.1
    assert (prepared.facts.width, prepared.facts.height, prepared.facts.channels) == (*size, 3)


@pytest.mark.parametrize("size", [(600, 480), (146, 146), (300, 1100)])
def test_the_reduced_jpeg_decode_differs_by_less_than_one_of_255(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    path = saved(tmp_path, Image.fromarray(scene(*size)), "a.jpg", quality=90)
    prepared = prepare(path, CONTRACT)
    assert distance(prepared.value, plain(Image.open(path))) < 1
    assert (prepared.facts.width, prepared.facts.height) == size


def test_a_target_that_is_not_square_keeps_proportions() -> None:
    tall = InputContract((96, 48), (0.5,) * 3, (0.5,) * 3)
    assert prepare(scene(), tall).value.shape == (96, 48, 3)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    upright = Image.fromarray(scene(320, 200))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, upright.transpose(Image.Transpose.ROTATE_90), "a.jpg", quality=95, exif=exif)
    prepared = prepare(path, CONTRACT)
    assert distance(prepared.value, plain(upright)) < 3
    assert (prepared.facts.width, prepared.facts.height) == (320, 200)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_exif_rotation_is_applied_to_other_formats(tmp_path: Path, name: str) -> None:
    upright = Image.fromarray(scene(320, 200))
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"quality": 95} if name == "a.webp" else {}
    path = saved(tmp_path, upright.transpose(Image.Transpose.ROTATE_90), name, exif=exif, **options)
    prepared = prepare(path, CONTRACT)
    assert distance(prepared.value, plain(upright)) < 5
    assert (prepared.facts.width, prepared.facts.height) == (320, 200)


def test_grey_palette_bilevel_and_cmyk_become_colour(tmp_path: Path) -> None:
    picture = Image.fromarray(scene())
    expected = plain(picture)
    grey = prepare(saved(tmp_path, picture.convert("L"), "grey.png"), CONTRACT)
    assert grey.facts.channels == 1
    assert distance(grey.value, np.repeat(plain(picture.convert("L"))[:, :, None], 3, axis=2)) < 0.1
    assert distance(prepare(saved(tmp_path, picture.convert("CMYK"), "c.tif"), CONTRACT).value, expected) < 3
    assert (
        distance(
            prepare(saved(tmp_path, picture.convert("CMYK"), "c.jpg", quality=95), CONTRACT).value, expected
        )
        < 4
    )
    assert distance(prepare(saved(tmp_path, picture.quantize(256), "p.png"), CONTRACT).value, expected) < 8
    bilevel = prepare(saved(tmp_path, picture.convert("1"), "b.png"), CONTRACT)
    assert bilevel.value.max() == 255


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(tmp_path: Path, mode: str) -> None:
    if mode == "P":
        picture = Image.new("P", (80, 80), 0)
        picture.putpalette([10, 20, 30] * 256)
        path = saved(tmp_path, picture, "a.png", transparency=0)
    else:
        path = saved(tmp_path, Image.new(mode, (80, 80)), "a.png")
    assert prepare(path, CONTRACT).value.min() == 255


def test_four_channels_are_kept_for_a_network_of_four(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("RGBA", (80, 80), (10, 20, 30, 40)), "a.png")
    assert prepare(path, contract(4)).value[5, 5].tolist() == [10, 20, 30, 40]


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (70, 70), colour) for colour in ((200, 0, 0), (0, 200, 0))]
    path = saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    assert prepare(path, CONTRACT).value[9, 9].tolist() == [200, 0, 0]


@pytest.mark.parametrize(
    ("largest", "bits"), [(255, 8), (1000, 10), (3000, 12), (4095, 12), (16_000, 14), (65_535, 16)]
)
def test_deep_greys_are_scaled_by_their_significant_bits(tmp_path: Path, largest: int, bits: int) -> None:
    ramp = np.linspace(0, largest, 80 * 80).reshape(80, 80).astype(np.uint16)
    expected = round(largest / (2**bits - 1) * 255)
    for path in (
        saved(tmp_path, Image.fromarray(ramp), "a.png"),
        saved(tmp_path, Image.fromarray(ramp), "a.tif"),
    ):
        assert abs(int(inspect(path).thumbnail.max()) - expected) < 12
    pixels = prepare(ramp, contract(1, side=80, crop=1.0)).value
    assert int(pixels.max()) == expected
    assert int(pixels.min()) == 0


def test_signed_and_float_arrays_are_scaled() -> None:
    hounsfield = np.linspace(-1000, 3000, 64 * 64).reshape(64, 64).astype(np.int16)
    pixels = prepare(hounsfield, contract(1, crop=1.0)).value
    assert pixels.min() == 0
    assert pixels.max() > 240
    unit = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    assert prepare(unit, contract(1, crop=1.0)).value.max() == 255
    assert prepare(unit * 100, contract(1, crop=1.0)).value.max() == 100
    assert prepare(unit * 9000 - 4000, contract(1, crop=1.0)).value.max() == 255


def test_not_finite_and_oddly_shaped_arrays_are_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        prepare(np.full((8, 8), np.nan), CONTRACT)
    with pytest.raises(DataError, match=r"shape \(3,\)"):
        prepare(np.zeros(3), CONTRACT)
    with pytest.raises(DataError, match="channels"):
        prepare(np.zeros((8, 8, 5), np.uint8), CONTRACT)


def test_many_channels_come_from_npy_files_and_arrays(tmp_path: Path) -> None:
    bands = np.random.default_rng(0).integers(0, 256, (70, 90, 6), dtype=np.uint8)
    np.save(tmp_path / "a.npy", bands)
    one, other = prepare(tmp_path / "a.npy", contract(6)), prepare(bands, contract(6))
    assert one.value.shape == (64, 64, 6)
    assert np.array_equal(one.value, other.value)
    assert one.facts.channels == 6
    assert augment(bands, contract(6), np.random.default_rng(1), strength="strong").shape == (64, 64, 6)


def test_an_object_array_is_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        prepare(tmp_path / "a.npy", CONTRACT)


def test_one_channel_and_bgr_contracts(tmp_path: Path) -> None:
    picture = Image.fromarray(scene())
    path = saved(tmp_path, picture, "a.jpg", quality=95)
    assert distance(prepare(path, contract(1)).value[:, :, 0], plain(picture.convert("L"))) < 2
    rgb = prepare(path, CONTRACT).value
    assert np.array_equal(prepare(path, contract(3, order="bgr")).value, rgb[:, :, ::-1])


def test_a_wrong_extension_decodes_by_content(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(scene()), "a.png").rename(tmp_path / "a.jpg")
    assert prepare(path, CONTRACT).facts.width == 200


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_a_truncated_file_is_named(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path, Image.fromarray(scene()), "a.bin", format=kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for read in (lambda: prepare(path, CONTRACT), lambda: inspect(path)):
        with pytest.raises(DataError, match=r"a\.bin cannot be read"):
            read()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"these are words\n", "text"),
        (b"%PDF-1.7\n%\x00\xff", "PDF"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\x00\x01\x02\x03" * 20, "known format"),
    ],
)
def test_what_is_no_picture_is_said(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        prepare(path, CONTRACT)
    assert "a.jpg" in str(caught.value)


def bomb(path: Path, width: int, height: int) -> Path:
    """Write a PNG of a few kilobytes whose header promises width x height white pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 1_000_000, 9)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("side", [30_000, 11_000, 9_000])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    path = bomb(tmp_path / "a.png", side, side)
    with pytest.raises(DataError, match=r"a\.png is oversized"):
        prepare(path, CONTRACT)
    with pytest.raises(DataError, match="oversized"):
        inspect(path)


def test_the_limit_is_a_setting(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(scene()), "a.png")
    with pytest.raises(DataError, match=r"at most 0\.01 megapixels"):
        prepare(path, CONTRACT, limits=Limits(megapixels=0.01))


def test_a_file_that_went_away_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jpg does not exist"):
        prepare(tmp_path / "gone.jpg", CONTRACT)


def test_long_strips_and_single_pixels_are_no_trouble() -> None:
    assert prepare(np.full((1, 20_000, 3), 9, np.uint8), CONTRACT).value.shape == (64, 64, 3)
    assert prepare(np.full((20_000, 2), 9, np.uint8), CONTRACT).value.shape == (64, 64, 3)
    assert prepare(np.full((1, 1), 9, np.uint8), CONTRACT).value.max() == 9


def test_hash_and_thumbnail_survive_reencoding_but_tell_pictures_apart(tmp_path: Path) -> None:
    picture = Image.fromarray(scene(400, 300))
    first = prepare(saved(tmp_path, picture, "a.png"), CONTRACT).facts
    small = picture.resize((280, 210), Image.Resampling.BICUBIC)
    second = inspect(saved(tmp_path, small, "b.jpg", quality=70))
    other = inspect(scene(400, 300, seed=5))
    assert (first.phash ^ second.phash).bit_count() <= 4
    assert distance(first.thumbnail, second.thumbnail) < 2
    assert (first.phash ^ other.phash).bit_count() > 12
    assert first.thumbnail.shape == (16, 16)
    assert inspect(np.zeros((50, 50), np.uint8)).phash == 0


@pytest.mark.parametrize("strength", ["none", "light", "standard", "strong"])
def test_a_view_is_decided_by_its_generator(tmp_path: Path, strength: str) -> None:
    path = saved(tmp_path, Image.fromarray(scene(500, 400)), "a.jpg")
    one, again, other = (
        augment(path, CONTRACT, np.random.default_rng(seed), strength=strength) for seed in (1, 1, 2)
    )
    assert one.shape == (64, 64, 3)
    assert one.flags.c_contiguous
    assert np.array_equal(one, again)
    assert np.array_equal(one, other) == (strength == "none")


def test_views_of_grey_pictures() -> None:
    for strength in ("light", "standard", "strong"):
        view = augment(scene()[:, :, 0], contract(1), np.random.default_rng(3), strength=strength)
        assert view.shape == (64, 64, 1)


def test_batch_and_thumbnail() -> None:
    assert batch([np.zeros((4, 4, 3), np.uint8)] * 2).shape == (2, 4, 4, 3)
    small = Image.open(io.BytesIO(thumbnail(scene(), side=50)))
    assert small.size == (50, 40)
    assert Image.open(io.BytesIO(thumbnail(np.zeros((9, 9, 6), np.uint16), side=50))).size == (9, 9)
    assert {".jpg", ".png", ".npy"} <= EXTENSIONS
