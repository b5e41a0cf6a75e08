"""Soups taken away: the average of merged finalists as a plain checkpoint, with what went into it."""

import json

import pytest
import timm
import torch

from examples.digits import pretrain_backbone, write_target
from glora_core.api import Supernet, export_average, finals, images, load, preset, search, soup, train
from glora_core.data.images import ImageSplit
from glora_core.errors import ConfigInvalid
from glora_core.evaluation import score
from glora_core.export import export_soup
from glora_core.finals import FinalsSettings
from glora_core.search import SearchSettings


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A backbone, its supernet after a short training, the validation split, and the finalists."""
    root = tmp_path_factory.mktemp("soup")
    backbone = load(f"local-dir:{pretrain_backbone(root / 'backbone', epochs=1)}", classes=5)
    train_split, val = images(write_target(root / "images"), backbone)
    supernet = Supernet(backbone.model, preset("paper", backbone.layers))
    small = train_split.part(torch.arange(60))
    train(supernet, small, epochs=2)
    result = search(supernet, val, 10_000, SearchSettings(population=4, generations=2))
    settings = FinalsSettings(candidates=3, learning_rates=(3e-3,), epochs=(1, 1), scratch_epochs=())
    return backbone, supernet, val, finals(supernet, small, val, result, 10_000, settings)


def test_a_soup_is_no_worse_on_val_than_the_finalist_it_starts_from(run):
    _, supernet, val, finalists = run
    members, found = soup(supernet, finalists, val)
    assert found.accuracy >= members[0].fitness.accuracy
    assert len({(m.leg.trial.name, m.leg.rung) for m in members}) == len(members)


def test_a_soup_is_chosen_by_the_metric_asked_for(run):
    _, supernet, val, finalists = run
    members, found = soup(supernet, finalists, val, metric="MulticlassF1Score")
    plain = supernet.bare()
    states = [member.on(supernet).merged_state(member.config, torch.float64) for member in members]
    plain.load_state_dict({name: (sum(s[name] for s in states) / len(states)).to(v.dtype) for name, v in plain.state_dict().items()})
    assert found == score(plain.eval(), val, 50, metric="MulticlassF1Score")
    assert found.fitness != found.accuracy


def test_an_exported_average_loads_in_plain_timm_and_computes_the_mean_of_its_members_weights(run, tmp_path):
    backbone, supernet, val, finalists = run
    members = finalists[:3]
    export_average(supernet, members, tmp_path / "soup", backbone, val)
    model = timm.create_model(f"local-dir:{tmp_path / 'soup'}", pretrained=True).eval()
    states = [member.on(supernet).merged_state(member.config, torch.float64) for member in members]
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, (sum(state[name] for state in states) / 3).to(value.dtype)), name


def test_the_exported_average_scores_as_the_soup_did(run, tmp_path):
    backbone, supernet, val, finalists = run
    members, found = soup(supernet, finalists, val)
    export_average(supernet, members, tmp_path, backbone, val)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert score(model, val, 50).accuracy == found.accuracy


def test_manifest_and_card_name_every_member_and_the_sum_of_their_parameters(run, tmp_path):
    backbone, supernet, val, finalists = run
    export_average(supernet, finalists[:2], tmp_path, backbone, val, facts={"budget": 10_000})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    card = (tmp_path / "README.md").read_text()
    sizes = [finalist.fitness.parameters for finalist in finalists[:2]]
    assert [member["parameters"] for member in manifest["soup"]["members"]] == sizes
    assert manifest["soup"]["parameters"] == sum(sizes)
    assert "subnet" not in manifest
    assert f"{sum(sizes):,} parameters in all" in card
    assert all(member["code"] in card for member in manifest["soup"]["members"])


def test_a_soup_of_nothing_is_refused(run, tmp_path):
    backbone, _, val, _ = run
    assert isinstance(val, ImageSplit)
    with pytest.raises(ConfigInvalid, match="one at least"):
        export_soup(tmp_path / "none", [], ("a", "b"), backbone.info.transform, val)
    assert not (tmp_path / "none").exists()
