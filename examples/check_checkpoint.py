"""Does a downloaded checkpoint stand on its own? Loads it with plain timm and measures its accuracy on a folder of images.

Imports timm, torch, safetensors, PIL and NumPy, and nothing of the project that made the checkpoint.
Usage: python check_checkpoint.py CHECKPOINT_FOLDER TEST_FOLDER [EXPECTED_ACCURACY]
"""

import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image, ImageOps
from safetensors import safe_open
from timm.data import create_transform, resolve_data_config

NOT_PIXELS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that Pillow knows and does not decode by itself; the job passed them over."""


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
    rows = [(path, names.index(path.relative_to(images).parts[0])) for path in found(images)]
    right = 0
    for start in range(0, len(rows), 50):
        batch = rows[start : start + 50]
        pixels = torch.stack([transform(upright(path)) for path, _ in batch])
        right += int((model(pixels).argmax(-1) == torch.tensor([label for _, label in batch])).sum())
    return right / len(rows)


def found(folder: Path) -> list[Path]:
    """The images of all class folders, at any depth: by what their names end in, and none that is hidden."""
    kinds = Image.registered_extensions()
    ends = {end for end, kind in kinds.items() if kind in Image.OPEN.keys() - NOT_PIXELS | {"MPO"}}
    inside = [path.relative_to(folder) for path in sorted(folder.glob("*/**/*")) if path.suffix.lower() in ends and path.is_file()]
    return [folder / path for path in inside if not any(part.startswith(".") for part in path.parts)]


def upright(path: Path) -> Image.Image:
    """An image as the job saw it: turned by its EXIF orientation, 16 bits scaled to 8, transparency over white."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) // 257).astype(np.uint8)).convert("RGB")
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
