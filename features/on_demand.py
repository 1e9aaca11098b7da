"""Features that only the moment of a request completes: one function, which training and serving both call.

What is in the store is what users did up to some instant; how long ago that was is known when somebody asks. Feast
holds the function as the on-demand feature view `user_moments`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

LONGEST_IDLE_HOURS = 720.0  # 30 days: who did nothing for longer is as one who did nothing yet
SESSION_SECONDS = 3600


def user_moments(behaviour_ts: Sequence[ArrayLike | None], asked: NDArray[np.float64]) -> dict[str, NDArray]:
    """What n users have just done.

    Args:
        behaviour_ts: seconds since 1970 of each user's behaviours, None or empty without any; those at or after the
            request do not count.
        asked: seconds since 1970 of the requests, (n,).

    Returns:
        `user_idle_hours`: since the newest behaviour, at most `LONGEST_IDLE_HOURS`, and that without any;
        `user_behaviours_1h`: behaviours of the last hour. float32, (n,).
    """
    histories = [np.asarray(() if each is None else each, np.float64) for each in behaviour_ts]
    owner = np.repeat(np.arange(len(histories)), [len(each) for each in histories])
    age = asked[owner] - np.concatenate([np.zeros(0), *histories])
    owner, age = owner[age > 0], age[age > 0]
    idle = np.full(len(histories), LONGEST_IDLE_HOURS)
    np.minimum.at(idle, owner, age / 3600)
    recent = np.bincount(owner[age <= SESSION_SECONDS], minlength=len(histories))
    return {"user_idle_hours": idle.astype(np.float32), "user_behaviours_1h": recent.astype(np.float32)}
