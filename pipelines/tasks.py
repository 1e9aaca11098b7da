"""Names of tasks: a step that stands in both branches makes the tasks `package` and `package-2`."""

import re


def step_of(task: str) -> str:
    """The step behind a task."""
    return re.sub(r"-\d+$", "", task)
