"""Text as tensors: padding, classes, the next token as label, and what is refused."""

import pytest
import torch

from glora_core.data.split import answers
from glora_core.data.text import TextSplit, classify, continue_text
from glora_core.errors import DataInvalid


class Words:
    """A tokenizer of the interface that transformers' have: a word's number is its length, and 0 pads."""

    def __call__(self, texts, *, padding, truncation, max_length, return_tensors):
        assert padding and truncation and return_tensors == "pt"
        rows = [[len(word) for word in text.split()][:max_length] for text in texts]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], dtype=torch.int64).reshape(len(rows), width)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], dtype=torch.int64).reshape(len(rows), width)
        return {"input_ids": ids, "attention_mask": mask}


TEXTS = ["a bb ccc", "dddd", "eeeee ff"]


def test_texts_are_padded_to_one_length_with_a_class_each():
    split = classify(TEXTS, [2, 0, 1], Words())
    assert split.input_ids.tolist() == [[1, 2, 3], [4, 0, 0], [5, 2, 0]]
    assert split.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert split.labels.tolist() == [2, 0, 1] and split.labels.dtype == torch.int64
    assert len(split) == 3


def test_longer_texts_are_cut():
    assert classify(TEXTS, [0, 0, 0], Words(), max_length=2).input_ids.tolist() == [[1, 2], [4, 0], [5, 2]]


@pytest.mark.parametrize(("texts", "labels"), [([], []), (TEXTS, [0]), (TEXTS[:1], [0, 1])])
def test_texts_without_a_label_each_are_refused_with_their_numbers(texts, labels):
    with pytest.raises(DataInvalid, match=f"{len(texts)} texts and {len(labels)} labels: accepted is"):
        classify(texts, labels, Words())


def test_the_label_of_every_token_is_the_next_one_and_none_is_asked_for_at_the_end():
    split = continue_text(TEXTS, Words())
    assert split.labels.tolist() == [[2, 3, -100], [-100, -100, -100], [2, -100, -100]]


def test_as_many_answers_are_asked_for_as_texts_have_tokens_after_their_first():
    split = continue_text(TEXTS, Words())
    logits, labels = answers(torch.randn(3, 3, 7), split.labels)
    assert logits.shape == (3, 7)
    assert labels.tolist() == [2, 3, 2]


@pytest.mark.parametrize("texts", [[], ["one"], ["one", "word"]])
def test_texts_without_a_next_token_are_refused(texts):
    with pytest.raises(DataInvalid, match="no text has two tokens"):
        continue_text(texts, Words())


def test_taken_rows_are_the_models_named_inputs_with_their_labels():
    inputs, labels = classify(TEXTS, [2, 0, 1], Words()).take(torch.tensor([2, 0]))
    assert inputs["input_ids"].tolist() == [[5, 2, 0], [1, 2, 3]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert labels.tolist() == [1, 2]


def test_taken_rows_are_as_long_as_the_longest_of_them():
    split = continue_text(TEXTS, Words())
    inputs, labels = split.take(torch.tensor([1, 2]))
    assert inputs["input_ids"].tolist() == [[4, 0], [5, 2]]
    assert inputs["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert labels.tolist() == [[-100, -100], [2, -100]]


def test_padding_before_a_text_stays():
    split = TextSplit(torch.tensor([[0, 3, 0], [1, 2, 0]]), torch.tensor([[0, 1, 0], [1, 1, 0]]), torch.tensor([0, 1]))
    assert split.take(torch.tensor([0]))[0]["input_ids"].tolist() == [[0, 3]]


def test_no_rows_are_taken_as_none():
    inputs, labels = classify(TEXTS, [2, 0, 1], Words()).take(torch.tensor([], dtype=torch.int64))
    assert len(inputs["input_ids"]) == len(labels) == 0


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_batches_hold_all_examples_the_shortest_first(size):
    batches = list(classify(TEXTS, [2, 0, 1], Words()).batches(size))
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 1, 2]
    texts = [
        ids[mask > 0].tolist() for inputs, _ in batches for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]
    assert texts == [[4], [5, 2], [1, 2, 3]]
    assert [inputs["input_ids"].shape[1] for inputs, _ in batches] == {1: [1, 2, 3], 2: [2, 3]}.get(size, [3])
    assert max(len(labels) for _, labels in batches) == min(size, 3)


def test_a_split_moves_to_a_device_whole():
    moved = classify(TEXTS, [2, 0, 1], Words()).to(torch.device("meta"))
    assert isinstance(moved, TextSplit)
    assert {tensor.device.type for tensor in (moved.input_ids, moved.attention_mask, moved.labels)} == {"meta"}
