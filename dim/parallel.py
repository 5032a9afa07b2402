"""One model trained by several processes, a GPU each: `torchrun --nproc-per-node 4 -m dim.train`.

Each process encodes its share of a batch. The features are then gathered, with their gradient, and
every process computes the losses of the whole batch from them, with the same negatives and the same
noise: so losses and gradients are those of one process. What of a layer's own depends on the batch,
batch norm in the encoder, is so on CUDA (SyncBatchNorm); on the CPU its statistics are of a share.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dim.checkpoint import RunError
from dim.encoder import Features
from dim.model import DeepInfoMax


def processes() -> int:
    """How many train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which one this is; 0 writes and prints."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Together with the other processes that torchrun started, if it did.

    Raises:
        RunError: If there are more of them than GPUs.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    if device.type == "cuda":
        local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= count:
            raise RunError(
                f"nproc-per-node: expected at most {count}, the number of GPUs, received "
                f"{os.environ['LOCAL_WORLD_SIZE']}; lower it"
            )
        torch.cuda.set_device(local)
        dist.init_process_group("nccl", device_id=torch.device("cuda", local))
    else:
        dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def in_turn() -> Iterator[None]:
    """The first process is done with this before the others begin."""
    if rank() > 0:
        dist.barrier()
    yield
    if rank() == 0 and processes() > 1:
        dist.barrier()


def require_alike(epochs: int) -> None:
    """Refuse (RunError) to go on where processes have read other checkpoints, or none."""
    if processes() == 1:
        return
    found: list[int] = [0] * processes()
    dist.all_gather_object(found, epochs)
    if len(set(found)) > 1:
        raise RunError(
            f"out: expected a folder that all processes share, received one with {found} finished "
            f"epochs, process by process; put it where all machines see it"
        )


def shared(model: DeepInfoMax) -> nn.Module:
    """The model, to be called with everyone's images and labels.

    In training mode its encoder encodes this process's share, and gives the features of all.
    """
    if processes() == 1:
        return model
    if next(model.parameters()).is_cuda:
        model.encoder = nn.SyncBatchNorm.convert_sync_batchnorm(model.encoder)
    model.encoder.register_forward_pre_hook(_share_of_images)
    model.encoder.register_forward_hook(_gather_features)
    # A static graph may leave parameters out, as some priors do with z_log_var.
    return DistributedDataParallel(model, static_graph=True)


class Gather(torch.autograd.Function):
    """Rows of all processes, in the order of their ranks; a row's gradient is summed over them."""

    @staticmethod
    def forward(ctx: object, rows: Float[Tensor, "n ..."]) -> Float[Tensor, "N ..."]:
        """Concatenate; all must have as many rows."""
        rows = rows.contiguous()
        parts = [torch.empty_like(rows) for _ in range(processes())]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: object, gradient: Float[Tensor, "N ..."]) -> Float[Tensor, "n ..."]:
        """This process's rows of the sum."""
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(processes())[rank()]


def _share_of_images(encoder: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    if not encoder.training:
        return inputs
    return (inputs[0].chunk(processes())[rank()],)


def _gather_features(encoder: nn.Module, images: object, features: Features) -> Features:
    if not encoder.training:
        return features
    return Features(**{name: Gather.apply(part) for name, part in vars(features).items()})
