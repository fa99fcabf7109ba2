"""Frames, pieces and tokens of clips, as the reference counts them."""

from __future__ import annotations

import pytest

from model.ultravox.lengths import (
    bucket_frames,
    count_mel_frames,
    num_audio_tokens,
    num_clip_tokens,
    piece_lengths,
)


@pytest.mark.parametrize(
    ("num_samples", "num_frames", "pieces", "tokens"),
    [
        (0, 2, [2], 1),
        (320, 2, [2], 1),
        (321, 3, [3], 1),
        (16_000, 100, [100], 7),
        (20_800, 130, [130], 9),
        (80_000, 500, [500], 32),
        (480_000, 3000, [3000], 188),
        (480_001, 3001, [3000, 1], 189),
        (31 * 16_000, 3100, [3000, 100], 195),
        (507_200, 3170, [3000, 170], 199),
    ],
)
def test_counts_of_a_clip_are_the_references(
    num_samples: int, num_frames: int, pieces: list[int], tokens: int
) -> None:
    assert count_mel_frames(num_samples) == num_frames
    assert piece_lengths(num_frames) == pieces
    assert num_clip_tokens(num_samples) == tokens


def test_another_stack_factor_changes_the_tokens_of_a_piece() -> None:
    assert num_audio_tokens(100, stack_factor=4) == 13


def test_a_phone_calls_lengths_come_in_few_widths() -> None:
    widths = {n: bucket_frames(n) for n in range(1, 12_001)}
    assert all(n <= width <= max(n * 1.125, n + 16) for n, width in widths.items())
    assert len(set(widths.values())) < 64
    assert all(bucket_frames(width) == width for width in widths.values())
