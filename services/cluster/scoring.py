"""One subnet scored on one split, as a Ray task: an exported model or a baseline on test, or a finalist of another job on val."""

from collections.abc import Sequence

import ray
from torch import Tensor

from glora_core.configs import SubnetConfig
from glora_core.data.split import Split
from glora_core.evaluation import Score, SubnetScorer
from glora_core.training import TrainingSettings
from services.cluster.pulse import at_work
from services.cluster.resources import Share
from services.cluster.workload import Workload, settle
from services.protocol import BATCH_SIZE


def score_split(
    workload: "ray.ObjectRef[Workload]",
    settings: TrainingSettings,
    state: dict[str, Tensor],
    config: SubnetConfig,
    split: "ray.ObjectRef[Split] | None",
    share: Share,
    among: Sequence[int] = (),
) -> Score:
    """The score of one subnet on one split, such as the exported model on test, by the workload's metric.

    Args:
        split: the workload's val if none is given.
        among: ascending labels that answers are chosen from, all if empty.
    """
    task = ray.remote(max_retries=3, **share.options())(_score)
    found: Score = ray.get(task.remote(workload, settings, state, config, split, share, among))
    return found


@at_work
def _score(
    workload: Workload,
    settings: TrainingSettings,
    state: dict[str, Tensor],
    config: SubnetConfig,
    split: Split | None,
    share: Share,
    among: Sequence[int],
) -> Score:
    device = settle(share)
    supernet = workload.supernet(settings, state).to(device)
    examples = (workload.val if split is None else split).to(device)
    scorer = SubnetScorer(supernet, workload.plain.to(device))
    return scorer.score(config, examples, BATCH_SIZE, among=among, metric=workload.metric)
