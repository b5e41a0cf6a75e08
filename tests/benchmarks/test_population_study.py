"""The study of populations: what it counts is what there is, and its page can be made again from its record alone."""

import json
import math
import sys

import numpy as np
import pytest

from benchmarks import population_study
from benchmarks.population_study import main, parse
from benchmarks.study_parts.coverage import alive, layer_configs_tried, tried
from benchmarks.study_parts.report import markdown
from benchmarks.study_parts.searches import Grid, seen, study
from glora_core.configs import TENSORS, parse_layer
from glora_core.sampling import FeasibleSampler, stream
from glora_core.search import Evaluated
from glora_core.space import LayerShape, SearchSpace

SPACE = SearchSpace.of([LayerShape("first", 8, 8), LayerShape("second", 8, 16)], ranks=[2])


class Sizes:
    """A bench whose fitness is how near a subnet's size is to 100 parameters: nothing to train."""

    space = SPACE

    def __init__(self, *arguments) -> None:
        self.asked = 0

    def evaluate(self, config, generation):
        self.asked += 1
        parameters = SPACE.parameters(config)
        return Evaluated(config, 1 / (1 + abs(parameters - 100)), float(abs(parameters - 100)), parameters, generation)


def subnet(*codes):
    return tuple(parse_layer(code) for code in codes)


def test_tried_is_the_share_of_choices_that_occurred():
    found = tried(SPACE, [subnet("L2NNNN", "NNNNN"), subnet("VNNNN", "NNNNN"), subnet("VNNNV", "NNNNN")])
    assert found[0].tolist() == pytest.approx([2 / 4, 1 / 4, 1 / 3, 1 / 3, 2 / 3])
    assert found[1].tolist() == pytest.approx([1 / 4, 1 / 4, 1 / 3, 1 / 3, 1 / 3])


def test_alive_is_one_where_all_choices_are_alike_and_one_choice_where_one_is_left():
    four = [subnet(f"{code}NNNN", "NNNNN") for code in ("L2", "V", "S", "N")]
    assert alive(SPACE, four)[0].tolist() == pytest.approx([1, 1 / 4, 1 / 3, 1 / 3, 1 / 3])
    uneven = alive(SPACE, [four[0], four[0], four[0], four[1]])[0, 0]
    assert uneven == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))) / 4)


def test_layer_configs_tried_is_over_the_432_of_a_layer():
    assert layer_configs_tried(SPACE, [subnet("L2NNNN", "NNNNN"), subnet("VNNNN", "NNNNN")]) == pytest.approx((2 + 1) / 2 / 432)


def test_a_random_generation_leaves_all_choices_alive_where_the_budget_allows_them():
    sampler, rng = FeasibleSampler(SPACE, SPACE.maximum), stream(0)
    assert alive(SPACE, [sampler.sample(rng) for _ in range(500)]).min() > 0.95


def test_a_look_at_a_search_counts_its_first_generations_only():
    sampler, rng = FeasibleSampler(SPACE, SPACE.maximum), stream(1)
    bench, history = Sizes(), []
    for generation in range(3):
        history += [bench.evaluate(sampler.sample(rng), generation) for _ in range(5)]
    look = seen(SPACE, history, 2)
    assert (look.generations, look.evaluations) == (2, 10)
    assert look.accuracy == max(e.accuracy for e in history[:10])
    assert look.tried == pytest.approx(float(tried(SPACE, [e.config for e in history[:10]]).mean()))
    assert look.alive == pytest.approx(float(alive(SPACE, [e.config for e in history[5:10]]).mean()))


def test_every_setting_proposes_as_many_candidates_and_a_better_subnet_is_never_lost():
    rows = study(Sizes(), Grid("evolution", [4, 8], [0.1, 0.5], 24), SPACE.maximum, 2, lambda text: None)
    assert [(row["population"], row["rate"]) for row in rows] == [(4, 0.1), (4, 0.5), (8, 0.1), (8, 0.5)]
    for row in rows:
        assert [len(best) * row["population"] for best in row["best"]] == [24, 24]
        assert all(best == sorted(best) for best in row["best"])
        assert [search[-1]["accuracy"] for search in row["searches"]] == [best[-1] for best in row["best"]]
        assert np.array(row["alive"]).shape == (2, len(TENSORS))


@pytest.fixture
def told(tmp_path, monkeypatch):
    """The study run on the made-up bench; returns its record's file and the folder of its page."""
    monkeypatch.setattr(population_study, "Bench", Sizes)
    given = ["--populations", "4", "8", "--rates", "0.2", "--evaluations", "16", "--seeds", "3", "--budget", "200"]
    record = tmp_path / "results" / "study.json"
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(sys, "argv", ["x", *given, "--record", str(record), "--docs", str(tmp_path / "docs")])
    pytest.importorskip("matplotlib")
    main()
    return record, tmp_path / "docs"


def test_the_page_has_a_row_for_every_setting_and_length_and_is_made_again_from_the_record(told, monkeypatch):
    record, docs = told
    page, picture = (docs / "population-study.md").read_text(), (docs / "population-study.png").read_bytes()
    rows = [line.split(" | ")[:3] for line in page.splitlines() if line.startswith(("| 4 ", "| 8 "))]
    assert rows == [["| 4", "0.2", "1"], ["| 4", "0.2", "3"], ["| 4", "0.2", "4"], ["| 8", "0.2", "1"], ["| 8", "0.2", "2"]]
    assert picture.startswith(b"\x89PNG")
    monkeypatch.setattr(population_study, "Bench", None)
    monkeypatch.setattr(sys, "argv", ["x", "--table", "--record", str(record), "--docs", str(docs)])
    main()
    assert (docs / "population-study.md").read_text() == page


def test_the_committed_page_is_that_of_the_committed_record():
    arguments = parse([])
    record = json.loads(arguments.record.read_text())
    assert (arguments.docs / "population-study.md").read_text() == markdown(record, "population-study.png")


@pytest.mark.parametrize("given", [["--populations", "0"], ["--evaluations", "20"], ["--seeds", "0"]], ids=" ".join)
def test_a_study_of_nothing_is_refused(given, capsys):
    with pytest.raises(SystemExit):
        parse(given)
    assert "at least" in capsys.readouterr().err
