"""Processes that work on one thing together: what they ask each other, and how they start and end."""

import multiprocessing
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from horseshoe.errors import HorseshoeError

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """The processes of a run as one of them sees them; alone, nothing is exchanged.

    All of them must call the same methods in the same order.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    def gather(self, value: T) -> list[T]:
        """Everybody's value by rank, the same list everywhere."""
        if self.size == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def collect(self, value: T) -> list[T]:
        """Everybody's value by rank on rank 0, nothing elsewhere: for what is large."""
        if self.size == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.size if self.rank == 0 else []
        distributed.gather_object(value, values if self.rank == 0 else None)
        return values

    def copy(self, tensors: Sequence[Any]) -> None:
        """Overwrite tensors with those of rank 0."""
        if self.size > 1:
            from torch import distributed

            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def average(self, tensors: Sequence[Any]) -> None:
        """Overwrite tensors with their mean over the processes, bit-equal everywhere: each number is added up once."""
        if self.size > 1:
            import torch
            from torch import distributed

            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            distributed.all_reduce(flat)
            parts = (flat / self.size).split([tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))


def run(work: Callable[..., Any], size: int, *args: Any) -> None:
    """Call `work(group, *args)` in `size` new processes on this machine; when one fails or Ctrl-C comes, all end.

    Raises:
        HorseshoeError: a process raised one.
        RuntimeError: a process raised anything else; it holds the traceback.
    """
    import torch.multiprocessing as torch_processes

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # inherited: a core each, for numpy's products too
    failures = torch_processes.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        context = torch_processes.spawn(
            _enter, (work, size, Path(folder) / "meeting", failures, args), nprocs=size, join=False, daemon=True
        )
        try:
            while not context.join():
                pass
        except torch_processes.ProcessRaisedException as error:
            # The others fail because the first one is gone; theirs may be the errors that torch saw first.
            refused, text = failures.get()
            raise HorseshoeError(text) if refused else RuntimeError(f"a process failed:\n{text}") from error
        finally:
            for process in context.processes:
                process.kill()  # they keep nothing that is not on disk; no effect on those that have ended
            for process in context.processes:
                process.join()


def _enter(rank: int, work: Callable[..., Any], size: int, meeting: Path, failures: Any, args: tuple[Any, ...]) -> None:
    from torch import distributed

    threading.Thread(target=_follow_parent, daemon=True).start()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    try:
        distributed.init_process_group("gloo", init_method=meeting.as_uri(), rank=rank, world_size=size)
        work(Group(rank, size), *args)
        distributed.barrier()  # nobody leaves while another still talks to it
        distributed.destroy_process_group()
    except Exception as error:
        refused = isinstance(error, HorseshoeError)
        text = str(error) if refused else traceback.format_exc()
        failures.put((refused, text[-10_000:]))  # a pipe that is full would block
        raise


def _follow_parent() -> None:
    """End with the process that started this one, even if that is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
