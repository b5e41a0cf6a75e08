"""Every position is scored once, whatever becomes of the batches."""

from hypothesis import given
from hypothesis import strategies as st

from glora_core.evaluation import Score
from services.cluster.work import Batch, Work


def _score(code: str) -> Score:
    return Score(0.5, float(code), 1, 0.5, 0.5)


def _answer(work: Work, batch: Batch) -> None:
    batch.holders -= 1
    work.answer(batch, [_score(code) for code in batch.codes])


@given(st.integers(0, 60), st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["answer", "lose", "copy", "keep"])), max_size=200))
def test_scores_come_in_order_whatever_is_lost_or_answered_twice(count: int, moves: list[tuple[int, str]]) -> None:
    work, held = Work([str(i) for i in range(count)]), list[Batch]()
    for size, move in moves:
        batch = work.take(size)
        if batch is None:
            break
        batch.holders = 2 if move == "copy" else 1
        if move == "keep":
            held.append(batch)
            continue
        if move != "answer":
            batch.holders -= 1
            work.lose(batch)
        if move != "lose":
            _answer(work, batch)
    for batch in held:
        _answer(work, batch)
    while (batch := work.take(7)) is not None:
        batch.holders = 1
        _answer(work, batch)

    assert work.done and work.waiting == 0
    assert [score.loss for score in work.scores if score] == [float(i) for i in range(count)]


def test_batch_that_another_evaluator_still_has_does_not_wait_again() -> None:
    work = Work(["0", "1"])
    batch = work.take(2)
    assert batch is not None
    batch.holders = 1  # of two, one has just been lost
    work.lose(batch)

    assert work.take(2) is None


def test_late_second_answer_changes_nothing() -> None:
    work = Work(["0"])
    batch = work.take(1)
    assert batch is not None
    batch.holders = 2
    _answer(work, batch)
    work.answer(batch, [_score("9")])

    assert work.scores == [_score("0")]
