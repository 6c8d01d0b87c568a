"""Makes the text that heads are trained on, by the model itself: `python3 make_conversations.py --model DIR --out
conversations.jsonl --seconds 240`. It samples what a user might say behind the chat template's "user" (temperature 1), then
answers it, half of the answers greedy, half at temperature 0.8. Heads so learn what this very model says.
Ref: Xu et al. 2024, "Magpie" (user turns from nothing); Cai et al. 2024, "Medusa", 2.3.2 (self-distillation).

--prompts FILE adds user turns from a file (JSON Lines with `prompt`, `question` or `turns`, whose first), each once; --share of all. --exclude
names files of the same form whose texts are kept out: the prompts that the heads are judged by.
With --volley PROGRAM --gguf FILE the program makes the text instead of this script's network; it is the faster one on a CPU.

With --share 1 nothing is sampled and the run ends with the file.

A line of the output: prompt, answer (token ids, with the end token if it came), temperature, source (self, file).
"""

import argparse
import json
import pathlib
import random
import subprocess
import tempfile
import time

from generation import TURN_LIMIT, Generator


class Volley:
    """Text from the program: each method returns (token ids, text, ended) a prompt."""

    def __init__(self, program, gguf, threads):
        self.command = [program, "text", "-m", gguf, "-t", str(threads), "-d", "cpu", "--decoder", "sequential",
                        "--top-k", "0", "--top-p", "1", "--json", "-q"]

    def run(self, prompts, seed, temperature, limit, *flags):
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            for i, prompt in enumerate(prompts):
                file.write(json.dumps({"prompt": prompt, "seed": seed + i}) + "\n")
            file.flush()
            options = ["-f", file.name, "--temperature", str(temperature), "--max-tokens", str(limit)]
            done = subprocess.run([*self.command, *options, *flags], capture_output=True, text=True)
        if done.returncode not in (0, 3):
            raise SystemExit(f"{self.command[0]}: {done.stdout.strip() or done.stderr.strip()}")
        answers = json.loads(done.stdout)["answers"]
        made = {a["index"]: (a["tokens"], a["text"], a["finish"] == "end token") for a in answers if "tokens" in a}
        return [made.get(i, ([], "", False)) for i in range(len(prompts))]

    def turns(self, count, seed, head):
        return self.run([head] * count, seed, 1.0, TURN_LIMIT, "--raw")

    def answers(self, prompts, seed, temperature, limit):
        return self.run(prompts, seed, temperature, limit)


def read_prompts(path):
    """Texts of JSON Lines with `prompt` or `question`, or with `turns`, of which the first counts (MT-bench)."""
    texts = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            entry = json.loads(line)
            text = entry["turns"][0] if "turns" in entry else entry["prompt"] if "prompt" in entry else entry["question"]
            if not isinstance(text, str):
                raise TypeError
        except (ValueError, KeyError, TypeError, IndexError):
            raise SystemExit(f"{path}:{number}: not a JSON object with a text `prompt`, `question` or `turns`") from None
        texts.append(text)
    return texts


def usable(text):
    """Turns that broke off, repeat themselves or are hardly words teach little."""
    words = text.split()
    plain = sum(c.isascii() and (c.isalpha() or c.isspace()) for c in text)
    return len(words) >= 3 and plain > 0.8 * len(text) and len(set(words)) > 0.4 * len(words) and "<|" not in text


def canonical(text):
    return " ".join(text.lower().split())


def make_engine(args):
    if args.volley:
        if not args.gguf:
            raise SystemExit("--volley needs --gguf FILE")
        return Volley(args.volley, args.gguf, args.threads)
    return Generator(args.model, args.device)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of convert.py")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--max-tokens", type=int, default=256, help="of an answer")
    parser.add_argument("--prompts", type=pathlib.Path)
    parser.add_argument("--share", type=float, default=0.25, help="of user turns from --prompts")
    parser.add_argument("--exclude", type=pathlib.Path, nargs="*", default=[])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 0.8], help="of answers, in equal shares")
    parser.add_argument("--round", type=int, default=8192, help="conversations at a time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--volley", help="program to make the text with")
    parser.add_argument("--gguf", help="the model for it")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    for path in [args.model / "config.json", *args.exclude, *([args.prompts] if args.prompts else [])]:
        if not path.is_file():
            raise SystemExit(f"{path}: no such file")
    if not 0 <= args.share <= 1 or args.round < 2:
        raise SystemExit("--share must be in 0 .. 1 and --round at least 2")
    head = json.loads((args.model / "config.json").read_text())["chat"]["user"]
    excluded = {canonical(text) for path in args.exclude for text in read_prompts(path)}
    from_file = [t for t in read_prompts(args.prompts) if canonical(t) not in excluded] if args.prompts else []
    random.Random(args.seed).shuffle(from_file)

    engine = make_engine(args)
    begin, seed, tokens, conversations = time.monotonic(), args.seed * 1_000_000, 0, 0
    seen = set(excluded)
    with args.out.open("w") as out:
        while time.monotonic() - begin < args.seconds and (args.share < 1 or from_file):
            given = [from_file.pop() for _ in range(min(len(from_file), round(args.round * args.share)))]
            prompts = [(text, "file") for text in given]
            turns = engine.turns(args.round - len(given), seed, head) if args.share < 1 else []
            for _, text, ended in turns:
                if ended and usable(text) and canonical(text) not in seen:
                    seen.add(canonical(text))
                    prompts.append((text.strip(), "self"))
            random.Random(seed).shuffle(prompts)
            for i, temperature in enumerate(args.temperatures):
                part = prompts[i :: len(args.temperatures)]
                made = engine.answers([text for text, _ in part], seed + args.round, temperature, args.max_tokens)
                for (prompt, source), (ids, _, _) in zip(part, made):
                    if ids:
                        line = {"prompt": prompt, "answer": ids, "temperature": temperature, "source": source}
                        out.write(json.dumps(line) + "\n")
                        tokens, conversations = tokens + len(ids), conversations + 1
                out.flush()
            seed += 2 * args.round
            elapsed = time.monotonic() - begin
            print(f"{elapsed:6.1f} s  {conversations} conversations, {tokens} answer tokens", flush=True)


if __name__ == "__main__":
    main()
