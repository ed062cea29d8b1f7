"""How the tests are run: in which order, by which worker, and what all of them may ask for."""

import gc
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from llmft import ROOT


LONG = (
    *("test_chapters", "test_runs", "test_cli", "test_site", "test_live", "test_distill"),
    *("test_fetch", "test_freeze", "test_pocket", "test_real", "test_recursion", "test_store"),
    *("test_sanity", "test_verify"),
)
"""Files whose tests run chapters, train, or start processes, the longest first.

They are begun first, so that no worker ends long after the other, and marked as slow.
"""


def pytest_configure(config: pytest.Config) -> None:
    """The tiny models, where tests are run: who only deals them out to workers needs no torch.

    Let what tests start and stop be stopped, also where pytest runs behind `nohup` or `&`: there a
    shell has signals ignored, which every process inherits; a handler is not inherited.
    Hypothesis tries the same examples each time: a test fails for what is there, not by luck.
    """
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("tests.tiny")
    settings.register_profile("same", derandomize=True, deadline=None)
    settings.load_profile("same")
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_runtest_setup() -> None:
    """A run collects garbage before it is measured: without the libraries' objects it is quick."""
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # pytest looks for what was not closed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))
    for item in items:
        if item.path.stem in order:
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A worker does a whole file, of the chapters' a whole profile: what they share is made once.

    pytest-xdist 3.8 has marks for this (`--dist loadgroup`), which pytest 9.2 does not see.
    """
    from xdist.scheduler import LoadScopeScheduling  # only where it is used

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            return test.partition("[")[0] if "test_chapters" in file else file

    config.option.loadscopereorder = False  # the order is as above
    return Scheduling(config, log)


SHARED = ROOT.parent / "shared"
"""Real data and vocabularies that some workplaces have beside the clone; nothing depends on it."""


@pytest.fixture
def shared() -> Path:
    """The folder of real data beside the clone; a test that asks for it is skipped without it."""
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}")
    return SHARED
