"""What a run took of the machine, and which machine it was."""

import contextlib
import ctypes
import gc
import platform
import re
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


@contextlib.contextmanager
def peak_memory(device: torch.device, *, clear: bool = True) -> Iterator[dict[str, Any]]:
    """The most memory in use at once while the block runs, filled in when it ends.

    What earlier work left is first given back, unless `clear` is false. `peak_memory_mib`;
    `memory_before_mib`, what of it was there when the block began; and `memory_kind`, which says
    what was counted:
    "device": what torch allocated on the CUDA device, the model's weights included;
    "resident": this process's resident memory, libraries and model included (Linux: the kernel's
    own high-water mark, set back when the block begins);
    "resident since start": the same where the mark cannot be set back, so of the whole process.
    """
    found: dict[str, Any] = {}
    if clear:
        gc.collect()  # what earlier runs left is not this run's
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device) / 2**20
        yield found
        peak, kind = torch.cuda.max_memory_allocated(device) / 2**20, "device"
    else:
        if clear:
            with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
                ctypes.CDLL(None).malloc_trim(0)
        try:
            Path("/proc/self/clear_refs").write_text("5")  # 5: reset VmHWM, see proc(5)
            kind = "resident"
        except OSError:
            kind = "resident since start"
        before = _resident_peak()
        yield found
        peak = _resident_peak()
    found |= {"peak_memory_mib": peak, "memory_before_mib": before, "memory_kind": kind}


def _resident_peak() -> float:
    """The high-water mark of this process's resident memory, MiB."""
    with contextlib.suppress(OSError, IndexError):
        status = Path("/proc/self/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one CPU thread while the block runs.

    A small model's matrices are too small to share: two threads are hardly faster than one, and
    wait for each other when another process wants the core (twenty times as long, measured). One
    also adds up in one order: the same digits on any number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def clock(device: torch.device) -> tuple[float, str]:
    """A time in seconds, to be subtracted from a later one, and whose it is.

    "processor": the time that this process has computed, on the CPU with one thread. What other
    programs take of a busy machine is not in it. "wall": the time that has passed, with several
    threads or on a GPU.
    """
    if device.type == "cpu" and torch.get_num_threads() == 1:
        return time.process_time(), "processor"
    return time.perf_counter(), "wall"


def device_name(device: torch.device) -> str:
    """The hardware's own name, such as "NVIDIA H200" or the processor's model."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    with contextlib.suppress(OSError):
        if found := re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text()):
            return found[1].strip()
    return platform.processor() or platform.machine()
