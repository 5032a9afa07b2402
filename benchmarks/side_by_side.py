"""Processes side by side, one thread each."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import torch

Job = TypeVar("Job")
Result = TypeVar("Result")


def side_by_side(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[Result]:
    """The results of all jobs, in their order; with one worker, in this process."""
    if workers == 1:
        torch.set_num_threads(1)
        yield from map(work, jobs)
        return
    # Spawned, not forked: neither CUDA nor torch's threads survive a fork. One thread each: at
    # these sizes a second one costs more than it brings.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
        yield from pool.map(work, jobs)
