"""Few-shot subsets: so many training examples per class, drawn by a seed. Without torch."""

from collections import defaultdict
from typing import TypeVar

import numpy as np

from glora_core.checks import check_whole
from glora_core.data.labelled import AnyData, several

DataT = TypeVar("DataT", bound=AnyData)


def few_shot(data: DataT, shots: int, seed: int) -> DataT:
    """The data set with `shots` examples of each class left in `train`; val and test stay as they are.

    A class draws by itself, from a generator keyed by seed and class, so that with one seed the examples of fewer shots are
    among those of more. A class that has fewer examples keeps them all, and a note says so. Order is kept.

    Raises:
        ConfigInvalid: `shots` is no whole number from 1, or `seed` none from 0.
    """
    shots, seed = check_whole("shots", shots, 1), check_whole("seed", seed, 0)
    train, rows = data.splits["train"], defaultdict[int, list[int]](list)
    for row, example in enumerate(train):
        rows[example.label].append(row)
    kept = sorted(row for label, own in rows.items() for row in _drawn(own, shots, seed, label))
    short = [data.classes[label] for label in sorted(rows) if len(rows[label]) < shots]
    named = f"{len(short):,} of {len(data.classes):,} classes"
    told = f"{named} have fewer than {shots} {data.kind}s in train and keep them all: {several(short)}"
    return data.with_split("train", tuple(train[row] for row in kept), (told,) if short else ())


def _drawn(rows: list[int], shots: int, seed: int, label: int) -> list[int]:
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, label]))).permutation(len(rows))
    return [rows[index] for index in order[:shots]]
