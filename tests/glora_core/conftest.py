"""Fixtures of the core's tests: a tiny ViT, its space and supernet, a learnable toy split, and folders of generated images."""

from collections.abc import Callable, Mapping
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from torch import nn

from glora_core.backbones import Inputs, adapted_layers
from glora_core.data.images import ImageSplit
from glora_core.space import SearchSpace
from glora_core.supernet import Supernet

torch.set_num_threads(1)
hypothesis.settings.register_profile("glora_core", deadline=None)
hypothesis.settings.load_profile("glora_core")

VIT = {"img_size": 8, "patch_size": 2, "embed_dim": 32, "depth": 2, "num_heads": 2}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def make_vit() -> Callable[..., nn.Module]:
    """A factory of tiny ViTs with reproducible weights, in eval mode."""

    def make(seed: int = 0, num_classes: int = 3, **arguments: object) -> nn.Module:
        torch.manual_seed(seed)
        model = timm.create_model("vit_tiny_patch16_224", num_classes=num_classes, **(VIT | arguments))
        for parameter in model.parameters():
            nn.init.normal_(parameter, mean=1.0 if parameter.dim() == 1 else 0.0, std=0.1)
        return model.eval()

    return make


TIMM: dict[str, tuple[str, dict[str, object], int]] = {
    "vit": ("vit_tiny_patch16_224", VIT, 8),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 32, "embed_dim": 16, "depths": (1, 2), "num_heads": (2, 2), "window_size": 4},
        32,
    ),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 16)}, 32),
    "mobilenetv2": ("mobilenetv2_035", {}, 32),
    "efficientnet": ("test_efficientnet", {"pad_type": "same", "bn_eps": 1e-3}, 32),  # as timm makes its tf_efficientnet models
    "resnet": ("test_resnet", {}, 32),
}
"""Small timm models: the name, what makes them small, and the side of their images."""
_TEXT = {"vocab_size": 50, "max_position_embeddings": 32}
_BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "initializer_range": 0.3}
TRANSFORMERS: dict[str, Callable[[], transformers.PretrainedConfig]] = {
    "bert": lambda: transformers.BertConfig(**_TEXT, **_BERT),
    "distilbert": lambda: transformers.DistilBertConfig(**_TEXT, dim=16, n_layers=2, n_heads=2, hidden_dim=24, initializer_range=0.3),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2, initializer_range=0.3
    ),
    "llama": lambda: transformers.LlamaConfig(**_TEXT, **_BERT, num_key_value_heads=1),
}
"""Configurations of small transformers models."""


@pytest.fixture
def transformers_config() -> Callable[[str], transformers.PretrainedConfig]:
    """The configuration of a small transformers model by its kind: `bert`, `distilbert`, `gpt2`, `llama`."""
    return lambda kind: TRANSFORMERS[kind]()


@pytest.fixture
def make_model(make_vit: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """A factory of small models in float64 and eval mode, of three classes, with reproducible weights and statistics of batch norms.

    A name is a key of `TIMM`, or one of `TRANSFORMERS`, with ` LM` after it for a language model.
    """

    def make(name: str, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        if name in TIMM:
            known, arguments, _ = TIMM[name]
            model = timm.create_model(known, num_classes=3, **arguments)
        else:
            kind, _, task = name.partition(" ")
            config = TRANSFORMERS[kind]()
            config.num_labels, config.pad_token_id = 3, 0
            factory = transformers.AutoModelForCausalLM if task else transformers.AutoModelForSequenceClassification
            model = factory.from_config(config)
        for norm in model.modules():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                nn.init.normal_(norm.running_mean, std=0.5)
                nn.init.uniform_(norm.running_var, 0.5, 2.0)
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.normal_(norm.bias, std=0.2)
        return model.double().eval()

    return make


@pytest.fixture
def make_inputs() -> Callable[[str], Inputs]:
    """Inputs for a model of `make_model`: three images in float64, or three texts of which two are padded."""

    def make(name: str) -> Inputs:
        generator = torch.Generator().manual_seed(5)
        if name in TIMM:
            side = TIMM[name][2]
            return torch.randn(3, 3, side, side, dtype=torch.float64, generator=generator)
        mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 3 + [0] * 3])
        return {"input_ids": torch.randint(3, 50, (3, 6), generator=generator) * mask, "attention_mask": mask}

    return make


@pytest.fixture
def space(make_vit: Callable[..., nn.Module]) -> SearchSpace:
    """The full search space of the tiny ViT, at two ranks."""
    return SearchSpace(adapted_layers(make_vit()), ranks=(1, 3))


@pytest.fixture
def randomise() -> Callable[..., Supernet]:
    """Gives every support tensor and the head random values that differ from zero, as if the supernet had been trained."""

    def fill(supernet: Supernet, seed: int = 1, std: float = 0.1) -> Supernet:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for _, parameter in supernet.trainable():
                parameter.normal_(std=std, generator=generator)
        return supernet

    return fill


@pytest.fixture
def trained(make_vit: Callable[..., nn.Module], space: SearchSpace, randomise: Callable[..., Supernet]) -> Supernet:
    """A supernet over the tiny ViT with random support tensors."""
    return randomise(Supernet(make_vit(), space)).eval()


@pytest.fixture
def toy_split() -> ImageSplit:
    """30 images of 8×8 pixels whose colour tells their class, of three: learnable in a few steps."""
    return make_toy_split()


def make_toy_split(examples: int = 30) -> ImageSplit:
    """Noise around one colour per class."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(examples) % 3
    colours = torch.tensor([[200, 60, 60], [60, 200, 60], [60, 60, 200]])
    noise = torch.randint(-50, 50, (examples, 3, 8, 8), generator=generator)
    return ImageSplit((colours[labels][:, :, None, None] + noise).to(torch.uint8), labels, MEAN, STD)


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Writes one image of noise, reproducible from its seed, in any PIL mode."""

    def write(path: Path, seed: int = 0, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
        image = Image.fromarray(pixels, "RGBA")
        (image if mode == "RGBA" else image.convert("RGB").convert(mode)).save(path)
        return path

    return write


@pytest.fixture
def image_folder(tmp_path: Path, write_image: Callable[..., Path]) -> Callable[..., Path]:
    """A factory of folders in the layout train/ val/ test/ with one folder per class."""

    def make(name: str = "data", splits: Mapping[str, tuple[str, ...]] | None = None, images: int = 2) -> Path:
        root = tmp_path / name
        root.mkdir()
        wanted = splits or {"train": ("cat", "dog"), "val": ("cat", "dog"), "test": ("cat", "dog")}
        paths = [root / split / label / f"{i}.png" for split, labels in wanted.items() for label in labels for i in range(images)]
        for seed, path in enumerate(paths):
            write_image(path, seed)
        return root

    return make


@pytest.fixture
def list_folder(tmp_path: Path, write_image: Callable[..., Path]) -> Callable[..., Path]:
    """A factory of folders in VTAB-1K's layout; the lists' contents may be replaced."""

    def make(name: str = "lists", **lists: str) -> Path:
        root = tmp_path / name
        for seed in range(4):
            write_image(root / "images" / f"{seed}.png", seed)
        defaults = {"train800": "images/0.png 0\nimages/1.png 1\n", "val200": "images/2.png 0\nimages/3.png 1\n"}
        for stem, text in (defaults | lists).items():
            (root / f"{stem}.txt").write_text(text)
        return root

    return make
