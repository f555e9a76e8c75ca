"""Pictures: from a file or an array to uint8 pixels [H, W, C] of the size and channels that a network takes.

Files are told by their content, never by their name. Every kind ends as 8-bit: palette, CMYK, YCbCr and 1-bit are
converted; transparency is laid on white (kept where the network takes 4 channels); EXIF rotation is applied; an
animation gives its first frame. Numbers wider than 8 bits are scaled by the significant bits of the picture,
rounded up to 8, 10, 12, 14 or 16 (beyond: any), so that 12-bit scans in 16-bit files keep their greys. Floats are
taken as 0..1 or 0..255 where they lie in that range, else stretched from their least to their largest value.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from headstart.core.errors import DataError
from headstart.core.types import LIMITS, InputContract, Limits, Prepared
from headstart.modalities.facts import HASH_SIDE, Facts, facts_of, grey
from headstart.modalities.variation import STRENGTHS, vary

NOUN = ("picture", "pictures")
VERSION = 1
"""Version of the decoding, resizing and augmentation; bump when their pixels move."""

EXTENSIONS: frozenset[str] = frozenset(
    ("." + name)
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "avif", "jp2", "bmp", "dib"),
        *("tif", "tiff", "ppm", "pgm", "pbm", "pnm", "tga", "npy"),
    )
)
"""File name endings, in lower case, that count as pictures when a folder is listed."""

_EXIF_KEYS = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
_TURNED = (5, 6, 7, 8)
_ORIENTATION = 0x0112
_LONGEST = 4
"""Strips longer than this many times their shorter side lose their ends before they are resized."""


Raw = Path | np.ndarray
"""A reference to a picture: a file, or an array [H, W] or [H, W, C]."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A decoded picture, perhaps at reduced size, with the size (width, height) and channels of its file."""

    picture: Image.Image | np.ndarray
    size: tuple[int, int]
    channels: int

    def pixels(self) -> np.ndarray:
        """Return uint8 [H, W, C]."""
        pixels = np.array(self.picture) if isinstance(self.picture, Image.Image) else self.picture
        return pixels if pixels.ndim == 3 else pixels[:, :, None]


_Need = Callable[[int, int], tuple[int, int]]
"""From the size (width, height) of a picture to the least size that still holds all that is needed of it."""


def prepare(raw: Raw, contract: InputContract, *, limits: Limits = LIMITS) -> Prepared:
    """Decode, resize the shorter side, crop the centre as timm's evaluation does, and note the facts.

    JPEGs are decoded at 1/2, 1/4 or 1/8 where that still holds every pixel that the resize needs; the result then
    differs from the full decode by less than 1 of 255 on average. DataError names the file and what is wrong.
    """
    opened = _open(
        raw,
        lambda width, height: _resized(width, height, contract),
        contract.channels,
        limits=limits,
    )
    return Prepared(
        _ordered(_evaluation_crop(opened, contract, raw), contract),
        facts_of(opened.picture, size=opened.size, channels=opened.channels),
    )


def inspect(raw: Raw, *, limits: Limits = LIMITS) -> Facts:
    """Decode as small as the hash allows, only to note the facts (an audit without a network)."""
    opened = _open(raw, lambda *_: (2 * HASH_SIDE, 2 * HASH_SIDE), None, limits=limits)
    return facts_of(opened.picture, size=opened.size, channels=opened.channels)


def augment(
    raw: Raw,
    contract: InputContract,
    draw: np.random.Generator,
    *,
    strength: str,
    limits: Limits = LIMITS,
) -> np.ndarray:
    """Return a random view, uint8 [H, W, C], decided by `draw` alone.

    `none` is the evaluation view; `light` crops and mirrors; `standard` also shifts brightness, contrast and colour;
    `strong` crops and shifts more, turns by up to 15 degrees and erases a patch in a quarter of the views.
    """
    if strength == "none":
        return prepare(raw, contract, limits=limits).value
    recipe = STRENGTHS[strength]
    area, ratio = draw.uniform(recipe.least_area, 1.0), math.exp(draw.uniform(-1, 1) * math.log(4 / 3))
    place = draw.random(2)

    def crop(width: int, height: int) -> tuple[int, int, int, int]:
        """Return left, top, width, height of the drawn crop in a picture of this size."""
        wide = min(width, max(1, round(math.sqrt(width * height * area * ratio))))
        high = min(height, max(1, round(math.sqrt(width * height * area / ratio))))
        return int(place[0] * (width - wide + 1)), int(place[1] * (height - high + 1)), wide, high

    def need(width: int, height: int) -> tuple[int, int]:
        """Ask for a picture in which the crop alone has the pixels of the network's input."""
        _, _, wide, high = crop(width, height)
        return math.ceil(contract.size[1] * width / wide), math.ceil(contract.size[0] * height / high)

    opened = _open(raw, need, contract.channels, limits=limits)
    pixels = opened.pixels()
    left, top, wide, high = crop(pixels.shape[1], pixels.shape[0])
    view = _resize(pixels[top : top + high, left : left + wide], contract.size, contract.interpolation)
    view = _fit_channels(view, contract.channels, raw)
    if draw.random() < 0.5:
        view = view[:, ::-1]
    return _ordered(vary(view, draw, recipe), contract)


def batch(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Stack pictures of one size into uint8 [N, H, W, C]."""
    return np.stack(pictures)


def thumbnail(raw: Raw, *, side: int) -> bytes:
    """Return a JPEG whose longer side has at most `side` pixels, for reports."""
    picture = _open(
        raw, lambda width, height: _within(width, height, side), None, limits=Limits(megapixels=1e9)
    ).picture
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(grey(picture) if picture.ndim == 3 and picture.shape[2] != 3 else picture)
    picture = picture.resize(_within(*picture.size, side), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    (picture if picture.mode == "L" else picture.convert("RGB")).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def _within(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the size, shrunk in proportion so that no side is longer than `side`."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


# Opening


def _open(raw: Raw, need: _Need, channels: int | None, *, limits: Limits) -> _Opened:
    """Decode a file or take an array; 8-bit, upright, in L, RGB (or RGBA for 4 channels) or uint8 [H, W, C]."""
    if isinstance(raw, np.ndarray):
        return _from_array(raw, "an array in memory", limits)
    path = Path(raw)
    try:
        if path.suffix.lower() == ".npy":
            return _from_array(np.load(path, mmap_mode="r", allow_pickle=False), str(path), limits)
        with Image.open(path) as picture:
            _refuse_oversized(path, *picture.size, limits)
            return _from_picture(picture, need, channels)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist (any more)",
            expected="every file that was listed when the data were opened",
            fix="put the file back, or run the command again to list the data anew",
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _oversized(path, str(error), limits) from None
    except UnidentifiedImageError:
        raise _unreadable(path, _sniff(path)) from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise nearly any class on damaged bytes
        raise _unreadable(path, f"{error} ({error.__class__.__name__})") from error


def _unreadable(path: Path, reason: str) -> DataError:
    """Return the error for a file that cannot be decoded."""
    return DataError(
        f"{path} cannot be read: {reason}",
        expected="a whole picture (JPEG, PNG, GIF, BMP, TIFF, WebP, ... or a .npy array)",
        fix="replace or delete the file",
    )


def _oversized(path: Path | str, what: str, limits: Limits) -> DataError:
    """Return the error for a picture beyond the limit."""
    return DataError(
        f"{path} is oversized: {what}",
        expected=f"at most {limits.megapixels:g} megapixels (data.max_megapixels)",
        fix="shrink or delete it, or raise the limit with --set data.max_megapixels=...",
    )


def _refuse_oversized(path: Path | str, width: int, height: int, limits: Limits) -> None:
    """Refuse a decompression bomb by its header, before anything is decoded."""
    if width * height > limits.megapixels * 1e6:
        raise _oversized(path, f"{width} x {height} pixels, {width * height / 1e6:.0f} megapixels", limits)


def _sniff(path: Path) -> str:
    """Say what a file that is no picture seems to be."""
    with path.open("rb") as stream:
        start = stream.read(1024)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "it is empty (0 bytes)"
    if text.startswith(b"%pdf"):
        return "it is a PDF, not a picture"
    if b"<svg" in text:
        return "it is an SVG drawing, not a picture made of pixels"
    if text.startswith((b"<!doctype html", b"<html")):
        return "it is a web page, not a picture"
    if b"\0" not in start:
        return "it is text, not a picture"
    return "it is no picture of a known format"


def _from_picture(picture: Image.Image, need: _Need, channels: int | None) -> _Opened:
    """Decode an opened file, JPEGs at the smallest scale that holds what is needed, and set it upright."""
    (width, height), bands = picture.size, len(picture.getbands())
    orientation = _orientation(picture)
    if picture.format in ("JPEG", "MPO"):
        high, wide = need(height, width) if orientation in _TURNED else need(width, height)[::-1]
        picture.draft("L" if channels == 1 else None, (min(width, wide), min(height, high)))
        picture.load()
    else:
        picture.load()
        # Only now: a PNG may tell its rotation after its pixels, and Pillow turns a TIFF while it loads it.
        (width, height), orientation = picture.size, _orientation(picture)
    if orientation != 1:
        picture = ImageOps.exif_transpose(picture)
    size = (height, width) if orientation in _TURNED else (width, height)
    return _Opened(_eight_bit(picture, channels), size, bands)


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation of an opened file, 1 (upright) where it says none."""
    if not any(key in picture.info for key in _EXIF_KEYS):
        return 1
    return picture.getexif().get(_ORIENTATION, 1)


def _eight_bit(picture: Image.Image, channels: int | None) -> Image.Image:
    """Convert any mode to L or RGB, to RGBA where 4 channels are wanted and the file has them."""
    mode = picture.mode
    if mode in ("L", "RGB") and "transparency" not in picture.info:
        return picture
    if mode in ("I", "F") or mode.startswith("I;"):
        return Image.fromarray(_scaled(np.asarray(picture)))
    if mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        if channels == 4:
            return layer
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("L" if mode in ("L", "LA", "La") else "RGB")
    return picture.convert("L" if mode == "1" else "RGB")


def _from_array(array: np.ndarray, name: str, limits: Limits) -> _Opened:
    """Check and scale an array [H, W] or [H, W, C]."""
    if array.ndim not in (2, 3) or 0 in array.shape or array.dtype.kind not in "buif":
        raise DataError(
            f"{name} has shape {array.shape} and type {array.dtype}",
            expected="a picture of numbers as [height, width] or [height, width, channels]",
            fix="reorder its axes (channels last), or remove it",
        )
    _refuse_oversized(name, array.shape[1], array.shape[0], limits)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(
            f"{name} cannot be read: it has pixels that are NaN or infinite",
            expected="finite numbers",
            fix="replace them (numpy.nan_to_num) or remove the picture",
        )
    pixels = _scaled(np.asarray(array))
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return _Opened(pixels, (array.shape[1], array.shape[0]), 1 if array.ndim == 2 else array.shape[2])


def _scaled(values: np.ndarray) -> np.ndarray:
    """Bring numbers of any type to uint8 by the rule in the module's docstring."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f":
        if low >= 0 and high <= 255:
            factor, low = (255.0 if high <= 1 else 1.0), 0.0
        else:
            factor = 255.0 / max(high - low, np.finfo(np.float64).tiny)
    else:
        low = min(low, 0.0)
        bits = max(8, int(high - low).bit_length())
        factor = 255.0 / (2 ** (bits + bits % 2 if bits < 16 else bits) - 1)
    return np.rint((values.astype(np.float32) - low) * factor).clip(0, 255).astype(np.uint8)


# Size and channels


def _resized(width: int, height: int, contract: InputContract) -> tuple[int, int]:
    """Return the (width, height) to which timm's evaluation resizes before it crops the centre."""
    high, wide = (math.floor(side / contract.crop) for side in contract.size)
    if high != wide:
        scale = max(high / height, wide / width)
        return max(wide, round(width * scale)), max(high, round(height * scale))
    if width <= height:
        return wide, int(wide * height / width)
    return int(high * width / height), high


def _evaluation_crop(opened: _Opened, contract: InputContract, raw: Raw) -> np.ndarray:
    """Resize so that the crop's surroundings fit, and cut the centre: uint8 [H, W, C], contiguous."""
    high, wide = contract.size
    pixels, (width, height) = opened.pixels(), opened.size
    if max(width, height) > _LONGEST * min(width, height):
        pixels = _without_ends(pixels)
        height, width = pixels.shape[:2]
    width, height = _resized(width, height, contract)
    pixels = _resize(pixels, (height, width), contract.interpolation)
    top, left = round((height - high) / 2), round((width - wide) / 2)
    return _fit_channels(pixels[top : top + high, left : left + wide], contract.channels, raw)


def _without_ends(pixels: np.ndarray) -> np.ndarray:
    """Cut a strip to its middle, so that resizing its shorter side cannot make it huge."""
    height, width = pixels.shape[:2]
    keep = _LONGEST * min(height, width)
    if width > height:
        left = (width - keep) // 2
        return pixels[:, left : width - left]
    top = (height - keep) // 2
    return pixels[top : height - top]


def _resize(pixels: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Resize uint8 [h, w, C] to `size` (height, width) with antialiasing, as Pillow does."""
    if pixels.shape[:2] == size:
        return pixels
    # torch's 8-bit kernel gives Pillow's numbers in half of Pillow's time; an audit without a network needs neither.
    import torch
    from torch.nn.functional import interpolate

    with torch.inference_mode():
        tensor = (
            torch.from_numpy(np.require(pixels, requirements=["C", "W"])).unsqueeze(0).permute(0, 3, 1, 2)
        )
        resized = interpolate(tensor, size=size, mode=interpolation, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def _fit_channels(pixels: np.ndarray, channels: int, raw: Raw) -> np.ndarray:
    """Return [H, W, channels]: grey from colour, colour from grey, transparency laid on white, else as it is."""
    given = pixels.shape[2]
    if given == channels:
        return pixels
    if given in (2, 4) and channels in (1, 3):
        alpha = pixels[:, :, -1:].astype(np.uint16)
        pixels = ((pixels[:, :, :-1] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
        given -= 1
    if given == channels:
        return pixels
    if given == 3 and channels == 1:
        return grey(pixels)[:, :, None]
    if given == 1 and channels == 3:
        return np.repeat(pixels, 3, axis=2)
    name = "an array in memory" if isinstance(raw, np.ndarray) else str(raw)
    raise DataError(
        f"{name} has {given} channels",
        expected=f"{channels} channels, as the network takes",
        fix=f"--set encoder.channels={given}, if all pictures have as many",
    )


def _ordered(pixels: np.ndarray, contract: InputContract) -> np.ndarray:
    """Return contiguous pixels in the contract's channel order."""
    return np.ascontiguousarray(pixels[:, :, ::-1] if contract.order == "bgr" else pixels)
