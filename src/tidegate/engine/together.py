"""Asking together: what many runs ask of the database in the same moment is asked in one statement."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

MOST = 500
"""Questions put into one statement at most."""


class Together(Generic[Asked, Answer]):
    """Collects questions while the ones before are being answered, and puts them in one call of ``answer``.

    ``answer`` returns one answer, or one exception, per question, in order. If it raises, all of them get what it raised.
    """

    def __init__(self, answer: Callable[[list[Asked]], Awaitable[Sequence[Answer | Exception]]]) -> None:
        self._answer = answer
        self._waiting: list[tuple[Asked, asyncio.Future[Answer]]] = []
        self._busy: asyncio.Task[None] | None = None

    async def ask(self, question: Asked) -> Answer:
        """Return the answer to ``question``, or raise the exception that it was given."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._busy is None or self._busy.done():
            self._busy = asyncio.create_task(
                self._work(), context=Context()
            )  # it works for all, not for who came first
        return await future

    async def _work(self) -> None:
        while self._waiting:
            now, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            try:
                answers = await self._answer([question for question, _ in now])
            except Exception as error:
                answers = [error] * len(now)
            for (_, future), answer in zip(now, answers, strict=True):
                if future.done():  # whoever asked was cancelled meanwhile
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
