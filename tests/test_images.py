"""Images from wherever a row has them, and those that must not be opened."""

from io import BytesIO

import pytest
from PIL import Image

from vlmpack.processors import ImageError
from vlmpack.processors.images import open_image


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.fixture
def picture() -> Image.Image:
    image = Image.new("RGB", (40, 20), "red")
    image.putpixel((0, 0), (0, 0, 255))
    return image


@pytest.fixture
def root(tmp_path, picture):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(encoded(picture))
    (tmp_path / "secret.png").write_bytes(encoded(picture))
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "secret.png")
    return tmp_path / "in"


def test_every_source_gives_the_same_picture(picture, root):
    data = encoded(picture)
    sources = [picture, data, root / "a.png", str(root / "a.png"), {"bytes": data, "path": None}]
    sources += [{"bytes": None, "path": str(root / "a.png")}]
    assert {open_image(source).tobytes() for source in sources} == {picture.tobytes()}
    assert open_image("a.png", root).tobytes() == picture.tobytes()


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "1", "CMYK", "LA"])
def test_every_mode_becomes_rgb(mode, picture):
    form = "TIFF" if mode == "CMYK" else "PNG"
    assert open_image(encoded(picture.convert(mode), form)).mode == "RGB"


def test_webp_under_a_jpg_name_is_read_by_its_content(tmp_path, picture):
    (tmp_path / "a.jpg").write_bytes(encoded(picture, "WEBP", lossless=True))
    assert open_image("a.jpg", tmp_path).size == (40, 20)


def test_a_photo_taken_sideways_is_turned_upright(picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_image(encoded(picture, "JPEG", exif=exif)).size == (20, 40)


@pytest.mark.parametrize("name", ["../secret.png", "link.png", "/etc/hostname"])
def test_nothing_outside_the_root_is_opened(name, root):
    with pytest.raises(ImageError, match="lies outside image_root"):
        open_image(name, root)


def test_a_missing_file_is_named(root):
    with pytest.raises(ImageError, match=r"image b\.png does not exist under .*check image_root"):
        open_image("b.png", root)


def test_what_is_no_image_is_named(root):
    (root / "b.png").write_text("hello")
    with pytest.raises(ImageError, match=r"b\.png is not an image"):
        open_image("b.png", root)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_file_is_named(form, root):
    noise = Image.effect_noise((200, 200), 80).convert("RGB")
    data = encoded(noise, form)
    (root / "cut.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"cut\.png is (damaged or cut off|not an image)"):
        open_image("cut.png", root)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(monkeypatch):
    bomb = encoded(Image.new("1", (10_000, 10_000)))
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ImageError, match=r"too large to decode safely: .* max_image_pixels is 1000000"):
        open_image(bomb, max_pixels=1_000_000)
    with pytest.raises(ImageError, match="too large"):
        open_image(encoded(Image.new("1", (30_000, 10_000))))  # over Pillow's own limit too


@pytest.mark.parametrize(("source", "message"), [("https://x.org/a.png", "is a URL"), (7, "an image is a int"), ({"path": None}, "an image is a NoneType")])  # fmt: skip
def test_other_sources_are_refused(source, message):
    with pytest.raises(ImageError, match=message):
        open_image(source)
