"""Masks drawn by hand."""

from __future__ import annotations

import numpy as np

from aifeedback.zoo.masks import Mask, components, dilated, eroded, shared_out


def mask(*rows: str) -> Mask:
    return np.array([[cell == "#" for cell in row] for row in rows])


def test_a_spiral_is_one_piece_and_a_diagonal_is_two() -> None:
    pieces = components(mask("####.", "...#.", "##.#.", "#..#.", "####.", "....#"))
    assert sorted(int(piece.sum()) for piece in pieces) == [1, 14]
    assert components(mask("...", "...")) == []


def test_rims() -> None:
    cross = mask(".....", "..#..", ".###.", "..#..", ".....")
    assert (eroded(cross) == mask(".....", ".....", "..#..", ".....", ".....")).all()
    assert (dilated(eroded(cross)) == cross).all()


def test_pixels_go_to_the_nearest_seed() -> None:
    left, right = mask("#......"), mask(".....#.")
    shares = shared_out(mask("#######"), [left, right])
    assert [int(share.sum()) for share in shares] == [3, 4]
    assert (shares[0] | shares[1]).all() and not (shares[0] & shares[1]).any()
