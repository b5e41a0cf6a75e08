"""What was a plain file at submission may be a link by now: runner and describer look again before they read."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from glora_core.errors import DataInvalid
from services.job_request import JobRequest
from services.scheduler import describe
from services.scheduler.context import RunContext
from services.settings import Settings
from services.store import backbones
from services.store.database import Database
from services.store.models import Backbone
from tests.services.api import stock


@pytest.fixture
def root(tmp_path: Path, data: Path) -> Path:
    """A data root with the flowers in it; beside it lies somebody else's file."""
    (tmp_path / "root").mkdir()
    data.rename(tmp_path / "root" / "flowers")
    (tmp_path / "theirs").write_text("secret")
    return tmp_path / "root"


def context(root: Path, **changes: Any) -> RunContext:
    """The context of a runner that has not begun."""
    missing: Any = SimpleNamespace()
    request = JobRequest.model_validate(stock.body(root / "flowers") | changes)
    return RunContext(Settings(data_roots=[root]), missing, missing, missing, request, missing, {"fingerprint": "f"}, root)


def test_runner_refuses_data_that_leads_out_by_now(root: Path) -> None:
    (root / "flowers" / "train800.txt").symlink_to(root.parent / "theirs")

    with pytest.raises(DataInvalid, match=r"link 'train800\.txt' leads to what does not lie below"):
        context(root).data  # noqa: B018


def test_runner_refuses_data_whose_folder_is_a_link_by_now(root: Path) -> None:
    (root / "flowers").rename(root.parent / "flowers")
    (root / "flowers").symlink_to(root.parent / "flowers")

    with pytest.raises(DataInvalid, match="link 'flowers' leads to what does not lie below"):
        context(root).data  # noqa: B018


def test_runner_refuses_a_further_test_set_that_leads_out_by_now(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "sketch").mkdir()
    (root / "sketch" / "tulip").symlink_to(root.parent)
    run = context(root, data={"path": str(root / "flowers"), "also_test": {"sketch": str(root / "sketch")}})
    monkeypatch.setitem(run.__dict__, "data", None)  # read already

    with pytest.raises(DataInvalid, match="link 'tulip' leads"):
        run.also_tests  # noqa: B018


@pytest.mark.parametrize("kind", ["transformers", "local-dir"])
def test_runner_refuses_a_backbone_that_leads_out_by_now(kind: str, root: Path) -> None:
    (root / "bert").mkdir()
    (root / "bert" / "vocab.txt").symlink_to(root.parent / "theirs")

    with pytest.raises(DataInvalid, match=r"link 'vocab\.txt' leads"):
        context(root, backbone={"name": f"{kind}:{root / 'bert'}"}).spec  # noqa: B018


def test_runner_refuses_weights_that_are_a_link_out_by_now(root: Path) -> None:
    (root / "weights.pth").symlink_to(root.parent / "theirs")

    with pytest.raises(DataInvalid, match=r"link 'weights\.pth' leads"):
        context(root, backbone={"name": "toy_vit", "weights": str(root / "weights.pth")}).spec  # noqa: B018


def test_describer_refuses_a_backbone_that_leads_out_by_now(root: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "bert").mkdir()
    (root / "bert" / "config.json").symlink_to(root.parent / "theirs")
    settings = Settings(database_url=str(database.engine.url), data_roots=[root])
    spec = JobRequest.model_validate(stock.body(backbone={"name": f"transformers:{root / 'bert'}"})).backbone.model_dump()
    with database.write() as session:
        row = backbones.request(session, spec)
    monkeypatch.setattr(describe, "get_settings", lambda: settings)
    monkeypatch.setattr("sys.argv", ["describe", row.key, row.requested_at.isoformat()])

    assert describe.main() == 0

    with database.read() as session:
        found = session.get_one(Backbone, row.key)
    assert (found.state, "link 'config.json' leads" in (found.error or "")) == ("failed", True)
