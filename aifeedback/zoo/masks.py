"""Masks of pixels (H, W): rims and connected pieces. NumPy only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


def _neighbours(mask: Mask) -> list[Mask]:
    padded = np.pad(mask, 1)
    return [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]


def eroded(mask: Mask) -> Mask:
    """Without the pixels at its rim."""
    up, down, left, right = _neighbours(mask)
    return mask & up & down & left & right


def dilated(mask: Mask) -> Mask:
    """With the pixels around its rim."""
    up, down, left, right = _neighbours(mask)
    return mask | up | down | left | right


def components(mask: Mask) -> list[Mask]:
    """The 4-connected components of a mask, by joining the runs of neighbouring rows."""
    parent: list[int] = []
    runs: list[tuple[int, int, int]] = []

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    above: list[int] = []
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    for row in range(mask.shape[0]):
        starts, ends = np.flatnonzero(edges[row] == 1), np.flatnonzero(edges[row] == -1)
        here: list[int] = []
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            me = len(runs)
            runs.append((row, start, end))
            parent.append(me)
            here.append(me)
            for other in above:
                if runs[other][1] < end and start < runs[other][2]:
                    parent[root(other)] = root(me)
        above = here
    pieces: dict[int, Mask] = {}
    for i, (row, start, end) in enumerate(runs):
        pieces.setdefault(root(i), np.zeros_like(mask))[row, start:end] = True
    return list(pieces.values())


def shared_out(piece: Mask, seeds: list[Mask]) -> list[Mask]:
    """Give every pixel of a piece to the nearest seed."""
    where = np.argwhere(piece)
    nearest = [np.square(where[:, None] - np.argwhere(seed)[None]).sum(-1).min(axis=1) for seed in seeds]
    owner = np.argmin(np.stack(nearest), axis=0)
    shares = []
    for i in range(len(seeds)):
        share = np.zeros_like(piece)
        share[tuple(where[owner == i].T)] = True
        shares.append(share)
    return shares
