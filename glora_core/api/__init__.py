"""The library in five minutes: `load`, `images`, `preset`, `Supernet`, `train`, `search`, `finals`, `export`.

Each is a thin layer over a module of its own, which has the details. No Ray, no server, no database.

    backbone = load("vit_small_patch16_224.augreg_in21k", classes=10)
    train_split, val_split = images("flowers", backbone)
    space = preset("glora", backbone.layers)
    supernet = Supernet(backbone.model, space)
    train(supernet, train_split, epochs=60)
    result = search(supernet, val_split, budget=100_000)
    best, *others = finals(supernet, train_split, val_split, result, budget=100_000)
    export(best.on(supernet), best.config, "adapted", backbone, val_split)
"""

from glora_core.api.backbone import Backbone, load
from glora_core.api.exports import export, export_average
from glora_core.api.splits import images, texts
from glora_core.api.steps import SearchResult, finals, retrain, search, soup, train
from glora_core.presets import preset
from glora_core.supernet import Supernet

__all__ = [
    "Backbone",
    "SearchResult",
    "Supernet",
    "export",
    "export_average",
    "finals",
    "images",
    "load",
    "preset",
    "retrain",
    "search",
    "soup",
    "texts",
    "train",
]
