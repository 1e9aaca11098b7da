"""What a worker keeps of users between their requests: least recently used first out, within a budget of bytes.

A state belongs to a model and a user, and covers one version of the user's behaviours. The version is the behaviours
themselves: a store counts none, and two requests may be answered out of order. So a request reads from its own history
what of it a kept state covers (`History.new_since`), and nothing has to be invalidated.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class History:
    """Who asks, and what they have done: equal rows are equal behaviours."""

    user_id: str
    events: NDArray[np.int64]  # (B, ·), oldest first

    def new_since(self, old: NDArray[np.int64], longest: int) -> int | None:
        """How many of the newest behaviours `old` lacks, where the rest is what a window of `longest` keeps of it.

        None where it is not: behaviours were taken back, came in between, or all have left the window.
        """
        if not len(old) or not len(self.events):
            return len(self.events) if not len(old) else None
        for gone in np.flatnonzero((old == self.events[0]).all(axis=1)):
            kept = len(old) - gone
            new = len(self.events) - kept
            slid = max(0, len(old) + new - longest)
            if new >= 0 and gone == slid and np.array_equal(old[gone:], self.events[:kept]):
                return int(new)
        return None


class UserStates:
    """States by (model, user); thread-safe.

    Args:
        budget_bytes: of all states together; a state beyond it is not kept.
        changed: told the bytes and the number of states after each change, and how many were evicted by it.
    """

    def __init__(
        self, budget_bytes: int, changed: Callable[[int, int, int], None] = lambda size, states, evicted: None
    ):
        self._budget, self._changed = budget_bytes, changed
        self._states: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._states)

    def get(self, key: Hashable) -> Any | None:
        """The state, from now on the most recently used; None where there is none."""
        with self._lock:
            if key not in self._states:
                return None
            self._states.move_to_end(key)
            return self._states[key][0]

    def put(self, key: Hashable, state: Any, size_bytes: int) -> None:
        """Keep a state in place of the key's old one; the least recently used make room."""
        evicted = 0
        with self._lock:
            self.size_bytes -= self._states.pop(key, (None, 0))[1]
            if size_bytes <= self._budget:
                self._states[key] = (state, size_bytes)
                self.size_bytes += size_bytes
            while self.size_bytes > self._budget:
                self.size_bytes -= self._states.popitem(last=False)[1][1]
                evicted += 1
            self._changed(self.size_bytes, len(self._states), evicted)
