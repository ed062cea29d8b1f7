"""One kernel for many chapters: what a fresh one takes longest for is importing the libraries."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync
from papermill.clientwrap import PapermillNotebookClient

from llmft import params


@contextmanager
def one_kernel() -> Iterator[None]:
    """papermill executes every notebook in one kernel, which forgets all names before each.

    Imported modules stay, and what they remember. What `llmft run` tells a kernel by environment
    variables, this one is told before each notebook. Nor is a notebook of megabytes written before
    and after each of its cells, but at its end. All else is papermill's own doing: what it injects,
    how a cell fails, what a cell shows.
    """
    manager = AsyncKernelManager(kernel_name="python3")

    class Client(PapermillNotebookClient):
        def __init__(self, notebook: Any, **options: Any) -> None:
            super().__init__(notebook, km=manager, **options)

        def papermill_execute_cells(self) -> None:
            told = {name: os.environ[name] for name in (params.COLLECT, params.SINCE)}
            anew = f"import os; os.environ.update({told}); get_ipython().reset()"
            self.wait_for_reply(self.kc.execute(anew, silent=True))
            super().papermill_execute_cells()

        def execute(self, **options: Any) -> Any:
            try:
                return super().execute(**options)
            finally:
                if self.kc is not None:
                    self.kc.stop_channels()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("papermill.engines.PapermillNotebookClient", Client)
        patch.setattr("papermill.engines.write_ipynb", lambda *_: None)
        try:
            yield
        finally:
            if manager.has_kernel:
                run_sync(manager.shutdown_kernel)(now=True)
