"""Descriptions of backbones: asked for once, claimed by one, asked for again after a failure."""

from datetime import UTC, datetime, timedelta

import pytest

from services.store import backbones
from services.store.database import Database
from services.store.models import Backbone
from tests.services.store.concurrency import Background, at_once
from tests.services.store.conftest import Connect
from tests.services.store.rows import EPOCH

SPEC = {"name": "vit_small", "layers": ["qkv", "proj"]}
INFO = {"layers": [{"name": "blocks.0.attn.qkv"}]}


def test_first_request_asks_for_a_description(database: Database) -> None:
    row = _request(database)

    stored = _stored(database)
    assert row.key == stored.key == backbones.key_of(SPEC)
    assert (stored.state, stored.spec, stored.info, stored.error) == ("requested", SPEC, None, None)


def test_key_depends_on_the_spec_and_not_on_the_order_of_its_fields() -> None:
    assert backbones.key_of({"a": 1, "b": 2}) == backbones.key_of({"b": 2, "a": 1})
    assert backbones.key_of({"a": 1, "b": 2}) != backbones.key_of({"a": 2, "b": 1})


def test_description_is_known_ever_after(database: Database) -> None:
    key = _request(database).key
    _describe(database, key, info=INFO)
    requested_at = _stored(database).requested_at

    again = _request(database)

    assert (again.state, again.info, again.error) == ("ready", INFO, None)
    assert _stored(database).requested_at == requested_at
    assert _claim(database) is None


@pytest.mark.parametrize("state", ["requested", "describing"])
def test_asking_again_for_what_is_under_way_changes_nothing(database: Database, state: str) -> None:
    _request(database)
    _change(database, state=state, requested_at=EPOCH)

    _request(database)

    assert (_stored(database).state, _stored(database).requested_at) == (state, EPOCH)


def test_failed_description_tells_why(database: Database) -> None:
    key = _request(database).key

    _describe(database, key, error="no such model")

    assert (_stored(database).state, _stored(database).info, _stored(database).error) == ("failed", None, "no such model")
    assert _claim(database) is None


def test_failed_description_is_asked_for_again(database: Database) -> None:
    key = _request(database).key
    _describe(database, key, error="no such model")
    _change(database, requested_at=EPOCH)

    again = _request(database)

    assert (again.state, again.error) == ("requested", None)
    assert _stored(database).requested_at > EPOCH
    claimed = _claim(database)
    assert claimed is not None and claimed.key == key


def test_claimed_description_is_nobody_elses(database: Database) -> None:
    key = _request(database).key

    first, second = _claim(database), _claim(database)

    assert first is not None and first.key == key
    assert second is None
    assert _stored(database).state == "describing"


def test_description_that_waits_longest_is_claimed_first(database: Database) -> None:
    for name, seconds in [("middle", 1), ("newest", 2), ("oldest", 0)]:
        _request(database, {"name": name})
        _change(database, {"name": name}, requested_at=EPOCH + timedelta(seconds=seconds))

    claimed = [_claim(database) for _ in range(3)]

    assert [row.spec["name"] for row in claimed if row is not None] == ["oldest", "middle", "newest"]


def test_description_that_nobody_finished_is_claimed_again(database: Database) -> None:
    key = _request(database).key
    _change(database, state="describing", requested_at=datetime.now(UTC) - timedelta(seconds=121))

    first, second = _claim(database), _claim(database)

    assert first is not None and first.key == key
    assert second is None


def test_patience_with_a_description_under_way_can_be_chosen(database: Database) -> None:
    _request(database)
    _change(database, state="describing", requested_at=datetime.now(UTC) - timedelta(seconds=121))

    with database.write() as session:
        assert backbones.claim(session, patience_seconds=3600) is None


def test_whoever_was_replaced_does_not_fail_what_another_is_describing(database: Database) -> None:
    key = _request(database).key
    _claim(database)
    _change(database, requested_at=datetime.now(UTC) - timedelta(seconds=121))
    late = _stored(database).requested_at
    _claim(database)

    with database.write() as session:
        backbones.describe(session, key, late, info=None, error="it took too long")

    assert (_stored(database).state, _stored(database).error) == ("describing", None)


def test_many_claimers_at_once_get_every_description_exactly_once(database: Database, connect: Connect) -> None:
    for number in range(12):
        _request(database, {"name": number})
    claimers = [connect() for _ in range(4)]

    claimed = at_once(*(lambda number=number: _claim_all(claimers[number]) for number in range(4)))

    assert sorted(name for names in claimed for name in names) == list(range(12))


def test_two_requests_at_once_for_a_new_backbone_ask_for_it_once(database: Database, connect: Connect) -> None:
    other = connect()

    with database.write() as session:
        first = backbones.request(session, SPEC)
        session.flush()
        second = Background(lambda: _request(other))
        second.give_way()

    assert second.result().key == first.key
    assert _stored(database).state == "requested"


def _request(database: Database, spec: dict[str, object] = SPEC) -> Backbone:
    with database.write() as session:
        return backbones.request(session, spec)


def _claim(database: Database) -> Backbone | None:
    with database.write() as session:
        return backbones.claim(session)


def _claim_all(database: Database) -> list[int]:
    names = []
    while (row := _claim(database)) is not None:
        names.append(row.spec["name"])
    return names


def _describe(database: Database, key: str, *, info: dict[str, object] | None = None, error: str | None = None) -> None:
    with database.write() as session:
        row = session.get_one(Backbone, key)
        backbones.describe(session, key, row.requested_at, info=info, error=error)


def _stored(database: Database, spec: dict[str, object] = SPEC) -> Backbone:
    with database.read() as session:
        return session.get_one(Backbone, backbones.key_of(spec))


def _change(database: Database, spec: dict[str, object] = SPEC, **columns: object) -> None:
    with database.write() as session:
        row = session.get_one(Backbone, backbones.key_of(spec))
        for name, value in columns.items():
            setattr(row, name, value)
