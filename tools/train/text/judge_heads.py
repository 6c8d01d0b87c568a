"""What heads are worth on given answers: `python3 judge_heads.py --model DIR --heads DIR --data answers.jsonl`, where the
answers come from `make_conversations.py --share 1 --prompts FILE --temperatures 0`, of prompts that training did not see.
Prints and keeps (--out) what train_heads.py reports on held-out conversations.
"""

import argparse
import json
import pathlib

import torch

import conversations
import draft_heads
import head_report
import network
from vocabulary import Vocabulary


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of convert.py")
    parser.add_argument("--heads", type=pathlib.Path, nargs="+", required=True, help="folders of train_heads.py")
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file")
    parser.add_argument("--four-bits", action="store_true", help="judge what is left of the weights as q4_1")
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    network.check_device(args.device)

    vocabulary = Vocabulary(args.model)
    items = conversations.read(args.data, vocabulary, 1.0)["held_out"]
    saved = {folder: (json.loads((folder / "config.json").read_text()), draft_heads.load(folder)) for folder in args.heads}
    model = network.load(args.model, args.device)
    rows = conversations.compute_rows(model, items, False, args.device, print).map(lambda t: t.to(args.device))
    embed, figures = model.model.embed_tokens, {}
    for folder, (config, state) in saved.items():
        target_ids = state.pop("d2t").to(args.device)
        heads = draft_heads.KINDS[config["kind"]](config["heads"], config["layers"], config["dim"], embed.weight[target_ids])
        heads.load_state_dict(state)
        if args.four_bits:
            draft_heads.round_weights(heads, draft_heads.four_bits)
        heads = heads.to(args.device).eval()
        candidate_of = torch.full((embed.num_embeddings,), -1, device=args.device)
        candidate_of[target_ids] = torch.arange(len(target_ids), device=args.device)
        covered = float((candidate_of[rows.tokens] >= 0).float().mean())
        figures[str(folder)] = head_report.report(heads, config["heads"], rows, embed, candidate_of) | {"covered": round(covered, 4)}
        print(f"{folder}: {len(items)} answers, {len(rows)} tokens, {covered:.2%} of them candidates")
        print("  " + "\n  ".join(head_report.lines(figures[str(folder)])), flush=True)
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
