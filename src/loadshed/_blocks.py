"""Blocks: which ticket a block `async with limiter:` holds."""

from contextvars import ContextVar
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class _Block(NamedTuple):
    """A block that has been entered, and those around it."""

    owner: object
    held: object
    outer: "_Block | None"


# One variable for all limiters: the garbage collector does not find those that are made by and by.
_innermost: ContextVar[_Block | None] = ContextVar("loadshed.blocks", default=None)


class Blocks(Generic[T]):
    """What the blocks around one object hold, each for itself.

    `__aexit__` is not told what `__aenter__` did; the context in which both run remembers it. A
    block may be left in another context than the one in which it was entered, as that of an
    asynchronous generator which the garbage collector closes. What it held is not found then.
    """

    __slots__ = ()

    def entered(self, held: T) -> None:
        """A block has been entered."""
        _innermost.set(_Block(self, held, _innermost.get()))

    def left(self) -> T | None:
        """The innermost block is left: what it held, if that is known."""
        inner: list[_Block] = []
        block = _innermost.get()
        while block is not None and block.owner is not self:
            inner.append(block)
            block = block.outer
        if block is None:
            return None
        outer = block.outer
        for each in reversed(inner):  # blocks of others, which are left out of order
            outer = _Block(each.owner, each.held, outer)
        _innermost.set(outer)
        return block.held  # type: ignore[return-value]
