"""Images from wherever a row has them, and those that must not be opened."""

from io import BytesIO

import pytest
from PIL import Image, ImageFile

from vlmpack.processors import ImageError
from vlmpack.processors.images import look_at, open_image


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


@pytest.fixture
def undecodable(monkeypatch):
    """No file may be decoded."""
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("it was decoded"))


def turned(picture, form, orientation, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture, form, exif=exif, **options)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(("orientation", "size"), [(1, (40, 20)), (3, (40, 20)), (6, (20, 40)), (8, (20, 40))])
def test_an_image_is_looked_at_without_decoding_it(form, orientation, size, picture, root, undecodable):
    data = turned(picture, form, orientation)
    (root / "a.file").write_bytes(data)
    sources = [data, bytearray(data), {"bytes": data, "path": None}, str(root / "a.file"), root / "a.file"]
    seen = [look_at(source, root) for source in sources]
    assert {image.size for image, _ in seen} == {size}
    assert len({digest for _, digest in seen}) == 1


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("orientation", [1, 5])
def test_looking_tells_the_size_that_opening_gives(form, orientation, picture):
    data = encoded(picture, form) if form in ("GIF", "BMP") else turned(picture, form, orientation)
    assert look_at(data)[0].size == open_image(data).size


def test_a_png_that_says_behind_its_pixels_how_it_is_turned_is_believed(picture):
    data = turned(picture, "PNG", 6)
    start = data.index(b"eXIf") - 4
    note = data[start : start + 12 + int.from_bytes(data[start : start + 4], "big")]
    late = data.replace(note, b"").replace(data[-12:], note + data[-12:])
    assert late.index(b"IDAT") < late.index(b"eXIf")
    assert look_at(late)[0].size == open_image(late).size == (20, 40)


def test_an_image_that_was_opened_and_not_decoded_is_looked_at_as_its_file(picture, root, undecodable):
    waiting = Image.open(root / "a.png")
    assert look_at(waiting)[1] == look_at(root / "a.png")[1]


def test_an_image_that_was_looked_at_can_be_decoded(root):
    waiting = Image.open(root / "a.png")
    look_at(waiting)
    assert open_image(waiting).getpixel((0, 0)) == (0, 0, 255)


def test_images_in_memory_are_told_apart_by_their_pixels(picture):
    other = picture.copy()
    other.putpixel((3, 3), (1, 2, 3))
    palettes = [picture.convert("P"), other.convert("P")]
    assert look_at(picture)[1] == look_at(picture.copy())[1] != look_at(other)[1]
    assert look_at(palettes[0])[1] != look_at(palettes[1])[1]
    assert len(look_at(picture)[1]) == 16


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("left", [0.5, 0.98])
def test_a_cut_file_is_named_when_it_is_looked_at(form, left, root):
    data = encoded(Image.effect_noise((200, 200), 80).convert("RGB"), form)
    (root / "cut.png").write_bytes(data[: int(left * len(data))])
    for look in (look_at, open_image):
        with pytest.raises(ImageError, match=r"cut\.png is (damaged or cut off|not an image)"):
            look("cut.png", root)


def test_a_cut_photo_with_a_thumbnail_is_named(picture):
    noise = Image.effect_noise((200, 200), 80).convert("RGB")
    exif = Image.Exif()
    exif[0x010E] = encoded(picture, "JPEG")  # a whole picture in the header, with an end of its own
    data = encoded(noise, "JPEG", exif=exif)
    assert b"\xff\xd9" in data[: len(data) // 2]
    look_at(data + b"a camera's own notes")
    with pytest.raises(ImageError, match="its end is missing"):
        look_at(data[: -len(data) // 3])


def test_a_cut_file_is_taken_where_pillow_is_told_to_take_it(monkeypatch):
    data = encoded(Image.effect_noise((200, 200), 80).convert("RGB"), "JPEG")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert look_at(data[:-100])[0].size == open_image(data[:-100]).size == (200, 200)


def test_what_may_not_be_opened_may_not_be_looked_at(root):
    with pytest.raises(ImageError, match="lies outside image_root"):
        look_at("../secret.png", root)
    with pytest.raises(ImageError, match=r"image b\.png does not exist under"):
        look_at("b.png", root)
    with pytest.raises(ImageError, match="too large to decode safely: 40x20 pixels, and max_image_pixels is 799"):
        look_at("a.png", root, 799)
    with pytest.raises(ImageError, match="an image is a int"):
        look_at(7)
