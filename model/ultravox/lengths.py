"""How many mel frames, pieces and tokens a clip makes.

    samples = max(n, 320), rounded up to whole hops of 160
    frames  = samples / 160                  100 a second
    pieces  = frames cut into runs of 3000   30 s, the encoder's position table
    tokens  = sum(ceil(f / 16) for f in pieces)   one per 160 ms

Source: fixie-ai/ultravox `ultravox/model/ultravox_processing.py`.
"""

from __future__ import annotations

RATE_HZ = 16_000
HOP_SAMPLES = 160  # 10 ms
MIN_SAMPLES = 2 * HOP_SAMPLES  # the reference pads shorter clips to two hops
MAX_PIECE_FRAMES = 3000
FRAMES_PER_ENCODER_STATE = 2  # the encoder's second convolution has stride 2


def count_mel_frames(num_samples: int) -> int:
    """Mel frames of a clip: whole hops, at least two."""
    return -(-max(num_samples, MIN_SAMPLES) // HOP_SAMPLES)


def piece_lengths(num_mel_frames: int, limit: int = MAX_PIECE_FRAMES) -> list[int]:
    """How a clip is cut for the encoder: runs of `limit` mel frames and the rest."""
    whole, rest = divmod(num_mel_frames, limit)
    return [limit] * whole + [rest] * (rest > 0)


def bucket_frames(num_mel_frames: int) -> int:
    """The width of the tensors that hold so many mel frames, at most an eighth more.

    Eight widths an octave: speech up to 30 s comes in 44 shapes and not in 3000, so a
    library that prepares a kernel or a plan for every new shape is soon done with it.
    """
    octave = max(128, 1 << max(1, num_mel_frames - 1).bit_length() - 1)
    step = octave // 8
    return -(-num_mel_frames // step) * step


def num_audio_tokens(num_mel_frames: int, stack_factor: int = 8) -> int:
    """Tokens of one piece (at most 30 s): one per 160 ms or part of it."""
    return -(-num_mel_frames // (FRAMES_PER_ENCODER_STATE * stack_factor))


def num_clip_tokens(num_samples: int, stack_factor: int = 8) -> int:
    """Tokens of a whole clip of any length."""
    pieces = piece_lengths(count_mel_frames(num_samples))
    return sum(num_audio_tokens(frames, stack_factor) for frames in pieces)
