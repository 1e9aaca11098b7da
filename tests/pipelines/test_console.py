"""The console tells steps apart in the runner's output and finds the message that matters."""

import io

from pipelines.console import StepConsole, error_of

OUTPUT = """\
02:16:26.923 - INFO - Running pipeline: \x1b[95m'main'\x1b[0m
02:16:26.923 - INFO - Executing task \x1b[96m'package-2'\x1b[0m
02:16:26.923 - INFO - Streamed logs:

    [KFP Executor 2026-11-22 02:16:26,989 INFO]: Got executor_input:
    {
        "inputs": {}
    }
    package: 50%, 1 of 2 models
    Traceback (most recent call last):
      File "x.py", line 1
    uniscale.errors.DataError: no file x: run its step
      with a second line
    [KFP Executor 2026-11-22 02:16:26,989 INFO]: Wrote executor output file to x.

02:16:26.921 - INFO - Task \x1b[96m'package-2'\x1b[0m finished with status \x1b[91mFAILURE\x1b[0m
"""


def feed(text: str, pieces: int) -> tuple[StepConsole, list[str], io.StringIO]:
    shown: list[str] = []
    log = io.StringIO()
    console = StepConsole(log, shown.append)
    size = -(-len(text) // pieces)
    for start in range(0, len(text), size):
        console.write(text[start : start + size])
    return console, shown, log


def test_a_failed_step_is_recorded_with_its_message_however_the_output_is_cut() -> None:
    for pieces in (1, 7, len(OUTPUT)):
        console, shown, log = feed(OUTPUT, pieces)
        record = console.records["package"]
        assert record.status == "failed"
        assert error_of(record) == "no file x: run its step\n  with a second line"
        assert log.getvalue() == OUTPUT
        assert any("package: 50%, 1 of 2 models" in line for line in shown)
        assert not any("inputs" in line for line in shown)


def test_however_far_a_steps_output_is_indented_its_message_is_found() -> None:
    for indent in (0, 8, 12):
        console, shown, _ = feed(OUTPUT.replace("\n    ", "\n" + " " * indent), 3)
        assert error_of(console.records["package"]) == "no file x: run its step\n  with a second line"
        assert any("package: 50%, 1 of 2 models" in line for line in shown)
        assert not any("inputs" in line for line in shown)


def test_a_step_without_a_message_says_so() -> None:
    console, _, _ = feed(
        OUTPUT.split("    [KFP")[0] + "02:16:26.9 - INFO - Task 'package' finished with status FAILURE\n", 1
    )
    assert "without a message" in error_of(console.records["package"])


def test_what_a_killed_step_or_another_turn_of_a_loop_left_behind_is_not_the_next_ones() -> None:
    killed, failed = OUTPUT.split("    }\n")[0] + "\n", OUTPUT.replace("package-2", "other")
    for before in (killed, OUTPUT.replace("\n    ", "\n            ")):
        console, _, _ = feed(before + failed, 1)
        assert error_of(console.records["other"]) == "no file x: run its step\n  with a second line"
    done = "02:16:27.0 - INFO - Executing task 'package'\n"
    done += "02:16:27.1 - INFO - Task 'package' finished with status SUCCESS\n"
    for text, status, lines in ((done + OUTPUT, "failed", 5), (OUTPUT + done, "failed", 5), (done + done, "done", 0)):
        console, _, _ = feed(text, 1)
        record = console.records["package"]
        assert (record.status, len(record.lines)) == (status, lines)
