"""What ports raise, by whose fault it is. Users meet some of it, so it has the base of all that they meet."""

from __future__ import annotations


class PerdureError(Exception):
    """Base of everything Perdure raises, but for control flow."""


class PerdureRuntimeError(PerdureError):
    """Base of what the runtime raises."""


class UnknownOutcome(PerdureRuntimeError):
    """A conditional write was sent and not answered: it may be applied, lost, or applied later. Reload; never guess."""


class StorageUnavailable(PerdureRuntimeError):
    """The store or broker cannot work now: unreachable, or its disk is full. Nothing was applied; try again later."""


class UnfitDatabase(StorageUnavailable):
    """A file that is no database of Perdure, or that of a later release. Nothing in it was changed."""


class StorageContradiction(PerdureRuntimeError):
    """A write contradicts what is stored: a defect of its writer. Nothing was applied, and no later try will be."""


class MessageTooLarge(PerdureRuntimeError):
    """A message is over the limit. Make the value smaller, or pass a reference to it instead."""


class AlreadyInUse(PerdureRuntimeError):
    """Another process holds this database. Stop it, or give this one another file with --db."""


class InvalidCursor(PerdureRuntimeError, ValueError):
    """A cursor that no page has given. Pass the one of the page before, or none for the first."""


class EngineDefect(PerdureRuntimeError):
    """The engine failed at what it was asked for, by a defect of its own: its log has the traceback."""


class Undecodable(PerdureRuntimeError):
    """Bytes that are no message of this contract version."""
