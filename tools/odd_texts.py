"""Odd texts for comparing tokenizers: every script, emoji, code, runs, digits, marks, controls; by seed."""

import random

WORDS = (
    "the of and to in a is that for it was on he's they're I've we'll don't I'D CAN'T it’s O'Neill rock'n'roll "
    "Straße naïve café coöperate Übergröße ŒUVRE İstanbul ſecret 'ſ Ελληνικά Ωμέγα Привет МИР ёлка Київ עברית "
    "שָׁלוֹם العربية لُغَة فارسی हिन्दी क्षत्रिय বাংলা தமிழ் ไทย ภาษาไทย ລາວ བོད་སྐད မြန်မာ ខ្មែរ ქართული Հայերեն አማርኛ "
    "日本語 ひらがな カタカナ ｶﾀｶﾅ 中文字符 漢字かな交じり文 한국어 각 각 Tiếng Việt ỹ 𝒜𝓁𝓅𝒽𝒶 𝟘𝟙𝟚 ﬁne ﬀ Å Ω ㎏ ① Ⅷ ½ ² ₃ ٣٤٥ १२३ ๑๒ 〇一二 "
    "𐍈 𒀀 𓀀 𠀀𠀁 🙂 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 👍🏽 ☃️ ™ © → ∑ € £ ¥ ₿ … — – ‘x’ “y” «z» ¿qué? ¡no! e\u0301 a\u0308\u0323 q\u0307\u0323 "
    "Z͑ͫ̓ͪ̂ͫ̽ a̴b̷c̸ \u200d \u200c \u200b \ufeff \u00ad \u2060 \u202e \ufffd \u0000 \x01\x02 \x1b[31m \x7f \x85 \u180e \uf8ff \U000e0041"
).split(" ")
SPACES = [" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n", "\n ", "\u00a0", "\u3000", "\u2003 ", "\x0b", "\x0c", "\u2028", " \t ", "      "]
CODE = [
    "def f(x):\n    return x**2  # why\n", "for (int i=0;i<n;++i){a[i]+=b[i];}\n", "<a href=\"x.html\">&amp;</a>",
    "SELECT * FROM t WHERE id=42;", "{\"k\": [1, 2.5e-3, null]}", "\\frac{a}{b}", "git commit -m 'x'", "#include <vector>\n",
    "https://example.org/a?b=c&d=%20#e", "user@host.tld", "C:\\Users\\x", "x=>y?z:w", "/* ... */", "```py\nprint(1)\n```\n", "$$$", "\t\tif ok {\n\t\t\tgo()\n",
]


def random_text(rng):
    parts = []
    for _ in range(rng.randint(1, 14)):
        kind = rng.random()
        if kind < 0.45:
            parts.append(rng.choice(WORDS))
        elif kind < 0.60:
            parts.append(rng.choice(CODE))
        elif kind < 0.70:
            parts.append(str(rng.randint(0, 10 ** rng.randint(1, 14))))
        elif kind < 0.76:
            parts.append(rng.choice("aA1 .\n-=_é中🙂\u0301'") * rng.randint(1, 40))
        elif kind < 0.86:
            low, high = rng.choice([(0x20, 0x7F), (0x80, 0x250), (0x300, 0x370), (0x400, 0x530), (0x590, 0x780), (0x900, 0xE00),
                                    (0x1100, 0x1200), (0x1E00, 0x2100), (0x2100, 0x2BFF), (0x3040, 0x3100), (0x4E00, 0x9FFF),
                                    (0xAC00, 0xD7A3), (0xF900, 0xFB50), (0xFE00, 0xFFFE), (0x10000, 0x10800), (0x1D400, 0x1D800),
                                    (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF), (0, 0x110000)])
            parts.append("".join(chr(c) for c in (rng.randrange(low, high) for _ in range(rng.randint(1, 12))) if not 0xD800 <= c < 0xE000))
        else:
            parts.append(rng.choice("'\"`.,;:!?()[]{}<>|@#%^&*+~/\\") * rng.randint(1, 5))
        if rng.random() < 0.7:
            parts.append(" " if rng.random() < 0.6 else rng.choice(SPACES))
    return "".join(parts)


def odd_texts(seed, count):
    rng = random.Random(seed)
    fixed = ["", " ", "  ", "\n", "a", " a", "a ", "  a  b  ", "\n\n\n a", "a\n \n b", "'s", "'S 'T 'RE 'll 'lL 'x", "don't DON'T",
             "x" * 300, " " * 100 + "x", "ab" * 100, "1234567890" * 5, "\u0301", "a\u0301\u0301", "\r\n\r\n x", "\t\t\n\t x"]
    return fixed[:count] + [random_text(rng) for _ in range(max(0, count - len(fixed)))]
