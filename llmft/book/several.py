"""Several chapters at once, each in a process of its own, after those whose results it reads."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from graphlib import TopologicalSorter
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

from llmft import params
from llmft.book import stamp


def at_once() -> int:
    """How many chapters run at once when nobody says: two on two cores, one with a GPU.

    More would gain nothing, as each shares its runs among the cores that it has. Chapters that
    share a GPU would measure each other's memory and seconds. A fork is safe on Linux alone.
    """
    has_gpu = Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()
    alone = sys.platform != "linux" or has_gpu
    return 1 if alone else min(2, len(os.sched_getaffinity(0)))


def reads(paths: Sequence[Path]) -> dict[Path, set[Path]]:
    """Each chapter with those of them whose results it reads."""
    stems = {path.stem: path for path in paths}
    found = {}
    for path in paths:
        names = stamp.files_named(stamp.read(path))
        others = {Path(name).stem for name in names if Path(name).parts[:2] == ("data", "results")}
        found[path] = {stems[stem] for stem in others & stems.keys() if stem != path.stem}
    return found


def published(path: Path) -> int:
    """Bytes of results that the chapter last published: a rough measure of how long it takes."""
    file = path.parent.parent / "data/results" / f"{path.stem}.csv"
    return file.stat().st_size if file.is_file() else 0


def run(
    paths: Sequence[Path],
    is_needed: Callable[[Path], bool],
    work: Callable[[Path], None],
    number: int,
) -> None:
    """Do `work` for each chapter that needs it, `number` at once; 1 is here, in their order.

    Of those that can begin, the longest begins first: else one core would wait for it at the end.
    Whether it is needed is asked when what the chapter reads is there. The first error ends the
    others, and is raised.
    """
    if number == 1 or len(paths) == 1:
        for path in filter(is_needed, paths):
            work(path)
        return
    waiting = TopologicalSorter(reads(paths))
    waiting.prepare()
    running: dict[Any, Path] = {}
    # Nothing has imported torch here, whose threads would not survive the fork.
    with ProcessPoolExecutor(number, get_context("fork"), _begin, (number,)) as pool:
        try:
            while waiting.is_active():
                for path in sorted(waiting.get_ready(), key=published, reverse=True):
                    if is_needed(path):
                        running[pool.submit(_one, work, path)] = path
                    else:
                        waiting.done(path)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    waiting.done(running.pop(future))
                    future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.terminate()
            raise


_ended: list[int] = []
"""The signals that asked this process to end."""


def _begin(number: int) -> None:
    """A chapter's process shares the cores, and leaves it to the first process to say why it ends.

    Ctrl-C goes to both of them; the first one then ends this one, which puts away what it began.
    """
    os.environ[params.AT_ONCE] = str(number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, _: object) -> None:
    _ended.append(number)
    logging.disable()  # as in `cli`
    sys.exit(1)


def _one(work: Callable[[Path], None], path: Path) -> None:
    """The work, unless this process was asked to end: some chapters wait for it already."""
    if not _ended:
        work(path)
