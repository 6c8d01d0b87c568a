"""Emoji pictures of 128 x 128 pixels with their names and Unicode subgroups.

Reads the bitmaps of a colour emoji font (CBDT table) and the names of Unicode's emoji-test.txt, and writes one .npz
that the training scripts load. `python3 emoji_dataset.py --out emoji.npz --card DIR` also writes names.json,
classes.json and heldout.txt into DIR.

Ref: Unicode Technical Standard 51 (emoji-test.txt); OpenType specification, tables CBDT and GSUB.
"""

import argparse
import collections
import hashlib
import io
import json
import pathlib
import re

import numpy as np

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
EMOJI_TEST = "/usr/share/unicode/emoji/emoji-test.txt"
SIZE = 128

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
    """One picture: its Unicode name, its subgroup, the name it shares with its variants, and its glyph."""

    def __init__(self, name, subgroup, glyph):
        self.name = name.lower()
        self.subgroup = subgroup
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


def read_names(path, font):
    """Every fully-qualified emoji of emoji-test.txt that the font draws with one glyph, flags excepted."""
    cmap, table, strike = font.getBestCmap(), ligatures(font), font["CBDT"].strikeData[0]
    found, subgroup = [], None
    for line in open(path, encoding="utf-8"):
        if line.startswith("# subgroup:"):
            subgroup = line.split(":", 1)[1].strip()
        match = re.match(r"([0-9A-F ]+); fully-qualified\s+# \S+ E[\d.]+ (.*)", line)
        if not match or subgroup in DROPPED_SUBGROUPS:
            continue
        glyph = glyph_of([int(c, 16) for c in match[1].split()], cmap, table)
        if glyph in strike:
            found.append(Emoji(match[2].strip(), subgroup, glyph))
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
    """One base name in ten, by hash, from subgroups that keep at least four others."""
    bases = collections.defaultdict(set)
    for e in emoji:
        bases[e.subgroup].add(e.base)
    chosen = set()
    for names in bases.values():
        if len(names) >= 5:
            chosen |= {n for n in names if int(hashlib.sha256(n.encode()).hexdigest(), 16) % 10 == 0}
    return chosen


def build(out, card, font_path=FONT, test_path=EMOJI_TEST):
    """Writes the .npz and the card's lists."""
    from fontTools.ttLib import TTFont

    font = TTFont(font_path)
    emoji = read_names(test_path, font)
    strike = font["CBDT"].strikeData[0]
    classes = list(dict.fromkeys(e.subgroup for e in emoji))
    bases = list(dict.fromkeys(e.base for e in emoji))
    held_out = held_out_bases(emoji)

    np.savez_compressed(
        out,
        images=np.stack([draw(strike[e.glyph].imageData) for e in emoji]),
        class_id=np.array([classes.index(e.subgroup) for e in emoji], np.int64),
        base_id=np.array([bases.index(e.base) for e in emoji], np.int64),
        held_out=np.array([e.base in held_out for e in emoji]),
        may_flip=np.array([e.may_flip for e in emoji]),
        names=np.array([e.name for e in emoji]),
        classes=np.array(classes),
    )
    card.mkdir(parents=True, exist_ok=True)
    names = {e.name: e.subgroup for e in emoji}
    (card / "names.json").write_text(json.dumps(names, indent=0, ensure_ascii=False, sort_keys=True) + "\n")
    (card / "heldout.txt").write_text("".join(f"{b}\n" for b in bases if b in held_out))
    print(f"{len(emoji)} pictures, {len(bases)} bases ({len(held_out)} held out), {len(classes)} classes")


class EmojiSet:
    """The pictures on a device, drawn so that every base emoji is equally likely whatever its number of variants."""

    def __init__(self, path, device):
        import torch

        data = np.load(path)
        to = lambda key: torch.from_numpy(data[key]).to(device)
        self.images = to("images").permute(0, 3, 1, 2).contiguous()  # [M, 3, 128, 128] uint8
        self.class_id, self.base_id = to("class_id"), to("base_id")
        self.held_out, self.may_flip = to("held_out"), to("may_flip")
        self.names, self.classes = data["names"].tolist(), data["classes"].tolist()
        variants = torch.bincount(self.base_id)
        self.weight = 1.0 / variants[self.base_id].float()  # [M]

    def train_weight(self):
        """[M], zero for pictures held out."""
        return self.weight * (~self.held_out)

    def draw(self, count, generator=None):
        """Indices of `count` training pictures."""
        import torch

        return torch.multinomial(self.train_weight(), count, replacement=True, generator=generator)

    def pixels(self, index):
        """Pictures as floats in [-1, 1], [B, 3, 128, 128]."""
        return self.images[index].float() / 127.5 - 1

    def augmented(self, index, share=1.0):
        """Pictures mirrored (where that is allowed), shrunk by up to 15 % and shifted, each with probability `share`."""
        import torch
        import torch.nn.functional as F

        count, device = len(index), self.images.device
        changed = (torch.rand(count, device=device) < share).float()
        flip = 1 - 2 * changed * self.may_flip[index] * (torch.rand(count, device=device) < 0.5)
        zoom = 1 / (1 - 0.15 * changed * torch.rand(count, device=device))
        # Shifts stay inside the margin that shrinking opens, plus three pixels.
        reach = (zoom - 1) + changed * 3 / (SIZE / 2)
        shift = (2 * torch.rand(count, 2, device=device) - 1) * reach[:, None]
        theta = torch.zeros(count, 2, 3, device=device)
        theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = zoom * flip, zoom, shift
        grid = F.affine_grid(theta, (count, 3, SIZE, SIZE), align_corners=False)
        ink = 1 - self.pixels(index)  # white is 0, so that what comes in from outside is white
        return 1 - F.grid_sample(ink, grid, align_corners=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--card", type=pathlib.Path, required=True)
    parser.add_argument("--font", default=FONT)
    parser.add_argument("--emoji-test", default=EMOJI_TEST)
    args = parser.parse_args()
    build(args.out, args.card, args.font, args.emoji_test)
