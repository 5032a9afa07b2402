"""A training step as one CUDA graph.

At batches of 64, starting hundreds of kernels takes far longer than running them. A graph starts
them at once: the same work on the same addresses, with the random numbers going on.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Int64
from torch import Tensor

WARM_UP = 3  # steps before recording, in which libraries choose kernels and optimisers their state

Returned = TypeVar("Returned")


def capture(
    step: Callable[[Tensor], Returned],
    batch: Int64[Tensor, " B"],
    *,
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> Callable[[Tensor], Returned]:
    """Record a step, and put everything back to where it was before.

    Args:
        step: Learns from the images of these numbers; must not read from the device, and its
            optimiser must be capturable.
        batch: An example; every batch must be as large.
        model: What the step changes, with
        optimiser: its state and
        generator: what it draws from.

    Returns:
        The step, replayed. What it returns is overwritten by the next one.
    """
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moments = {
        parameter: {name: value.clone() for name, value in state.items()}
        for parameter, state in optimiser.state.items()
    }
    random = generator.get_state()
    numbers = batch.clone()
    # Of the tensors' device, which need not be the current one: elsewhere a graph stays empty.
    aside, usual = torch.cuda.Stream(batch.device), torch.cuda.current_stream(batch.device)
    aside.wait_stream(usual)
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            step(numbers)
    usual.wait_stream(aside)

    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    optimiser.zero_grad()  # gradients are to lie in the graph's own memory
    with torch.cuda.graph(graph, stream=aside):
        returned = step(numbers)

    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(kept[name])
        for parameter, state in optimiser.state.items():
            for name, value in state.items():
                before = moments.get(parameter)
                value.copy_(before[name]) if before else value.zero_()
    generator.set_state(random)

    def replay(batch: Int64[Tensor, " B"]) -> Returned:
        numbers.copy_(batch)
        graph.replay()
        return returned

    return replay
