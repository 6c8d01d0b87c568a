"""Samples one transformer under several settings, to choose its defaults: `python3 compare_settings.py --model arpg --run
DIR --data emoji.npz --out DIR '{"cfg": 3, "steps": 64}' '{"cfg": 2}'`.

For each setting: agreement of the classifier with the class asked for over --count samples by class and --count by names
trained on, and the share of copies among each. DIR/MODEL.json takes the setting of highest agreement with the group (mean
of both) that makes at most MOST_COPIES copies of either, and DIR/MODEL_chosen.png shows it. Seeds differ from those of
evaluate.py; weights are used as they ship, rounded to q8_0.
"""

import argparse
import json
import pathlib

import torch

from emoji_dataset import EmojiSet
from judge import TrainingPictures, add_drawing_options, agreement, asked_classes, draw_asked, named_pictures
from train_classifier import load_classifier
from train_tokens import load_model
from training import save_grid
from vq_model import load_vq

SEED = 100
MOST_COPIES = 0.03


def grid_prompts(classes):
    """(class id or None, text) of the pictures shown in the card, fixed before the training."""
    asked = json.loads(pathlib.Path(__file__).with_name("grid_prompts.json").read_text())
    return [(classes.index(c) if c else None, text) for c, text in asked]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["llamagen", "arpg"], required=True)
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--device", default="cuda")
    add_drawing_options(parser)
    parser.add_argument("settings", type=json.loads, nargs="+")
    args = parser.parse_args()

    device = args.device
    data = EmojiSet(args.data, device)
    encoder, model = (load_model(kind, args.run, device) for kind in ("text_encoder", args.model))
    vq, classifier = load_vq(args.run / "vq.pt", device), load_classifier(args.run / "classifier.pt", device)
    training = TrainingPictures(data, vq)
    class_id = asked_classes(data, args.count, SEED)
    named = named_pictures(data, args.count, SEED)
    asked = {"class": ([(c, "") for c in class_id.tolist()], class_id),
             "name": ([(None, data.names[i]) for i in named.tolist()], data.class_id.cpu()[named])}

    def draw(asked_for, setting):
        return draw_asked(args, args.model, (model, vq, encoder), asked_for, data.classes, SEED, **setting)

    args.out.mkdir(parents=True, exist_ok=True)
    results = []
    for setting in args.settings:
        groups, copies = [], []
        for how, (asked_for, wanted) in asked.items():
            pictures = draw(asked_for, setting)
            scores = agreement(classifier, pictures, wanted, data.group_of_class, device)
            groups.append(scores["group"])
            copies.append(training.copies(pictures).float().mean().item())
            print(f"{args.model} {setting} by {how}: subgroup {scores['subgroup']:.3f}, group {groups[-1]:.3f}, "
                  f"copies {copies[-1]:.3f}", flush=True)
        results.append((max(copies) <= MOST_COPIES, sum(groups), setting))
    best = max(results, key=lambda r: r[:2])[2]
    (args.out / f"{args.model}.json").write_text(json.dumps({args.model: best}) + "\n")
    save_grid(args.out / f"{args.model}_chosen.png", draw(grid_prompts(data.classes), best), 16, shrink_to=80)


if __name__ == "__main__":
    main()
