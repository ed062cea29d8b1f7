"""What the measurements share: clocks, tables, and OPT-125m's published shape."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from llmft import UserError


def timed(work: Callable[[], Any]) -> tuple[tuple[float, float], Any]:
    """(Wall seconds, this process's CPU seconds) of `work`, and what it returned."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - wall, time.process_time() - cpu), result


def table(found: Mapping[str, Any]) -> str:
    """Markdown rows, a name and its value each."""
    return "\n".join(
        f"| {name.replace('_', ' ')} | {shown(value)} |" for name, value in found.items()
    )


def shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def machine(threads: int) -> dict[str, Any]:
    return {"threads": threads, "torch": torch.__version__, "cores": os.cpu_count()}


def files(folder: Path, names: Sequence[str]) -> list[Path]:
    """Where each of `names` is: in `folder`, or in `data` in it.

    Raises:
        UserError: some are in neither.
    """
    paths = {
        name: next((path for r in (folder, folder / "data") if (path := r / name).exists()), None)
        for name in names
    }
    if missing := [name for name, path in paths.items() if path is None]:
        raise UserError(f"{folder} lacks {', '.join(missing)}: name the folder with --data")
    return [path for path in paths.values() if path]


def opt_125m(folder: Path) -> tuple[Any, Any]:
    """OPT-125m's shape with random weights, in evaluation mode, and its tokenizer.

    Raises:
        UserError: `folder` has no `opt/opt-125m` or `opt/tokenizer`.
    """
    shape, vocabulary = files(folder, ["opt/opt-125m", "opt/tokenizer"])
    torch.manual_seed(0)
    config: Any = transformers.OPTConfig.from_pretrained(str(shape))
    config.dtype = torch.float32
    model: Any = transformers.OPTForCausalLM(config)
    return model.float().eval(), transformers.AutoTokenizer.from_pretrained(str(vocabulary))
