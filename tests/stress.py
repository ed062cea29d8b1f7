"""The tests several times in a row, while a process a core does nothing but keep it busy.

    python -m tests.stress 10

A test that waits for a moment, or compares with a clock, fails here first.
"""

import os
import subprocess
import sys
import time

from llmft import ROOT


COMMAND = [sys.executable, "-m", "pytest", "-q", "-n", "2"]

LIMIT = 3600
"""Seconds: a run that takes longer is ended, and so is what keeps a core busy, whatever happens."""

BUSY = """
import os, sys, time
parent, ends = os.getppid(), time.monotonic() + float(sys.argv[1])
while time.monotonic() < ends and os.getppid() == parent:
    pass
"""


def once(command: list[str] = COMMAND, limit: float = LIMIT) -> tuple[str, float, str]:
    """What became of one run, its seconds, and what it said."""
    busy = [
        subprocess.Popen([sys.executable, "-c", BUSY, str(limit)])
        for _ in range(os.cpu_count() or 1)
    ]
    started = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=limit
        )
        result, said = "failed" if done.returncode else "passed", done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        result, said = "too long", (error.stdout or b"").decode(errors="replace")
    finally:
        for process in busy:
            process.kill()
            process.wait()
    return result, time.monotonic() - started, said


def main(times: int) -> int:
    """The number of runs that did not pass."""
    failures = 0
    for number in range(1, times + 1):
        result, seconds, said = once()
        if result != "passed":
            failures += 1
            print(said)
        print(f"{number}/{times}: {result} in {seconds:,.0f} s", flush=True)
    return failures


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
