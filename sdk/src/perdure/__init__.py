"""Perdure: workflows as Python code that outlives processes.

    from perdure import Client, task, workflow

    @task
    async def greet(name: str) -> str:
        return f"Hello, {name}!"

    @workflow
    async def welcome(name: str) -> str:
        return await greet(name)

    async with Client.embedded(greet, welcome) as client:
        print(await client.execute(welcome, "Ada"))

Declaring: `task`, `service`, `workflow`, `query`, `update`, `Retry`. In workflow code: `all_of`, `any_of`, `completed`,
`branch`, `timer`, `sleep`, `inline`, `now`, `Channel` and more. In tasks: `current_task`. Outside: `Client`. Running:
`Worker`.

What declares is imported at once (`task` must be the decorator, not the module); the rest when first used: a worker
never loads the client, nor a client the worker.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from perdure.service import method as method
from perdure.service import service as service
from perdure.service import service_stub as service_stub
from perdure.task import Task as Task
from perdure.task import task as task
from perdure.workflow import Workflow as Workflow
from perdure.workflow import query as query
from perdure.workflow import update as update
from perdure.workflow import workflow as workflow
from perdure.workflow import workflow_of as workflow_of

if TYPE_CHECKING:
    from perdure._replay.futures import Deferred as Deferred
    from perdure.client import Client as Client
    from perdure.client import RunFilter as RunFilter
    from perdure.client import RunPage as RunPage
    from perdure.context import NotInTask as NotInTask
    from perdure.context import TaskContext as TaskContext
    from perdure.context import current_task as current_task
    from perdure.errors import AlreadyInUse as AlreadyInUse
    from perdure.errors import AlreadyStarted as AlreadyStarted
    from perdure.errors import ChildCanceled as ChildCanceled
    from perdure.errors import ChildFailed as ChildFailed
    from perdure.errors import ChildTimedOut as ChildTimedOut
    from perdure.errors import CommandFailed as CommandFailed
    from perdure.errors import DefinitionError as DefinitionError
    from perdure.errors import EngineDefect as EngineDefect
    from perdure.errors import InvalidArguments as InvalidArguments
    from perdure.errors import NamespaceNotServed as NamespaceNotServed
    from perdure.errors import NonDeterminism as NonDeterminism
    from perdure.errors import NotInstalled as NotInstalled
    from perdure.errors import NotInWorkflow as NotInWorkflow
    from perdure.errors import PayloadTooLarge as PayloadTooLarge
    from perdure.errors import PayloadUnreadable as PayloadUnreadable
    from perdure.errors import PerdureError as PerdureError
    from perdure.errors import QueryFailed as QueryFailed
    from perdure.errors import Refused as Refused
    from perdure.errors import ResultTimeout as ResultTimeout
    from perdure.errors import RunCanceled as RunCanceled
    from perdure.errors import RunFailed as RunFailed
    from perdure.errors import RunNotFound as RunNotFound
    from perdure.errors import RunTerminated as RunTerminated
    from perdure.errors import RunTimedOut as RunTimedOut
    from perdure.errors import SerializationError as SerializationError
    from perdure.errors import StorageUnavailable as StorageUnavailable
    from perdure.errors import TaskCanceled as TaskCanceled
    from perdure.errors import TaskFailed as TaskFailed
    from perdure.errors import TaskTimedOut as TaskTimedOut
    from perdure.errors import Unavailable as Unavailable
    from perdure.errors import UnknownName as UnknownName
    from perdure.errors import UpdateFailed as UpdateFailed
    from perdure.errors import UpdateTimeout as UpdateTimeout
    from perdure.errors import WorkflowChangedError as WorkflowChangedError
    from perdure.errors import WorkflowError as WorkflowError
    from perdure.failures import RemoteError as RemoteError
    from perdure.flow import Channel as Channel
    from perdure.flow import all_of as all_of
    from perdure.flow import any_of as any_of
    from perdure.flow import branch as branch
    from perdure.flow import channel as channel
    from perdure.flow import completed as completed
    from perdure.flow import continue_as_new as continue_as_new
    from perdure.flow import info as info
    from perdure.flow import inline as inline
    from perdure.flow import logger as logger
    from perdure.flow import now as now
    from perdure.flow import patched as patched
    from perdure.flow import random as random
    from perdure.flow import set_attributes as set_attributes
    from perdure.flow import signal as signal
    from perdure.flow import sleep as sleep
    from perdure.flow import timer as timer
    from perdure.flow import uuid4 as uuid4
    from perdure.handle import Handle as Handle
    from perdure.handle import TaskHandle as TaskHandle
    from perdure.registry import Registry as Registry
    from perdure.retry import NonRetryable as NonRetryable
    from perdure.retry import Retry as Retry
    from perdure.retry import RetryLater as RetryLater
    from perdure.worker import Worker as Worker

_MODULES: dict[str, str] = {
    "client": "Client RunFilter RunPage",
    "context": "NotInTask TaskContext current_task",
    "errors": (
        "AlreadyInUse AlreadyStarted ChildCanceled ChildFailed ChildTimedOut CommandFailed DefinitionError "
        "EngineDefect InvalidArguments NamespaceNotServed NonDeterminism NotInWorkflow NotInstalled "
        "PayloadTooLarge PayloadUnreadable PerdureError QueryFailed Refused ResultTimeout RunCanceled RunFailed "
        "RunNotFound RunTerminated RunTimedOut SerializationError StorageUnavailable TaskCanceled TaskFailed "
        "TaskTimedOut Unavailable UnknownName UpdateFailed UpdateTimeout WorkflowChangedError "
        "WorkflowError"
    ),
    "failures": "RemoteError",
    "flow": (
        "Channel all_of any_of branch channel completed continue_as_new info inline logger now patched random "
        "set_attributes signal sleep timer uuid4"
    ),
    "handle": "Handle TaskHandle",
    "registry": "Registry",
    "retry": "NonRetryable Retry RetryLater",
    "worker": "Worker",
    "_replay.futures": "Deferred",
}
"""The public names, by module."""
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = [
    "AlreadyInUse",
    "AlreadyStarted",
    "Channel",
    "ChildCanceled",
    "ChildFailed",
    "ChildTimedOut",
    "Client",
    "CommandFailed",
    "Deferred",
    "DefinitionError",
    "EngineDefect",
    "Handle",
    "InvalidArguments",
    "NamespaceNotServed",
    "NonDeterminism",
    "NonRetryable",
    "NotInTask",
    "NotInWorkflow",
    "NotInstalled",
    "PayloadTooLarge",
    "PayloadUnreadable",
    "PerdureError",
    "QueryFailed",
    "Refused",
    "Registry",
    "RemoteError",
    "ResultTimeout",
    "Retry",
    "RetryLater",
    "RunCanceled",
    "RunFailed",
    "RunFilter",
    "RunNotFound",
    "RunPage",
    "RunTerminated",
    "RunTimedOut",
    "SerializationError",
    "StorageUnavailable",
    "Task",
    "TaskCanceled",
    "TaskContext",
    "TaskFailed",
    "TaskHandle",
    "TaskTimedOut",
    "Unavailable",
    "UnknownName",
    "UpdateFailed",
    "UpdateTimeout",
    "Worker",
    "Workflow",
    "WorkflowChangedError",
    "WorkflowError",
    "all_of",
    "any_of",
    "branch",
    "channel",
    "completed",
    "continue_as_new",
    "current_task",
    "info",
    "inline",
    "logger",
    "method",
    "now",
    "patched",
    "query",
    "random",
    "service",
    "service_stub",
    "set_attributes",
    "signal",
    "sleep",
    "task",
    "timer",
    "update",
    "uuid4",
    "workflow",
    "workflow_of",
]
"""Written out, for type checkers read no other."""


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module 'perdure' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"perdure.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
