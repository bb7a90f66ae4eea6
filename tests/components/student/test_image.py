import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image as pillow

from components.contracts.errors import ConfigError, RecordError
from components.contracts.payload import decoder
from components.contracts.spec import Payload
from components.student.image import Image, image_bytes

FEATURES = Image(height=4, width=6)


def file(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def flat(colour, mode="RGB", size=(12, 8)):
    return pillow.new(mode, size, colour)


def claiming(width, height):
    """A PNG of a few bytes whose header claims a size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


def test_pixels_have_the_wanted_size_and_are_scaled():
    found = FEATURES.encode([file(flat((255, 0, 51))), file(flat((255, 0, 51), size=(3, 50)), "JPEG", quality=95)])
    pixels = found["pixels"]
    assert pixels.shape == (2, 3, 4, 6) and pixels.dtype == np.float32
    assert pixels[0, :, 0, 0].tolist() == pytest.approx([1.0, -1.0, -0.6]) and np.ptp(pixels[0, 0]) == 0
    assert pixels[1, :, 2, 3].tolist() == pytest.approx([1.0, -1.0, -0.6], abs=0.05)
    assert FEATURES.encode([])["pixels"].shape == (0, 3, 4, 6)


def test_greys_have_one_channel_whatever_the_image_has():
    grey = Image(height=2, width=2, colour="grey")
    deep = pillow.fromarray(np.full((3, 3), 257 * 200, dtype=np.uint16))
    images = [flat(200, "L"), flat((200, 200, 200)), flat(1, "1"), deep, flat((200, 200, 200), "RGB").convert("P")]
    pixels = grey.encode([file(i) for i in images])["pixels"]
    assert pixels.shape == (5, 1, 2, 2)
    assert pixels[:, 0, 0, 0].tolist() == pytest.approx([v / 127.5 - 1 for v in (200, 200, 255, 200, 200)], abs=0.03)


def test_what_is_transparent_is_white():
    image = flat((0, 0, 0, 0), "RGBA")
    image.paste((255, 0, 0, 255), (0, 0, 6, 8))
    pixels = FEATURES.encode([file(image)])["pixels"][0]
    assert pixels[:, 2, 0].tolist() == [1.0, -1.0, -1.0] and pixels[:, 2, 5].tolist() == [1.0, 1.0, 1.0]


def test_an_image_is_turned_as_its_camera_was_held():
    image = flat((0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 12, 4))
    exif = pillow.Exif()
    exif[0x0112] = 6  # turned by a quarter to the right
    pixels = FEATURES.encode([file(image, exif=exif)])["pixels"][0, 0]
    assert pixels[2, 0] < -0.9 and pixels[2, 5] > 0.9


def test_describes_an_image():
    found = FEATURES.describe(file(flat((51, 51, 51))))
    assert (found["width"], found["height"]) == (12.0, 8.0)
    assert found["brightness"] == pytest.approx(0.2) and found["contrast"] == pytest.approx(0.0, abs=1e-9)
    assert found["entropy"] == found["edges"] == 0.0
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    other = FEATURES.describe(file(pillow.fromarray(noise)))
    assert other["entropy"] > 6 and other["edges"] > 0.1 and other["colourfulness"] > 0.3
    assert other.keys() == found.keys()


@pytest.mark.parametrize("method", [lambda d: FEATURES.encode([d]), FEATURES.describe, image_bytes])
def test_what_is_no_image_is_refused(method):
    noise = pillow.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))
    png, jpeg = file(noise), file(noise, "JPEG")
    for data in (b"no image", png[:200], jpeg[:600], png[:40] + b"?" + png[41:], file(flat(0, "L"), "GIF")):
        with pytest.raises(RecordError) as error:
            method(data)
        assert error.value.reason == "undecodable"


@pytest.mark.parametrize("size", [(5_000, 5_000), (12_000, 12_000), (60_000, 60_000)])
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(size):
    for method in (lambda d: FEATURES.encode([d]), FEATURES.describe, image_bytes):
        with pytest.raises(RecordError) as error:
            method(claiming(*size))
        assert error.value.reason == "oversize"
    with pytest.raises(RecordError, match="12 x 8 pixels; at most 95"):
        Image(max_pixels=95).encode([file(flat((0, 0, 0)))])


def test_as_a_decoder_it_gives_the_bytes_as_they_came():
    decode = decoder(Payload(decoder="components.student.image:image_bytes"))
    data = file(flat((1, 2, 3)))
    assert decode(data) == data
    with pytest.raises(RecordError, match="undecodable: neither a PNG nor a JPEG"):
        decode(b"no image")


@pytest.mark.parametrize("options", [{"height": 0}, {"width": -1}, {"colour": "cmyk"}, {"max_pixels": 0}])
def test_refuses_options_out_of_range(options):
    with pytest.raises(ConfigError, match=f"features.options.{next(iter(options))}"):
        Image(**options)
