"""Methods of asyncio's classes as workflow code has them, whatever the Python version: those of Python 3.13.

They use the private attributes that these classes have had since 3.11.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any


async def leave_task_group(group: Any, _: Any, raised: BaseException | None, _traceback: Any) -> None:
    """`TaskGroup.__aexit__`. A run that is canceled while tasks of the group fail stays canceled."""
    group._exiting = True
    if raised is not None and group._base_error is None and group._is_base_error(raised):
        group._base_error = raised
    canceled = raised if isinstance(raised, asyncio.CancelledError) else None
    if raised is not None and not group._aborting:
        group._abort()
    canceled = await _tasks_of(group) or canceled
    if group._base_error is not None:
        raise group._base_error
    if group._parent_cancel_requested and group._parent_task.uncancel() == 0:
        canceled = None  # it was the group itself that canceled
    if canceled is not None and not group._errors:
        raise canceled
    if raised is not None and not isinstance(raised, asyncio.CancelledError):
        group._errors.append(raised)
    if not group._errors:
        return
    if group._parent_task.cancelling():  # from outside
        group._loop.call_soon(_cancel_again, group._parent_task)
    errors, group._errors = group._errors, None
    raise BaseExceptionGroup("unhandled errors in a TaskGroup", errors) from None


def _cancel_again(task: asyncio.Task[Any]) -> None:
    """Deliver a cancellation once more where the task now waits, unless it was undone by `uncancel` meanwhile.

    `cancel()` at once would be the same from 3.13 on only: before, `uncancel` did not take it back.
    """
    if task.cancelling() and not task.done():
        task.uncancel()
        task.cancel()


async def _tasks_of(group: Any) -> asyncio.CancelledError | None:
    """Wait for all tasks; returns the cancellation that came meanwhile, which ended them."""
    canceled = None
    while group._tasks:
        if group._on_completed_fut is None:
            group._on_completed_fut = group._loop.create_future()
        try:
            await group._on_completed_fut
        except asyncio.CancelledError as error:
            if not group._aborting:
                canceled = error
                group._abort()
        group._on_completed_fut = None
    return canceled


async def wait_for_notice(condition: Any) -> bool:
    """`Condition.wait`. A waiter that was notified and then canceled passes the notice on."""
    if not condition.locked():
        raise RuntimeError("cannot wait on un-acquired lock")
    notice = asyncio.get_running_loop().create_future()
    condition.release()
    try:
        try:
            condition._waiters.append(notice)
            try:
                await notice
            finally:
                condition._waiters.remove(notice)
        finally:
            await _acquire_anyway(condition)
    except BaseException:
        _pass_on(condition)
        raise
    return True


async def _acquire_anyway(condition: Any) -> None:
    """The lock is taken again even if the waiter is canceled meanwhile; then the cancellation is raised."""
    canceled = None
    while True:
        try:
            await condition.acquire()
            break
        except asyncio.CancelledError as error:
            canceled = error
    if canceled is not None:
        raise canceled


def _pass_on(condition: Any) -> None:
    for notice in condition._waiters:
        if not notice.done():
            notice.set_result(False)
            return


async def acquire_semaphore(semaphore: Any) -> bool:
    """`Semaphore.acquire`. Whoever leaves the queue wakes as many as there is room for."""
    if not semaphore.locked():
        semaphore._value -= 1
        return True
    if semaphore._waiters is None:
        semaphore._waiters = deque()
    turn = asyncio.get_running_loop().create_future()
    semaphore._waiters.append(turn)
    try:
        try:
            await turn
        finally:
            semaphore._waiters.remove(turn)
    except asyncio.CancelledError:
        if turn.done() and not turn.cancelled():
            semaphore._value += 1  # it was woken, and does not take its turn
        raise
    finally:
        while semaphore._value > 0 and any(not waiter.done() for waiter in semaphore._waiters):
            semaphore._wake_up_next()
    return True
