"""What a person sees of a local run: one line a step, its progress, and the error that ended it; the rest is logged."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

from rich.markup import escape

from pipelines.tasks import step_of

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
STARTED = re.compile(r"Executing task '(?P<step>[\w-]+)'")
ENDED = re.compile(r"Task '(?P<step>[\w-]+)' finished with status (?P<status>\w+)")
HIT = re.compile(r"^Task (?P<step>[\w-]+) cache hit")
RUNNER_LINE = re.compile(r"^\d\d:\d\d:\d\d\.\d+ - (INFO|WARNING|ERROR) - ")
PRINTED_INDENT = 4  # how the runner prints what a step says
PROGRESS = re.compile(r"^[a-z][\w -]*: ")  # what our steps print; the chatter of libraries is left to the log


@dataclass
class StepRecord:
    """How one step went; of a loop, its last turn, or the first that failed, and the seconds of all."""

    name: str
    seconds: float = 0.0
    status: str = "running"
    lines: list[str] = field(default_factory=list)


class StepConsole:
    """A stream that takes everything the local runner prints, logs it whole, and tells steps apart.

    It reads the runner's own messages (kfp 2.17.0): 'Executing task …' and 'Task … finished with status …'; what a
    step itself prints arrives indented by four spaces, or by any other number once a loop has run: its threads replace
    the one `print` of the process and put it back in any order. The executor's own lines show how far. `failed` is
    told of a step that failed before the next one begins, the exit handler included.
    """

    def __init__(self, log: TextIO, show: Callable[[str], None], failed: Callable[[StepRecord], None] | None = None):
        self.log, self.show, self.failed = log, show, failed
        self.records: dict[str, StepRecord] = {}
        self.current: StepRecord | None = None
        self.started = 0.0
        self.partial = ""
        self.in_executor_input, self.indent = False, PRINTED_INDENT

    def write(self, text: str) -> int:
        """Take a piece of output; whole lines are interpreted."""
        self.log.write(text)
        *lines, self.partial = (self.partial + text).split("\n")
        for line in lines:
            self._line(COLOUR.sub("", line))
        return len(text)

    @contextmanager
    def hits(self) -> Iterator[None]:
        """Keep what the runner tells the root logger alone: what is taken from the cache, and its warnings."""
        root, handler = logging.getLogger(), logging.Handler()
        handler.emit = self._hit  # type: ignore[method-assign]
        level = root.level
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        try:
            yield
        finally:
            root.setLevel(level)
            root.removeHandler(handler)

    def _hit(self, record: logging.LogRecord) -> None:
        if found := HIT.match(record.getMessage()):
            name = step_of(found["step"])
            self.records.setdefault(name, StepRecord(name, status="cached"))
        elif record.levelno >= logging.WARNING:
            self.log.write(f"{record.getMessage()}\n")

    def flush(self) -> None:
        """Flush the log."""
        self.log.flush()

    def isatty(self) -> bool:
        """Never a terminal: what is shown goes through `show`."""
        return False

    def _line(self, line: str) -> None:
        if RUNNER_LINE.match(line):
            if found := STARTED.search(line):
                self._begin(step_of(found["step"]))
            elif found := ENDED.search(line):
                self._end(found["status"])
        elif self.current is not None:
            self._of_step(line.rstrip())

    def _begin(self, name: str) -> None:
        self.started = time.monotonic()
        self.in_executor_input, self.indent = False, PRINTED_INDENT  # as a killed step may have left them
        before = self.records.get(name)
        self.current = StepRecord(name, before.seconds if before else 0.0)
        if before is None or before.status != "failed":  # the turns after a failed one run all the same
            self.records[name] = self.current
        self.show(f"[bold]{name}[/bold]")

    def _end(self, status: str) -> None:
        assert self.current is not None
        self.current.seconds = round(self.current.seconds + time.monotonic() - self.started, 2)
        self.current.status = "done" if status == "SUCCESS" else "failed"
        self.show(f"[bold]{self.current.name}[/bold] {self.current.status} in {self.current.seconds:.1f} s")
        if self.current.status == "failed" and self.failed:
            self.failed(self.current)
        self.current = None

    def _of_step(self, line: str) -> None:
        assert self.current is not None
        if "[KFP Executor" in line:
            self.indent = len(line) - len(line.lstrip())
            self.in_executor_input = line.endswith("Got executor_input:")
            return
        line = line.removeprefix(" " * self.indent)
        if self.in_executor_input:
            self.in_executor_input = line != "}"
        elif line:
            self.current.lines.append(line)
            if PROGRESS.match(line):
                self.show(f"[dim]  {self.current.name}: {escape(line)}[/dim]")


def error_of(record: StepRecord) -> str:
    """The message of the exception that ended a step: the last line that names an error, with what follows it."""
    for index in range(len(record.lines) - 1, -1, -1):
        if re.match(r"^[\w.]*(Error|Exception|Interrupt|Exit)\b", record.lines[index]):
            return "\n".join(record.lines[index:]).split(": ", 1)[-1]
    return "\n".join(record.lines[-5:]) or "it ended without a message (killed, or out of memory?)"
