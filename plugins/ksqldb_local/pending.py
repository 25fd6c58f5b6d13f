"""Waiting for what a statement sets off in other threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout


class Pending:
    """Waits for several effects, then tells once how they ended."""

    def __init__(
        self, effects: list[Future[None]], finish: Callable[[BaseException | None], None]
    ) -> None:
        self._effects = effects
        self._left = len(effects)
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._finish = finish
        if not effects:
            finish(None)
        for effect in effects:
            effect.add_done_callback(self._done)

    def _done(self, effect: Future[None]) -> None:
        with self._lock:
            self._error = self._error or effect.exception()
            self._left -= 1
            last = self._left == 0
        if last:
            self._finish(self._error)

    def wait(self, timeout_s: float) -> bool:
        """Wait for all of them; False when some are still under way after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        for effect in self._effects:
            try:
                effect.exception(timeout=max(0.0, deadline - time.monotonic()))
            except FutureTimeout:
                return False
        return True
