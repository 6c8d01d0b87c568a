"""Emoji pictures of 128 x 128 pixels with their names, keywords and Unicode subgroups, and clip art beside them.

Reads the bitmaps of a colour emoji font (CBDT table), the names of Unicode's emoji-test.txt, the keywords of CLDR's
annotations and the drawings of a clip art folder (see clip_art.py), and writes one .npz that the training scripts load.
`python3 emoji_dataset.py --out emoji.npz --card DIR` also writes heldout.txt into DIR.

Ref: Unicode Technical Standard 51 (emoji-test.txt); CLDR annotations; OpenType specification, tables CBDT and GSUB.
"""

import argparse
import collections
import hashlib
import io
import math
import pathlib
import re
import xml.etree.ElementTree

import numpy as np

from clip_art import FOLDER as CLIP_ART
from clip_art import read_clip_art

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
EMOJI_TEST = "/usr/share/unicode/emoji/emoji-test.txt"
ANNOTATIONS = "/usr/share/unicode/cldr/common"
SIZE = 128
CELL = 8  # pixels of a side that one code stands for
SPARE = 0.6  # of a cell: how far a shift may go beyond the margin before it is rounded to whole cells
# Sizes to which pictures are changed; None: any.
CHANGES = {"any": None, "three sizes": (0.76, 0.84, 0.92), "two sizes": (0.84, 0.92), "one size": (0.88,)}

# Flags are dropped: they are many, and a flag drawn from a mixture of flags is nobody's flag.
DROPPED_SUBGROUPS = {"flag", "country-flag", "subdivision-flag"}

# A mirrored picture of these would show mirrored writing, or point the wrong way.
NO_FLIP_SUBGROUPS = {
    "keycap", "alphanum", "arrow", "punctuation", "currency", "math", "av-symbol", "transport-sign", "warning", "zodiac",
    "religion", "other-symbol", "time", "mail", "book-paper", "office", "computer", "money", "place-building", "game",
    "event", "music", "writing", "phone", "gender", "award-medal", "emotion", "transport-ground", "other-object",
}
NO_FLIP_WORDS = re.compile(r"\b(left|right|leftwards|rightwards|pointing)\b")


class Emoji:
    """One picture: its Unicode name, keywords, subgroup, the name it shares with its variants, and its glyph."""

    def __init__(self, name, keywords, group, subgroup, glyph):
        self.name = name.lower()
        self.keywords = keywords
        self.group, self.subgroup = group, subgroup
        self.glyph = glyph
        self.base = base_name(self.name)

    @property
    def may_flip(self):
        return self.subgroup not in NO_FLIP_SUBGROUPS and not NO_FLIP_WORDS.search(self.name)


def base_name(name):
    """The name without skin tone, hair and gender: "woman firefighter: dark skin tone" gives "firefighter"."""
    if not name.startswith("keycap"):
        name = name.split(":")[0]
    shorter = re.sub(r"^(man|woman|person|men|women|people) (?!and )", "", name)
    return re.sub(r"^(in|with|wearing) ", r"person \1 ", shorter)


def ligatures(font):
    """Sequences of glyph names and the glyph each becomes, longest first for every first glyph."""
    table = {}
    for lookup in font["GSUB"].table.LookupList.Lookup:
        if lookup.LookupType != 4:
            continue
        for subtable in lookup.SubTable:
            for first, sets in subtable.ligatures.items():
                table.setdefault(first, []).extend((tuple(s.Component), s.LigGlyph) for s in sets)
    for entries in table.values():
        entries.sort(key=lambda entry: -len(entry[0]))
    return table


def glyph_of(code_points, cmap, ligature_table):
    """The single glyph a code point sequence is drawn with, or None."""
    glyphs = [cmap.get(c) for c in code_points if c != 0xFE0F]
    if None in glyphs:
        return None
    out = []
    while glyphs:
        for rest, ligature in ligature_table.get(glyphs[0], []):
            if tuple(glyphs[1:1 + len(rest)]) == rest:
                out.append(ligature)
                glyphs = glyphs[1 + len(rest):]
                break
        else:
            out.append(glyphs[0])
            glyphs = glyphs[1:]
    return out[0] if len(out) == 1 else None


def read_keywords(folder):
    """Code points without variation selectors -> keywords, from CLDR's English annotations."""
    found = {}
    for part in ("annotations", "annotationsDerived"):
        for entry in xml.etree.ElementTree.parse(pathlib.Path(folder) / part / "en.xml").iter("annotation"):
            if entry.get("type") is None:
                found[entry.get("cp").replace("\ufe0f", "")] = [k.strip().lower() for k in entry.text.split("|")]
    return found


def read_names(path, font, keywords):
    """Every fully-qualified emoji of emoji-test.txt that the font draws with one glyph, flags excepted."""
    cmap, table, strike = font.getBestCmap(), ligatures(font), font["CBDT"].strikeData[0]
    found, group, subgroup = [], None, None
    for line in open(path, encoding="utf-8"):
        if line.startswith("# group:"):
            group = line.split(":", 1)[1].strip()
        if line.startswith("# subgroup:"):
            subgroup = line.split(":", 1)[1].strip()
        match = re.match(r"([0-9A-F ]+); fully-qualified\s+# \S+ E[\d.]+ (.*)", line)
        if not match or subgroup in DROPPED_SUBGROUPS:
            continue
        code_points = [int(c, 16) for c in match[1].split()]
        glyph = glyph_of(code_points, cmap, table)
        if glyph in strike:
            text = "".join(map(chr, code_points)).replace("\ufe0f", "")
            found.append(Emoji(match[2].strip(), keywords.get(text, []), group, subgroup, glyph))
    return found


def draw(png):
    """A font bitmap of 136 x 128 on white; the four outer columns of each side are empty in every glyph and cut off."""
    from PIL import Image

    bitmap = Image.open(io.BytesIO(png)).convert("RGBA")
    canvas = Image.new("RGBA", bitmap.size, "white")
    canvas.alpha_composite(bitmap)
    left = (bitmap.width - SIZE) // 2
    return np.asarray(canvas.convert("RGB").crop((left, 0, left + SIZE, SIZE)))


def held_out_bases(emoji):
    """A tenth of all base names, chosen by hash from subgroups that have at least five: those whose hash is divisible by
    ten, then those with the smallest hashes of the others."""
    bases = collections.defaultdict(set)
    for e in emoji:
        bases[e.subgroup].add(e.base)

    def rank(name):
        value = int(hashlib.sha256(name.encode()).hexdigest(), 16)
        return value % 10 != 0, value

    ordered = sorted(set().union(*(names for names in bases.values() if len(names) >= 5)), key=rank)
    return set(ordered[:math.ceil(len(set().union(*bases.values())) / 10)])


def pack(pictures):
    """Pictures [M, 128, 128, 3] as lossless WebP, one after the other, and where each begins and ends."""
    from PIL import Image

    files = []
    for picture in pictures:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "WEBP", lossless=True, quality=60, method=4)
        files.append(file.getvalue())
    return np.frombuffer(b"".join(files), np.uint8), np.cumsum([0] + [len(f) for f in files])


def unpack(blob, ends):
    from PIL import Image

    read = lambda begin, end: np.asarray(Image.open(io.BytesIO(blob[begin:end].tobytes())).convert("RGB"))
    return np.stack([read(begin, end) for begin, end in zip(ends[:-1], ends[1:])])


def build(args):
    """Writes the .npz and the list of held-out names."""
    from fontTools.ttLib import TTFont

    font = TTFont(args.font)
    emoji = read_names(args.emoji_test, font, read_keywords(args.annotations))
    strike = font["CBDT"].strikeData[0]
    bases = list(dict.fromkeys(e.base for e in emoji))
    held_out = held_out_bases(emoji)
    clips = read_clip_art(args.clip_art, [b for b in bases if b in held_out])
    classes = list(dict.fromkeys([e.subgroup for e in emoji] + [c.subgroup for c in clips]))
    groups = list(dict.fromkeys([e.group for e in emoji] + ["clip art"]))
    group_of = {e.subgroup: e.group for e in emoji}

    everything = emoji + clips
    blob, ends = pack([draw(strike[e.glyph].imageData) for e in emoji] + [c.picture for c in clips])
    bases += [f"clip art {i}" for i in range(len(clips))]
    np.savez_compressed(
        args.out,
        blob=blob, ends=ends,
        class_id=np.array([classes.index(e.subgroup) for e in everything], np.int64),
        base_id=np.array([bases.index(e.base) for e in emoji] + [len(bases) - len(clips) + i for i in range(len(clips))], np.int64),
        held_out=np.array([e.base in held_out for e in emoji] + [False] * len(clips)),
        may_flip=np.array([e.may_flip for e in everything]),
        names=np.array([e.name for e in everything]),
        keywords=np.array(["|".join(e.keywords) for e in everything]),
        classes=np.array(classes),
        groups=np.array(groups),
        group_of_class=np.array([groups.index(group_of.get(c, "clip art")) for c in classes], np.int64),
        emoji_count=np.array(len(emoji)),
    )
    args.card.mkdir(parents=True, exist_ok=True)
    (args.card / "heldout.txt").write_text("".join(f"{b}\n" for b in bases if b in held_out))
    print(f"{len(emoji)} emoji of {len(bases) - len(clips)} bases ({len(held_out)} held out), {len(clips)} clip art pictures, "
          f"{len(classes)} classes, {sum(bool(e.keywords) for e in emoji)} emoji with keywords, {len(blob)} bytes")


class EmojiSet:
    """The pictures on a device, drawn so that every base emoji is equally likely whatever its number of variants, and clip
    art for a share of the draws."""

    def __init__(self, path, device, clip_share=0.0):
        import torch

        data = np.load(path)
        to = lambda key: torch.from_numpy(data[key]).to(device)
        images = torch.from_numpy(unpack(data["blob"], data["ends"])).to(device)
        self.images = images.permute(0, 3, 1, 2).contiguous()  # [M, 3, 128, 128] uint8, emoji first
        self.class_id, self.base_id = to("class_id"), to("base_id")
        self.held_out, self.may_flip = to("held_out"), to("may_flip")
        self.names, self.classes = data["names"].tolist(), data["classes"].tolist()
        self.keywords = [k.split("|") if k else [] for k in data["keywords"].tolist()]
        self.groups, self.group_of_class = data["groups"].tolist(), data["group_of_class"].tolist()
        self.emoji_count = int(data["emoji_count"])
        self.is_emoji = torch.arange(len(images), device=device) < self.emoji_count
        variants = torch.bincount(self.base_id)
        self.weight = 1.0 / variants[self.base_id].float()  # [M]
        # Training pictures alone; of them clip art is drawn with probability clip_share.
        parts = (self.is_emoji & ~self.held_out, ~self.is_emoji)
        shares = (1 - clip_share, clip_share)
        self.train_weight = sum(share * self.weight * part / (self.weight * part).sum().clamp_min(1e-9)
                                for share, part in zip(shares, parts))  # [M]

    def draw(self, count, generator=None):
        """Indices of `count` training pictures."""
        import torch

        return torch.multinomial(self.train_weight, count, replacement=True, generator=generator)

    def pixels(self, index):
        """Pictures as floats in [-1, 1], [B, 3, 128, 128]."""
        return self.images[index].float() / 127.5 - 1

    def augmented(self, index, share=1.0, changes="any"):
        """Pictures mirrored (where that is allowed), resized and shifted, each with probability `share`. Colours stay,
        since prompts name them.

        changes: "any": resized to 78..108 %, turned by up to 8 degrees, shifted at will; otherwise resized to one of
        CHANGES[changes] and shifted by whole cells of the tokenizer, so that the same codes come again.
        """
        import torch

        count, device = len(index), self.images.device
        uniform = lambda low, high: low + (high - low) * torch.rand(count, device=device)
        changed = (uniform(0, 1) < share).float()
        flip = 1 - 2 * changed * self.may_flip[index] * (uniform(0, 1) < 0.5)
        sizes = CHANGES[changes]
        if sizes is None:
            zoom = 1 / (1 + changed * uniform(-0.22, 0.08))
            angle = changed * uniform(-1, 1) * math.radians(8)
            # Shifts stay inside the margin that shrinking opens, plus five pixels.
            reach = (zoom - 1).clamp_min(0) + changed * 5 / (SIZE / 2)
            shifts = [uniform(-1, 1) * reach for _ in range(2)]
        else:
            size = torch.tensor(sizes, device=device)[torch.randint(len(sizes), (count,), device=device)]
            zoom, angle = 1 / (1 + changed * (size - 1)), torch.zeros(count, device=device)
            cell = 2 * CELL / SIZE * zoom  # in the coordinates of what is read
            shifts = [(uniform(-1, 1) * ((zoom - 1) / cell + SPARE)).round() * cell * changed for _ in range(2)]
        return self.placed(index, zoom, flip, angle, *shifts)

    def placed(self, index, zoom, flip, angle, right, down):
        """Pictures read at zoom times their size, mirrored where flip is -1, turned, and shifted; all [B]."""
        import torch
        import torch.nn.functional as F

        theta = torch.stack([zoom * flip * angle.cos(), -zoom * flip * angle.sin(), right,
                             zoom * angle.sin(), zoom * angle.cos(), down], -1).view(-1, 2, 3)
        grid = F.affine_grid(theta, (len(index), 3, SIZE, SIZE), align_corners=False)
        ink = 1 - self.pixels(index)  # white is 0, so that what comes in from outside is white
        return 1 - F.grid_sample(ink, grid, align_corners=False)

    def in_cells(self, index, size, is_mirrored, cells):
        """Pictures as augmented() makes them; size, is_mirrored: [B]; cells: [B, 2] whole cells down and right."""
        import torch

        down, right = (-cells.float() * 2 * CELL / SIZE / size[:, None]).unbind(-1)
        flip = torch.where(is_mirrored, -1.0, 1.0)
        return self.placed(index, 1 / size, flip, torch.zeros_like(size), right * flip, down)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--card", type=pathlib.Path, required=True)
    parser.add_argument("--font", default=FONT)
    parser.add_argument("--emoji-test", default=EMOJI_TEST)
    parser.add_argument("--annotations", default=ANNOTATIONS)
    parser.add_argument("--clip-art", type=pathlib.Path, default=CLIP_ART)
    build(parser.parse_args())
