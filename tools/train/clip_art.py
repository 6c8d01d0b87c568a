"""Drawings of the Open Clip Art Library (Debian's openclipart-png, public domain) on white, 128 x 128 pixels.

File names are titles, followed by the name of their author in many of them; the first folder is the class.
"""

import pathlib
import re

FOLDER = pathlib.Path("/usr/share/openclipart/png")
SIZE, MARGIN = 128, 4
MAX_PIXELS = 4_000_000

# Folders of things. Left out: window icons, flags, logos, maps, stars by the thousand, patterns.
USED = ("animals", "buildings", "containers", "decorations", "education", "electronics", "food", "office", "people", "plants",
        "recreation", "science", "signs_and_symbols", "tools", "transportation")
LEFT_OUT = re.compile(r"/(flags|semaphore|heraldry|cards|dominoes|maps?|roadsigns|sign_language|fonts?|letters)(/|$)")
NO_FLIP = ("education", "office", "signs_and_symbols")
PLAIN_FOLDERS = {"unsorted", "misc", "other", "clipart"}


class ClipArt:
    def __init__(self, name, keywords, folder, picture):
        self.name, self.keywords, self.picture = name, keywords, picture
        self.subgroup = f"clipart-{folder.replace('_and_', '-')}"
        self.may_flip = folder not in NO_FLIP


def title_of(stem):
    """"light_bulb_karl_bartel_01" gives "light bulb karl bartel": authors cannot be told from titles, but hardly repeat."""
    words = re.sub(r"[^a-z]+", " ", stem.lower()).split()
    return " ".join(w for w in words if len(w) > 1)


def draw(path):
    """The drawing on white, fitted into the square; None if it is very large, very long or nearly empty."""
    from PIL import Image
    import numpy as np

    Image.MAX_IMAGE_PIXELS = None  # the limit below is lower
    image = Image.open(path)
    if image.width * image.height > MAX_PIXELS:
        return None
    image = image.convert("RGBA")
    box = image.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox()
    if box is None:
        return None
    image = image.crop(box)
    if max(image.size) > 2.2 * min(image.size) or min(image.size) < 40:
        return None
    canvas = Image.new("RGBA", image.size, "white")
    canvas.alpha_composite(image)
    scale = (SIZE - 2 * MARGIN) / max(image.size)
    size = [max(1, round(side * scale)) for side in image.size]
    square = Image.new("RGB", (SIZE, SIZE), "white")
    square.paste(canvas.convert("RGB").resize(size, Image.LANCZOS), [(SIZE - side) // 2 for side in size])
    picture = np.asarray(square)
    ink = (picture.min(-1) < 235).mean()
    return picture if 0.08 < ink else None


def read_clip_art(folder, held_out):
    """Every usable drawing whose title holds none of the held-out names as words."""
    found = []
    for path in sorted(folder.rglob("*.png")):
        parts = path.relative_to(folder).parts
        if parts[0] not in USED or LEFT_OUT.search("/" + "/".join(parts[:-1]).lower()):
            continue
        name = title_of(path.stem)
        keywords = [w for part in parts[:-1] for w in [part.replace("_", " ").lower()] if w not in PLAIN_FOLDERS]
        padded = f" {name} " + " ".join(keywords) + " "
        if not name or any(f" {n} " in padded or f" {n}s " in padded for n in held_out):
            continue
        picture = draw(path)
        if picture is not None:
            found.append(ClipArt(name, keywords, parts[0], picture))
    return found
