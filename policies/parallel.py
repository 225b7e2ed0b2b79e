"""Processes that train together: each has cells of its own, all have the same weights."""

import os
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing


class Group:
    """The processes of a run; alone, everything is what this process has.

    Attributes:
        rank: of this process; 0 writes checkpoints and draws the progress bar.
        size: number of processes.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    def everyone(self, value: Any) -> list[Any]:
        """What each process has, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def same_weights(self, module: torch.nn.Module) -> None:
        """Give every process the weights and buffers of rank 0."""
        for tensor in module.state_dict().values() if self.size > 1 else ():
            dist.broadcast(tensor, 0)

    def average_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """From now on every step takes the mean of all processes' gradients."""
        if self.size == 1:
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]

        def average(*_: Any) -> None:
            flat = torch.cat([p.grad.flatten() for p in parameters])
            dist.all_reduce(flat)
            for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                p.grad.copy_(part.view_as(p) / self.size)

        optimizer.register_step_pre_hook(average)


def run(work: Callable[..., Any], size: int, *args: Any) -> None:
    """Call `work(group, *args)` in `size` new processes; when one fails or is interrupted, all end.

    Raises:
        torch.multiprocessing.ProcessRaisedException: one of them raised; holds its traceback.
    """
    with tempfile.TemporaryDirectory(prefix="horseshoe-train-") as folder:
        multiprocessing.spawn(_join, (work, size, f"{folder}/meet", args), nprocs=size, daemon=True)


def _join(rank: int, work: Callable[..., Any], size: int, file: str, args: tuple[Any, ...]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=size)
    try:
        work(Group(rank, size), *args)
    finally:
        dist.destroy_process_group()
