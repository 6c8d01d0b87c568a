"""Measures the three networks and the tokenizer as they ship, and draws the card's grids: `python3 evaluate.py --run DIR
--data emoji.npz --settings settings.json --out DIR`. Seeds and prompts are fixed here and in grid_prompts.json.

PSNR and losses are over one picture per base emoji: every fifth base trained on, and all held out. Agreement of the
classifier is with the class asked for; copies are samples at least as near to a training picture, or to its mirror image,
as that picture's own round trip through the tokenizer. With --changes, copies are also searched for among the training
pictures in every size and place that training showed.
"""

import argparse
import json
import pathlib

import torch

from compare_settings import grid_prompts
from emoji_dataset import CHANGES, EmojiSet
from judge import TrainingPictures, add_drawing_options, agreement, asked_classes, draw_asked
from prompt_bank import PromptBank
from train_classifier import load_classifier
from train_tokens import load_model, measured_pictures, nats
from train_vq import psnr
from training import save_grid
from vq_model import load_vq

SEED = 0
COPIES = 500  # samples searched for copies


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--settings", type=pathlib.Path, required=True, help="what compare_settings.py chose, {model: {...}}")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--models", choices=["llamagen", "arpg"], nargs="+", default=["llamagen", "arpg"])
    parser.add_argument("--count", type=int, default=1000, help="samples by class")
    parser.add_argument("--changes", choices=[c for c in CHANGES if CHANGES[c]], help="sizes to search for copies in as well")
    parser.add_argument("--stride", type=int, default=5, help="of the training bases")
    parser.add_argument("--device", default="cuda")
    add_drawing_options(parser)
    args = parser.parse_args()

    device = args.device
    data = EmojiSet(args.data, device)
    vq, encoder = load_vq(args.run / "vq.pt", device), load_model("text_encoder", args.run, device)
    classifier = load_classifier(args.run / "classifier.pt", device)
    training, prompts = TrainingPictures(data, vq), PromptBank(data, encoder.config.buckets, device)
    parts = measured_pictures(data, args.stride)
    result = {"vq": {}, "classifier": torch.load(args.run / "classifier.pt", map_location="cpu")["accuracy"]}
    tokens = torch.zeros(len(data.images), 256, dtype=torch.long, device=device)
    for name, index in parts.items():
        value, tokens[index] = psnr(vq, data, index)
        result["vq"][name] = {"psnr": value, "pictures": len(index)}

    # What is asked for: classes, names trained on, and every held-out name four times.
    by_class = asked_classes(data, args.count, SEED)
    generator = torch.Generator().manual_seed(SEED)
    trained = parts["training"].cpu()
    trained = trained[torch.randint(len(trained), (args.count // 2,), generator=generator)]
    asked = {"class": [(c, "") for c in by_class.tolist()],
             "name": [(None, data.names[i]) for i in trained.tolist()],
             "held-out name": [(None, data.names[i]) for i in parts["held out"].tolist() for _ in range(4)]}
    class_id = data.class_id.cpu()
    wanted = {"class": by_class, "name": class_id[trained],
              "held-out name": class_id[parts["held out"].cpu()].repeat_interleave(4)}

    args.out.mkdir(parents=True, exist_ok=True)
    for kind in args.models:
        model, setting = load_model(kind, args.run, device), json.loads(args.settings.read_text())[kind]

        def draw(asked_for):
            return draw_asked(args, kind, (model, vq, encoder), asked_for, data.classes, SEED, **setting)

        found = result[kind] = {"settings": setting} | {key: {} for key in ("nats", "agreement", "copies", "moved copies")}
        for how in ("name", "class"):
            found["nats"][how] = {name: nats(encoder, model, prompts, how, tokens, index) for name, index in parts.items()}
        for how, prompt_list in asked.items():
            pictures = draw(prompt_list)
            found["agreement"][how] = agreement(classifier, pictures, wanted[how], data.group_of_class, device)
            if how != "held-out name":
                found["copies"][how] = training.copies(pictures[:COPIES]).float().mean().item()
                if args.changes:
                    moved = training.copies_anywhere(pictures[:COPIES], args.changes)
                    found["moved copies"][how] = moved.float().mean().item()
        pictures = draw(grid_prompts(data.classes))
        pairs = torch.stack([pictures.unflatten(0, (4, 16)), training.nearest(pictures).unflatten(0, (4, 16))], 1)
        save_grid(args.out / f"{kind}.png", pairs.flatten(0, 2), 16, shrink_to=80)
        print(kind, json.dumps(found), flush=True)
        (args.out / f"evaluation_{'_'.join(args.models)}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: result[key] for key in ("vq", "classifier")}))


if __name__ == "__main__":
    main()
