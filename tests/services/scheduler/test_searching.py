"""How stored evaluations reach the strategies."""

import pytest

from glora_core.configs import decode
from glora_core.evaluation import Score
from glora_core.search import Evaluated
from services.protocol import PROTOCOL
from services.scheduler.evaluating import fitness_of
from services.scheduler.searching import evaluated
from services.store.search_state import evaluation_row

SCORE = Score(accuracy=0.75, loss=1.5, examples=8, macro_accuracy=0.5, fitness=0.25)


@pytest.mark.parametrize(("metric", "measure"), [("MulticlassF1Score", 0.25), ("macro-accuracy", 0.25), ("accuracy", None)])
def test_strategies_see_the_fitness_by_another_metric_beside_accuracy(metric: str, measure: float | None) -> None:
    row = evaluation_row("s", "val", PROTOCOL, metric, "h", "L4NNNN", 7, fitness_of(SCORE))

    assert evaluated(row, 3) == Evaluated(decode("L4NNNN"), 0.75, 1.5, 7, 3, measure=measure, macro_accuracy=0.5)
