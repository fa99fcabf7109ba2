"""Graphics cards that are none: tensors on the CPU that say they are on a card.

Real numbers, and the rule that real cards enforce: an operation takes tensors of one
card only (numbers of no dimension may come from the CPU). So code that spreads a model
over cards can be run on a machine without one, and fails where a card would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

_FACTORIES = {
    torch.arange,
    torch.empty,
    torch.empty_like,
    torch.full,
    torch.ones,
    torch.rand,
    torch.randn,
    torch.tensor,
    torch.zeros,
    torch.zeros_like,
}
_DEVICE_OF = torch.Tensor.device.__get__
_MOVES = {torch.Tensor.to, torch.Tensor.cpu}
# What copies between devices by its nature.
_CROSS = {torch.Tensor.copy_}


class MixedCards(RuntimeError):
    """What CUDA says as "expected all tensors to be on the same device"."""


class OnCard(torch.Tensor):
    """A tensor that says it is on `card`."""

    card: torch.device

    def __new__(cls, data: torch.Tensor, **options: Any) -> OnCard:
        made: OnCard = data.as_subclass(cls)
        made.card = getattr(data, "card", torch.device("cuda", 0))
        return made

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        with torch._C.DisableTorchFunction():
            return _run(func, args, dict(kwargs or {}))


class Cards(TorchFunctionMode):
    """Within it, tensors can be made on cards and moved to them."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        with torch._C.DisableTorchFunction():
            return _run(func, args, dict(kwargs or {}))


def on_card(data: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor as one of the card's, or as a plain one."""
    with torch._C.DisableTorchFunction():
        plain = data.as_subclass(torch.Tensor)
        if device.type != "cuda":
            return plain
        made = plain.as_subclass(OnCard)
    made.card = device
    return made


def card_of(tensor: torch.Tensor) -> torch.device:
    """Where a tensor says it is."""
    return getattr(tensor, "card", None) or torch.device("cpu")


def _run(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    if func == _DEVICE_OF:
        return card_of(args[0]) if isinstance(args[0], OnCard) else func(*args)
    if func in _MOVES:
        return _move(func, args, kwargs)
    if func in _FACTORIES and kwargs.get("device") is not None:
        device = torch.device(kwargs.pop("device"))
        if device.type != "cuda":
            return func(*args, **kwargs, device=device)
        return on_card(func(*args, **kwargs), device)
    cards = {card_of(t) for t in given if t.dim()}
    if len(cards) > 1 and func not in _CROSS:
        raise MixedCards(f"{getattr(func, '__name__', func)} of tensors on {cards}")
    result = func(*args, **kwargs)
    here = card_of(given[0]) if func in _CROSS else next(iter(cards), None)
    if here is None and given:
        here = card_of(given[0])
    if here is None or here.type != "cuda":
        return result
    return _all_on_card(result, here)


def _all_on_card(result: Any, device: torch.device) -> Any:
    if isinstance(result, torch.Tensor):
        return on_card(result, device)
    if type(result) in (tuple, list):
        return type(result)(_all_on_card(one, device) for one in result)
    if isinstance(result, tuple) and not isinstance(result, torch.Size):
        return type(result)([_all_on_card(one, device) for one in result])
    return result


def _move(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    target = torch.device("cpu") if func is torch.Tensor.cpu else None
    dtype = kwargs.get("dtype")
    for value in [*args[1:], kwargs.get("device")]:
        if isinstance(value, torch.device | str):
            target = torch.device(value)
        elif isinstance(value, torch.dtype):
            dtype = value
    before = card_of(args[0])
    target = before if target is None else target
    if target == before and dtype in (None, args[0].dtype):
        return args[0]
    if target.type == "meta":
        return args[0].to(target)
    moved = args[0].to(dtype or args[0].dtype)
    if target != before and moved.data_ptr() == args[0].data_ptr():
        moved = moved.clone()
    return on_card(moved, target)


@contextmanager
def cards() -> Iterator[None]:
    """Cards "cuda:0", "cuda:1" ... for this thread."""
    with Cards():
        yield
