"""What can go wrong with the embedded stack."""

from __future__ import annotations


class StackError(Exception):
    """The embedded stack cannot do what was asked; the message says why and what to do next."""


class JarError(StackError):
    """A pinned jar is missing, cannot be fetched, or is not the file that the lock describes."""


class PortTakenError(StackError):
    """Another program listens on a port that a service of the stack needs."""


class ServiceDiedError(StackError):
    """A service ended by itself; the message holds the last lines of its log."""


class NotReadyInTimeError(StackError):
    """A service runs but did not become ready in time."""


class MemoryShortError(StackError):
    """The machine has too little free memory to start the stack."""


class StateFileError(StackError):
    """The record of what was started cannot be read, so nothing can be stopped safely."""
