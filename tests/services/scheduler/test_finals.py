"""The finals as the service plays them, with Ray left out: who is trained, what is stored, what a restarted job trains again.

What stands in for Ray Tune gives every trial a fitness, and a loss, that follow from its learning rate, and can be cut off after any trial.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from glora_core.backbones import BackboneInfo
from glora_core.configs import encode
from glora_core.effort import EFFORTS
from glora_core.errors import Diverged
from glora_core.evaluation import Score
from glora_core.finals import asked_for_soup
from glora_core.methods import method_config
from glora_core.search import Evaluated
from glora_core.training import TrainingSettings
from services.cluster.resources import Share
from services.cluster.rung import Task, Trained
from services.job_request import JobRequest
from services.scheduler import baselines, legs, soups
from services.scheduler.context import RunContext
from services.scheduler.finals import Outcome, finals
from services.scheduler.turns import GaveWay
from services.settings import Settings
from services.store import events, jobs
from services.store.blobs import BlobStore
from services.store.database import Database
from services.store.jobs import Lease
from services.store.models import Artifact, Supernet
from services.store.retries import RetryRules
from tests.services.api import stock

TRANSFORM = {"input_size": [3, 8, 8], "interpolation": "bicubic", "mean": [0.5], "std": [0.5], "crop_pct": 1.0, "crop_mode": "center"}
RANKED = [Evaluated(method_config(stock.SPACE, "lora", 4), 0.9, 1.0, 256), Evaluated(stock.SPACE.extreme(largest=False), 0.1, 2.0, 0)]


class Killed(Exception):
    """The runner ends here."""


@dataclass
class Cluster:
    """In the place of Ray Tune.

    Args:
        survives: so many trials are done before the runner is killed.
    """

    survives: int = 1000
    trained: list[tuple[str, float, int]] = field(default_factory=list)
    diverging: float = 0.5
    backwards: bool = False
    metric: str = "accuracy"
    scored: int = 0
    soup: tuple[int, ...] = (0,)
    cooked: list[int] = field(default_factory=list)
    origins: list[Any] = field(default_factory=list)

    def train_rung(self, workload: Any, tasks: dict[str, Task], *, on_done: Callable[..., None], **where: Any) -> None:
        """Every trial in turn; rates from `diverging` on diverge."""
        self.origins.append(where["origin"])
        for key in sorted(tasks, reverse=self.backwards):
            if self.survives == 0:
                raise Killed
            self.survives -= 1
            settings = tasks[key].settings
            self.trained.append((settings.fixed or "", settings.learning_rate, settings.epochs))
            if settings.learning_rate >= self.diverging:
                on_done(key, Diverged("training loss became nan"))
            else:
                on_done(key, Trained({"numbers": torch.ones(2)}, [], self.reached(settings)))

    def score_split(self, workload: Any, settings: TrainingSettings, *subnet: Any) -> Score:
        """In the place of a Ray task."""
        self.scored += 1
        return self.reached(settings)

    def cook(self, workload: Any, offered: Sequence[Any], basin: Sequence[int], share: Share) -> tuple[tuple[int, ...], Score]:
        """In the place of a Ray task: a soup is right in all answers."""
        self.cooked.append(len(offered))
        return self.soup, Score(1.0, 0.01, 10, 1.0, 1.0)

    def reached(self, settings: TrainingSettings) -> Score:
        """What a trial reaches: the higher its rate, the higher its accuracy and loss, and the lower the metric."""
        rate = settings.learning_rate
        return Score(0.5 + rate, rate, 10, 0.4 + rate, 0.5 + rate if self.metric == "accuracy" else -rate)


@dataclass(frozen=True)
class Local:
    """In the place of a workload."""

    supernet: Any
    val: Any
    train: Any = None
    second: Any = None


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()
    monkeypatch.setattr(legs, "train_rung", found.train_rung)
    monkeypatch.setattr(legs, "score_split", found.score_split)
    monkeypatch.setattr(baselines, "score_split", found.score_split)
    monkeypatch.setattr(soups, "cook", found.cook)
    return found


@pytest.fixture
def play(database: Database, blobs: BlobStore, tmp_path: Path, cluster: Cluster) -> Callable[..., Outcome]:
    """Plays the finals of one job, as many times as it is called, for the cluster's metric, with so many examples on val.

    Another job's with another `lease`.
    """
    leases: list[Lease] = []

    def run(
        finals_asked: dict[str, Any],
        baselines: bool | str = False,
        examples: int = 10**6,
        history: Sequence[Evaluated] = RANKED,
        then: Callable[..., Outcome] = lambda context, prepared, outcome, key: outcome,
        train_on_val: bool = False,
        lease: Lease | None = None,
        settings: Settings | None = None,
    ) -> Outcome:
        if not leases:
            leases.append(stock.add_running(database))
        asked = {"finals": finals_asked, "baselines": baselines, "train_on_val": train_on_val, "search": {"metric": cluster.metric}}
        request = JobRequest.model_validate(stock.body(**asked))
        info = BackboneInfo.from_dict(stock.INFO | {"arguments": {}, "transform": TRANSFORM})
        context = RunContext(settings or Settings(), database, blobs, lease or leases[0], request, info, {"fingerprint": "f"}, tmp_path)
        sliced = SimpleNamespace(cut=lambda config: SimpleNamespace(trainable_state=lambda: {"slice": torch.ones(1)}))
        local = Local(lambda *given: sliced, range(examples))
        prepared: Any = SimpleNamespace(workload=None, weights_hash="w", local=local)
        key = _supernet(context)
        return then(context, prepared, finals(context, prepared, history, key), key)

    return run


def _supernet(context: RunContext) -> str:
    """The job's supernet, stored; returns its key."""
    with context.fenced() as (session, _):
        if session.get(Supernet, "s") is None:
            artifact = legs.store_state(context, {"numbers": torch.ones(1)}, "s", "supernet")
            legs.store_supernet(session, "s", {}, [], artifact)
    return "s"


def told(database: Database, kind: str) -> list[dict[str, Any]]:
    """What the job's events of a kind say."""
    with database.read() as session:
        (job,) = jobs.page(session, state=None, before=None, limit=9)
        return [event.data for event in events.of_kind(session, job.id, kind)]


ASKED = {"candidates": 1, "learning_rates": [0.1, 0.2], "epochs": [1, 2], "scratch_epochs": 3, "standing": 0, "afresh": False}


def test_every_trial_of_every_rung_is_a_finalist_and_the_best_wins(play: Any, cluster: Cluster, database: Database) -> None:
    outcome = play(ASKED)

    found = [(f.source, f.leg.rung, f.leg.trial.learning_rate, f.leg.trained) for f in outcome.finalists if f.sliced]
    assert {(name, rate) for name, rung, rate, _ in found if rung == 1} == {("search #1", 0.1), ("search #1", 0.2)}
    assert [(name, rate, trained) for name, rung, rate, trained in found if rung == 2] == [("search #1", 0.2, 3)]
    scratch = [(f.source, f.leg.rung, f.leg.trained) for f in outcome.finalists if not f.sliced]
    assert sorted(set(scratch)) == [(name, 1, 3) for name in ("bitfit", "linear-probe", "lora", "ssf")]
    assert outcome.winner == outcome.finalists[0]
    assert len(outcome.finalists) == told(database, "finals")[0]["finalists"] == 11
    assert [rung["done"] for rung in told(database, "finals")] == [0, 10]


@pytest.mark.parametrize("survives", [1, 9, 10])
def test_finals_cut_off_anywhere_end_the_same_and_train_no_trial_twice(
    survives: int, play: Any, cluster: Cluster, database: Database
) -> None:
    cluster.survives = survives
    with pytest.raises(Killed):
        play(ASKED)
    cluster.survives, cluster.backwards = 1000, True

    resumed = play(ASKED)

    assert len(cluster.trained) == len(resumed.finalists) == len(told(database, "finalist")) == 11
    assert resumed == play(ASKED)
    assert len(cluster.trained) == 11


def test_job_that_waits_long_for_a_finalist_of_another_goes_back_into_the_queue_until_the_last_is_stored(
    play: Callable[..., Outcome], cluster: Cluster, database: Database
) -> None:
    asked, impatient = {"candidates": 2, "learning_rates": [0.1, 0.2]}, Settings(await_seconds=0)
    cluster.survives = 1
    with pytest.raises(Killed):
        play(asked)  # under a lease that goes on
    second = stock.add_running(database, "another")

    with pytest.raises(GaveWay):
        play(asked, lease=second, settings=impatient)

    with database.read() as session:
        job = jobs.get(session, second.job_id)
        assert (job.state, job.attempts) == ("queued", 0)
        assert job.waiting_for not in (None, second.job_id)
    for cluster.survives in (1, 1):
        with database.write() as session:
            assert jobs.claim(session, "early", 600, RetryRules()) is None
        with pytest.raises(Killed):
            play(asked)
    cluster.survives = 1000
    outcome, trained = play(asked), len(cluster.trained)
    again = stock.claim(database)
    assert again.job_id == second.job_id
    assert play(asked, lease=again, settings=impatient).winner == outcome.winner
    assert len(cluster.trained) == trained


def test_a_trial_that_diverged_is_dropped_and_not_tried_again(play: Any, cluster: Cluster, database: Database) -> None:
    cluster.diverging = 0.2
    first = play(ASKED)
    trained = len(cluster.trained)

    assert {f.leg.trial.learning_rate for f in first.finalists if f.leg} == {0.1}
    assert play(ASKED) == first
    assert len(cluster.trained) == trained
    assert len(told(database, "finalist_diverged")) == 5


def test_where_all_diverge_the_searchs_winner_is_exported(play: Any, cluster: Cluster) -> None:
    cluster.diverging = 0.0
    outcome = play({"mode": "winner", "standing": 0})
    assert (outcome.winner.source, outcome.winner.leg, outcome.finalists) == ("search", None, [])


@pytest.mark.parametrize("mode", ["off", "winner", "thorough"])
def test_baselines_are_the_best_trials_from_scratch_whatever_the_finals(mode: str, play: Any, cluster: Cluster) -> None:
    outcome = play(ASKED | {"mode": mode}, baselines="trained")

    assert [(f.source, f.leg.rung, f.leg.trial.learning_rate) for f in outcome.baselines if f.leg] == [
        ("linear-probe", 1, 0.2),
        ("bitfit", 1, 0.2),
        ("lora", 1, 0.2),
    ]
    assert any(not f.sliced for f in outcome.finalists) == (mode == "thorough")
    assert (outcome.winner.source == "search") == (mode == "off")


def test_known_methods_are_halved_among_themselves_unless_they_are_reported(play: Any, cluster: Cluster, database: Database) -> None:
    asked = ASKED | {"epochs": [1], "scratch_epochs": [1, 2, 3]}
    rungs = [f.leg.rung for f in play(asked).finalists if not f.sliced]
    assert [rungs.count(rung) for rung in (1, 2, 3)] == [8, 4, 2]
    assert [(rung["finalists"], rung["done"], rung["rungs"]) for rung in told(database, "finals")] == [(16, 0, 3), (16, 10, 3), (16, 14, 3)]

    reported = play(asked, baselines="trained")

    assert {(f.leg.rung, f.leg.trained) for f in reported.finalists if not f.sliced} == {(1, 6)}


def test_baselines_inside_the_supernet_are_scored_once_and_train_nothing(play: Any, cluster: Cluster) -> None:
    outcome = play(ASKED | {"mode": "off"}, baselines=True)

    found = [(f.source, f.fitness.parameters, f.supernet_key, f.leg) for f in outcome.baselines]
    sizes = [stock.SPACE.parameters(method_config(stock.SPACE, name, 4)) for name in ("linear-probe", "bitfit", "lora")]
    assert found == [(name, size, "s", None) for name, size in zip(("linear-probe", "bitfit", "lora"), sizes, strict=True)]
    assert (cluster.scored, cluster.trained) == (3, [])
    assert play(ASKED | {"mode": "off"}, baselines=True) == outcome
    assert cluster.scored == 3


def test_a_further_rung_starts_from_the_trial_of_the_rung_before(play: Any, cluster: Cluster, database: Database) -> None:
    outcome = play(ASKED | {"mode": "winner"})

    second = next(f for f in outcome.finalists if f.leg.rung == 2)
    first = next(f for f in outcome.finalists if f.leg.trial == second.leg.trial and f.leg.rung == 1)
    assert (first.settings.start, second.settings.start) == ("s", first.supernet_key)
    with database.read() as session:
        row = session.get_one(Supernet, second.supernet_key)
        assert row.recipe["training"]["start"] == first.supernet_key
        assert session.get_one(Artifact, row.artifact_id).kind == "finalist"


def test_a_last_rung_that_starts_afresh_starts_from_nothing(play: Any, cluster: Cluster, database: Database) -> None:
    outcome = play(ASKED | {"mode": "winner", "afresh": True})

    second = next(f for f in outcome.finalists if f.leg.rung == 2)
    assert (second.settings.start, second.sliced, second.leg.sliced) == (None, True, False)
    (event,) = [event for event in told(database, "finalist") if event["rung"] == 2]
    assert (event["source"], event["start"], event["epochs"]) == ("search #1", "scratch", 2)


def test_baselines_are_trained_for_as_long_as_the_supernet_where_the_finals_train_no_known_method(play: Any, cluster: Cluster) -> None:
    asked = ASKED | {"scratch_epochs": 0}
    assert play(asked).baselines == []
    assert all(f.leg.trial.sliced for f in play(asked).finalists)

    outcome = play(asked, baselines="trained")

    assert [(f.source, f.leg.trained) for f in outcome.baselines if f.leg] == [
        (name, EFFORTS["standard"].epochs) for name in ("linear-probe", "bitfit", "lora")
    ]
    assert all(f.leg.trial.sliced for f in outcome.finalists)


def test_among_finalists_that_val_cannot_tell_apart_the_lower_loss_wins_unless_a_known_method_is_better(
    play: Any, cluster: Cluster
) -> None:
    assert [f.leg.trial.learning_rate for f in play(ASKED | {"mode": "winner"}, examples=10).finalists] == [0.1, 0.2, 0.2]

    outcome = play(ASKED, examples=10)

    assert outcome.winner == outcome.finalists[0]
    assert outcome.winner.leg is not None and outcome.winner.leg.trial.learning_rate == 0.2


@pytest.mark.parametrize(("examples", "first"), [(10, 1), (10**6, 0)])
def test_candidates_to_train_are_ranked_within_the_noise_of_val_and_what_is_exported_untrained_is_not(
    examples: int, first: int, play: Any, cluster: Cluster
) -> None:
    history = [replace(RANKED[0], loss=2.0), replace(RANKED[1], accuracy=0.89, loss=1.0)]
    searched = play({"mode": "off"}, examples=examples, history=history).winner
    trained = play(ASKED | {"mode": "winner"}, examples=examples, history=history).winner
    assert searched.fitness == history[0]
    assert trained.fitness.config == history[first].config


def test_finalists_are_compared_by_the_jobs_metric_and_trained_once_for_all_metrics(
    play: Any, cluster: Cluster, database: Database
) -> None:
    asked = ASKED | {"epochs": [1]}
    by_accuracy, trained = play(asked), len(cluster.trained)
    cluster.metric = "MulticlassF1Score"

    outcome = play(asked)

    assert (len(cluster.trained), cluster.scored) == (trained, trained)
    assert {f.supernet_key for f in outcome.finalists} == {f.supernet_key for f in by_accuracy.finalists}
    assert by_accuracy.winner.leg.trial.learning_rate == 0.2
    best = outcome.winner.fitness
    assert (best.fitness, best.measure, best.accuracy, best.macro_accuracy) == (-0.1, -0.1, 0.6, 0.5)
    assert (by_accuracy.winner.fitness.measure, by_accuracy.winner.fitness.macro_accuracy) == (None, 0.6000000000000001)
    assert told(database, "finalist")[-1]["fitness"] in (-0.1, -0.2)
    assert play(asked) == outcome
    assert cluster.scored == trained


def test_the_best_candidates_are_compared_as_they_stand_in_the_supernet_and_scored_once(play: Any, cluster: Cluster) -> None:
    asked = ASKED | {"standing": 2}
    outcome = play(asked)

    standing = [f for f in outcome.finalists if f.leg.rung == 0]
    assert sorted((f.source, f.fitness.config) for f in standing) == [(f"search #{i}", r.config) for i, r in enumerate(RANKED, 1)]
    assert {(f.supernet_key, f.leg.trained, f.fitness.accuracy) for f in standing} == {("s", 0, 0.503)}
    assert outcome.winner == outcome.finalists[0] == max(outcome.finalists, key=lambda f: f.fitness.accuracy)
    assert cluster.scored == 2
    assert play(asked) == outcome
    assert cluster.scored == 2


def test_what_comes_from_the_supernet_is_taught_by_its_best_candidates(play: Any, cluster: Cluster, database: Database) -> None:
    codes = [encode(candidate.config) for candidate in RANKED]
    outcome = play(ASKED | {"teachers": 2})
    taught_by = {(f.sliced, f.leg.rung): list(f.settings.teachers) for f in outcome.finalists}
    assert taught_by == {(True, 1): codes, (True, 2): [], (False, 1): []}
    assert [origin and set(origin.state) for origin in cluster.origins] == [{"numbers"}, None]
    with database.read() as session:
        taught = next(finalist for finalist in outcome.finalists if finalist.settings.teachers)
        assert session.get_one(Supernet, taught.supernet_key).recipe["training"]["teachers"] == codes
    trained = len(cluster.trained)

    untaught = play(ASKED | {"teachers": 0})

    assert len(cluster.trained) == trained + 3, "what is taught otherwise is another subnet; known methods are not taught"
    assert all(not f.settings.teachers for f in untaught.finalists)
    assert cluster.origins[2:] == [None, None]


def test_what_is_trained_again_on_train_and_val_has_been_trained_alone(play: Any, cluster: Cluster) -> None:
    assert all(f.leg.trained for f in play(ASKED | {"standing": 2}, train_on_val=True).finalists)


def test_where_no_trial_is_as_good_the_searchs_best_wins_as_it_stands(play: Any, cluster: Cluster) -> None:
    outcome = play({"mode": "winner", "learning_rates": [1e-3], "epochs": [1], "standing": 1})
    assert (outcome.winner.source, outcome.winner.supernet_key, outcome.winner.leg.trained) == ("search #1", "s", 0)
    assert len(outcome.finalists) == 2


SOUP = ASKED | {"mode": "winner"}


def test_a_soup_tells_two_candidates_of_one_supernet_apart(play: Any, cluster: Cluster) -> None:
    cluster.soup = (1, 2)
    asked = SOUP | {"learning_rates": [1e-4], "epochs": [1], "standing": 2}
    outcome = play(asked, examples=10)

    assert outcome.soup is not None
    assert [(m.source, m.supernet_key, m.leg.trained) for m in outcome.soup.members] == [("search #2", "s", 0), ("search #1", "s", 0)]
    assert play(asked, examples=10) == outcome
    assert cluster.cooked == [3]


def test_a_soup_of_finalists_is_told_with_the_sum_of_its_parameters(play: Any, cluster: Cluster, database: Database) -> None:
    cluster.soup = (0, 1)

    outcome = play(SOUP, examples=10)

    members = asked_for_soup(outcome.finalists, 10)
    assert len(members) == 2
    assert outcome.soup is not None and list(outcome.soup.members) == members
    assert outcome.winner == outcome.finalists[0]
    assert outcome.soup.fitness.parameters == sum(member.fitness.parameters for member in members)
    assert (outcome.soup.fitness.accuracy, outcome.soup.fitness.fitness, outcome.soup.fitness.loss) == (1.0, 1.0, 0.01)
    (event,) = told(database, "soup")
    assert event["members"] == event["asked"] == [member.key for member in members]
    assert [found["learning_rate"] for found in event["finalists"]] == [member.leg.trial.learning_rate for member in members if member.leg]


def test_a_resumed_job_goes_on_with_the_soup_it_had_chosen(play: Any, cluster: Cluster) -> None:
    cluster.soup = (0, 1)
    first = play(SOUP, examples=10)
    cluster.soup = (1,)

    assert play(SOUP, examples=10) == first
    assert cluster.cooked == [2]


def test_a_soup_of_one_is_none_and_is_not_cooked_again(play: Any, cluster: Cluster) -> None:
    assert play(SOUP, examples=10).soup is None
    assert play(SOUP, examples=10).soup is None
    assert cluster.cooked == [2]


@pytest.mark.parametrize(
    ("asked", "examples"), [({"soup": False}, 10), ({"epochs": [1], "learning_rates": [0.1]}, 10), ({"mode": "off"}, 10)]
)
def test_there_is_no_soup_where_none_is_wanted_or_only_one_could_be_in_it(
    asked: dict[str, Any], examples: int, play: Any, cluster: Cluster
) -> None:
    assert play(SOUP | asked, examples=examples).soup is None
    assert cluster.cooked == []


def test_a_soups_fitness_is_of_the_jobs_metric(play: Any, cluster: Cluster) -> None:
    cluster.metric, cluster.soup = "MulticlassF1Score", (0, 1)
    soup = play(SOUP | {"learning_rates": [0.1, 0.11]}, examples=10).soup
    assert soup is not None
    assert soup.fitness.measure == soup.fitness.fitness == 1.0
