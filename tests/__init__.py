"""The tests. One thread a process: they compute on small models, and two workers share two cores.

Threads that wait for each other spin: with two threads in each of two busy processes, scoring's
tests took ten times the processor's time. Set here, before anything imports torch, and inherited by
every process that a test starts.
"""

import os


for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
