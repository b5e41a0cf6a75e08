"""Does a downloaded checkpoint stand on its own? Loads it with plain timm and measures its accuracy on a folder of images.

Imports timm, torch, safetensors and PIL, and nothing of the project that made the checkpoint.
Usage: python check_checkpoint.py CHECKPOINT_FOLDER TEST_FOLDER [EXPECTED_ACCURACY]
"""

import json
import sys
from pathlib import Path

import timm
import torch
from PIL import Image, ImageOps
from safetensors import safe_open
from timm.data import create_transform, resolve_data_config


def load(folder: Path) -> torch.nn.Module:
    """The model, by its architecture's name and the weights file."""
    config = json.loads((folder / "config.json").read_text())
    arguments = {"num_classes": config["num_classes"]} | config.get("model_args", {})
    model = timm.create_model(config["architecture"], checkpoint_path=str(folder / "model.safetensors"), **arguments)
    return model.eval()


@torch.inference_mode()
def accuracy(folder: Path, images: Path) -> float:
    """Share of right answers over a folder with one folder of images per class."""
    config = json.loads((folder / "config.json").read_text())
    model = load(folder)
    transform = create_transform(**resolve_data_config(config["pretrained_cfg"]))
    names = config["label_names"]
    rows = [(path, names.index(path.parent.name)) for path in sorted(images.glob("*/*")) if path.is_file()]
    right = 0
    for start in range(0, len(rows), 50):
        batch = rows[start : start + 50]
        pixels = torch.stack([transform(upright(path)) for path, _ in batch])
        right += int((model(pixels).argmax(-1) == torch.tensor([label for _, label in batch])).sum())
    return right / len(rows)


def upright(path: Path) -> Image.Image:
    """An image as the job saw it: turned by its EXIF orientation, transparency over white."""
    image = ImageOps.exif_transpose(Image.open(path))
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


def main() -> int:
    """Print what was found; 1 if an expected accuracy was given and is not met exactly."""
    folder, images = Path(sys.argv[1]), Path(sys.argv[2])
    with safe_open(folder / "model.safetensors", "pt") as file:
        tensors = len(file.keys())
    found = accuracy(folder, images)
    print(f"plain timm {timm.__version__}: {tensors} tensors loaded, test accuracy {found:.6f}")
    if len(sys.argv) > 3 and found != float(sys.argv[3]):
        print(f"the service reported {sys.argv[3]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
