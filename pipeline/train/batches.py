"""What the training loop asks of a split: its batches, in random order or in its own.

A split on the device (`Batches`) is indexed. One that does not fit into memory is read batch by
batch: `photo_batches`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.data.dataset import Data, Places
from pipeline.train import device
from pipeline.train.distributed import own_rows, shared_generator

Pairs = Iterator[tuple[Tensor, Tensor]]  # inputs and targets of batch after batch, on the device


class Split(Protocol):
    """A split of any size, of which the loop sees batches."""

    def __len__(self) -> int:
        """Return the rows of the split."""

    def in_order(self, batch: int) -> Pairs:
        """Yield this process's rows in the split's order."""


class TrainingSplit(Split, Protocol):
    """The split that is trained on.

    x: inputs of the split, all or a sample of them, for statistics.
    """

    @property
    def x(self) -> Tensor: ...

    @property
    def device(self) -> torch.device:
        """Return where the batches are."""

    @property
    def in_memory(self) -> bool:
        """Return whether a batch is rows of `x`, unchanged."""

    @property
    def drawn(self) -> int:
        """Return how many rows an epoch has."""

    def pause(self, batch: int) -> int:
        """Return after how many steps an epoch may be interrupted, and be resumed there."""

    def shuffled(self) -> Tensor:
        """Return all row numbers in random order on the CPU, drawn from `shared_generator`."""

    def read(self, parts: Sequence[Tensor], seed: int | None) -> Pairs:
        """Yield the rows of each part.

        seed: of what is drawn for each row where the split itself cuts images; None: as served.
        """


@dataclass
class Batches:
    """A split on the device, with the network's inputs and the loss's targets.

    Images: x uint8 (N, C, H, W), y as `Data.y` has it.
    """

    x: Tensor
    y: Tensor

    @property
    def device(self) -> torch.device:
        return self.x.device

    @property
    def in_memory(self) -> bool:
        return True

    @property
    def drawn(self) -> int:
        return len(self)

    def __len__(self) -> int:
        return len(self.x)

    def in_order(self, batch: int) -> Pairs:
        yield from zip(*(own_rows(part).split(batch) for part in (self.x, self.y)), strict=True)

    def pause(self, batch: int) -> int:
        return len(self)  # an epoch in memory is short: it is resumed at its start

    def shuffled(self) -> Tensor:
        return torch.randperm(len(self), generator=shared_generator())

    def read(self, parts: Sequence[Tensor], seed: int | None) -> Pairs:
        numbers = device.send(torch.cat(list(parts)), self.device)  # in one copy
        for rows in numbers.split([len(part) for part in parts]):
            yield self.x[rows], self.y[rows]


def image_batches(source: Data, split: str, on: torch.device) -> Batches:
    """Return a split of images and their targets on the device."""
    images = torch.from_numpy(np.array(source.x[split])).permute(0, 3, 1, 2).contiguous()
    return Batches(images.to(on), torch.from_numpy(np.array(source.y[split])).to(on))


class WindowBatches:
    """A split of series on the device; its windows are cut from the rows batch by batch.

    Inputs are standardised (M, T, D), or with a calendar (M, T + S, D + F), where the D columns are
    0 in the last S rows; targets (M, S, targets) are the first columns of the last S rows.
    """

    def __init__(
        self,
        rows: Tensor,
        places: Places,
        context: int,
        columns: int,
        targets: int,
        drawn: int | None = None,
    ):
        """rows: (R, D + F). columns: D. drawn: the windows of an epoch, None for all."""
        self.rows, self.stride, self.count, self.device = (
            rows,
            places.stride,
            len(places),
            rows.device,
        )
        self.context, self.columns, self.targets = context, columns, targets
        self.drawn = min(drawn or self.count, self.count)
        ends, shifts = (torch.from_numpy(one) for one in (places.ends, places.shifts))
        self.ends, self.shifts = ends.to(self.device), shifts.to(self.device)
        self.steps = torch.arange(places.length, device=self.device)

    def __len__(self) -> int:
        return self.count

    @property
    def x(self) -> Tensor:
        """No image, of which statistics would be taken."""
        return self.rows[:0]

    @property
    def in_memory(self) -> bool:
        return False

    def in_order(self, batch: int) -> Pairs:
        numbers = torch.arange(self.count, device=self.device)
        return self.read(own_rows(numbers).split(batch), None)

    def pause(self, batch: int) -> int:
        return self.count

    def shuffled(self) -> Tensor:
        """Return all windows in random order; or N, one of each of N equal parts of the windows.

        Then memory is needed for N numbers, and none is drawn twice.
        """
        generator = shared_generator()
        order = torch.randperm(self.drawn, generator=generator)
        if self.drawn < self.count:
            first, end = (part * self.count // self.drawn for part in (order, order + 1))
            places = torch.rand(self.drawn, dtype=torch.float64, generator=generator)
            order = first + (places * (end - first)).long()
        return device.send(order, self.device)

    def read(self, parts: Sequence[Tensor], seed: int | None) -> Pairs:
        return (self.cut(windows) for windows in parts)

    def cut(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of windows (M,), by number."""
        series = torch.searchsorted(self.ends, windows, right=True)
        rows = (self.stride * windows + self.shifts[series])[:, None] + self.steps  # (M, T + S)
        targets = self.rows[rows[:, self.context :], : self.targets]
        if self.rows.shape[1] == self.columns:
            return self.rows[rows[:, : self.context]], targets
        both = self.rows[rows]
        both[:, self.context :, : self.columns] = 0
        return both, targets
