"""Dropout whose draws are a run's own, whatever the run is trained beside."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 (the usual name)
from torch.overrides import TorchFunctionMode


class Dropout(TorchFunctionMode):
    """What dropout drops in one update, drawn by each run's own seed.

    PyTorch's would draw for the whole stack from the process's generator, so that a run's result
    depended on its company. Here each run draws for its whole batch at that batch's own width,
    and of that the part in hand is taken: neither the stack nor accumulation changes it.

    Args:
        seeds: a run's numbers, which stand for its draws.
        update: which one; another draws anew.
        size: examples in a run's batch.
        widths: the longest prompt of each run's batch, in tokens.
        device: where the model is.
    """

    def __init__(
        self,
        seeds: Sequence[Sequence[int]],
        update: int,
        size: int,
        widths: Sequence[int],
        device: torch.device,
    ) -> None:
        super().__init__()
        self.seeds = [
            int(np.random.SeedSequence([*seed, update]).generate_state(1)[0]) for seed in seeds
        ]
        self.size, self.widths, self.device = size, list(widths), device
        self.run = torch.tensor(0, device=device)
        self.start = self.rows = self.width = 0
        self.generators: list[torch.Generator] = []

    def at(self, start: int) -> "Dropout":
        """From the example `start` of each batch on."""
        self.start = start
        self.generators = [torch.Generator(self.device).manual_seed(seed) for seed in self.seeds]
        return self

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every call of a torch function comes by here; all but dropout go on as they are."""
        if func is F.dropout:
            return self._drop(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _drop(
        self,
        x: torch.Tensor,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,  # noqa: ARG002 (as in torch's signature)
    ) -> torch.Tensor:
        """Drop from hidden states or attention weights.

        The former are (examples, width, hidden), which OPT flattens to (examples * width, hidden),
        the latter (examples, heads, width, width).
        """
        if not training or p == 0:
            return x
        template = [x.shape[1], None, None] if x.dim() == 4 else [None, x.shape[-1]]  # None: width
        kept = torch.zeros(
            len(self.seeds), self.rows, *_sized(template, self.width), device=self.device
        )
        for r, (width, generator) in enumerate(zip(self.widths, self.generators, strict=True)):
            drawn = torch.empty(self.size, *_sized(template, width), device=self.device)
            drawn.bernoulli_(1 - p, generator=generator).div_(1 - p)
            cut = [slice(min(width, self.width)) if n is None else slice(n) for n in template]
            rows = slice(self.start, self.start + self.rows)
            kept[r][(slice(None), *cut)] = drawn[(rows, *cut)]
        # One multiplication by numbers, not by booleans: a sixth of a training step's time.
        return x * kept.index_select(0, self.run.view(1)).view(x.shape).to(x.dtype)


def _sized(template: Sequence[int | None], width: int) -> list[int]:
    return [width if n is None else n for n in template]
