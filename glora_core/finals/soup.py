"""Soups: one plain network whose weights are the average of several merged subnets (Wortsman et al., arXiv 2203.05482).

It costs at inference what any of them costs. Averages of subnets that were trained on from one supernet, and so lie in one basin of
its loss, often score better than each; averages of others do not, which the validation split tells. Imports torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from glora_core.evaluation import Score

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Soup:
    """An average of merged subnets.

    Attributes:
        members: which of the subnets offered are in it, in the order they were taken up.
        score: of the average on the split that chose it.
        state: its plain state dict; floating-point tensors in float64.
    """

    members: tuple[int, ...]
    score: Score
    state: dict[str, Tensor]


def greedy_soup(merged: Sequence[Callable[[], State]], plain: nn.Module, measure: Callable[[nn.Module], Score]) -> Soup:
    """Take up subnets in the order given, each if the average with it is no worse than without: neither in fitness nor in loss.

    Fitness alone is too coarse: of many averages one is better on a few hundred examples by chance, and its loss tells.

    Holds three states at once, however many subnets there are.

    Args:
        merged: give each subnet's plain state dict in float64 (`Supernet.merged_state`), best subnet first; one at least.
        plain: a network of that architecture; its weights are overwritten, and are the soup's afterwards.
        measure: scores a network on the validation split.
    """
    members: tuple[int, ...] = (0,)
    total = dict(merged[0]())
    best = measure(_filled(plain, total, 1))
    for number, make in enumerate(merged[1:], 1):
        tried = _sum(total, make())
        score = measure(_filled(plain, tried, len(members) + 1))
        if _no_worse(score, best):
            members, total, best = (*members, number), tried, score
    _filled(plain, total, len(members))
    return Soup(members, best, {name: _mean(value, len(members)) for name, value in total.items()})


def best_soup(
    merged: Sequence[Callable[[], State]], plain: nn.Module, measure: Callable[[nn.Module], Score], basin: Sequence[int] | None = None
) -> Soup:
    """The greedy soup, or the uniform one of a whole basin where that is better in fitness or in loss, and worse in neither.

    Args:
        merged, plain, measure: as of `greedy_soup`.
        basin: places of the subnets that were trained on from one supernet; all, if absent.
    """
    greedy = greedy_soup(merged, plain, measure)
    together = range(len(merged)) if basin is None else basin
    if len(together) < 2 or sorted(greedy.members) == sorted(together):
        return greedy
    uniform = uniform_soup([merged[place] for place in together], plain, measure)
    if not _no_worse(greedy.score, uniform.score) and _no_worse(uniform.score, greedy.score):
        return replace(uniform, members=tuple(together))
    _filled(plain, greedy.state, 1)
    return greedy


def uniform_soup(merged: Sequence[Callable[[], State]], plain: nn.Module, measure: Callable[[nn.Module], Score]) -> Soup:
    """The average of all subnets; arguments as of `greedy_soup`."""
    total = _total(merged)
    score = measure(_filled(plain, total, len(merged)))
    return Soup(tuple(range(len(merged))), score, {name: _mean(value, len(merged)) for name, value in total.items()})


def _no_worse(score: Score, other: Score) -> bool:
    return score.fitness >= other.fitness and score.loss <= other.loss


def averaged(merged: Sequence[Callable[[], State]], plain: nn.Module) -> nn.Module:
    """A network of an architecture with the average of merged subnets in it; one at least."""
    return _filled(plain, _total(merged), len(merged))


def _total(merged: Sequence[Callable[[], State]]) -> dict[str, Tensor]:
    total = dict(merged[0]())
    for make in merged[1:]:
        total = _sum(total, make())
    return total


def _sum(total: State, state: State) -> dict[str, Tensor]:
    return {name: value + other if value.is_floating_point() else value for (name, value), other in _pairs(total, state)}


def _pairs(total: State, state: State) -> list[tuple[tuple[str, Tensor], Tensor]]:
    """Each tensor of a sum beside the one to add; both must have the same."""
    return [(item, state[item[0]]) for item in total.items()]


def _mean(value: Tensor, count: int) -> Tensor:
    return value / count if value.is_floating_point() else value


@torch.no_grad()
def _filled(plain: nn.Module, total: State, count: int) -> nn.Module:
    """The network with the average of `count` states in it, rounded once to its own precision."""
    own = plain.state_dict()
    plain.load_state_dict({name: _mean(value, count).to(own[name].dtype) for name, value in total.items()})
    return plain.eval()
