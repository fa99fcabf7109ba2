"""Log-mel features of 16 kHz speech, equal to Whisper's feature extractor.

Each clip of a batch gets exactly what it would get alone: it is reflected at its own
edges and scaled by its own loudest bin, over the whole clip and not per 30 s piece.

Shapes: A clips, M mel bins, F mel frames (100 a second).

Source: transformers `models/whisper/feature_extraction_whisper.py`; called by
fixie-ai/ultravox `ultravox_processing.py` with padding to one hop, no truncation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from model.ultravox.lengths import HOP_SAMPLES, RATE_HZ, bucket_frames, count_mel_frames

if TYPE_CHECKING:
    from collections.abc import Sequence

_WINDOW_SAMPLES = 400  # 25 ms
_EDGE_SAMPLES = _WINDOW_SAMPLES // 2  # reflected at both ends, so frames are centred


class LogMel(nn.Module):
    """Waves -> log-mel, for any number of clips of any length at once."""

    window: Tensor
    filters: Tensor

    def __init__(self, num_mel_bins: int) -> None:
        super().__init__()
        filters = mel_filter_bank(
            num_frequency_bins=1 + _WINDOW_SAMPLES // 2,
            num_mel_filters=num_mel_bins,
            min_frequency=0.0,
            max_frequency=RATE_HZ / 2,
            sampling_rate=RATE_HZ,
            norm="slaney",
            mel_scale="slaney",
        )
        window = torch.hann_window(_WINDOW_SAMPLES)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer(
            "filters",
            torch.from_numpy(filters.T.copy()).float(),  # (M, 201)
            persistent=False,
        )

    def forward(self, waves: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Waves (n_samples,) float32 in [-1, 1] -> (A, M, F) and frames (A,).

        F is the longest clip's; features past a clip's end are zero. Always float32:
        power spectra do not fit in half precision.
        """
        device = self.window.device
        counts = [count_mel_frames(len(wave)) for wave in waves]
        padded_frames = bucket_frames(max(counts))
        width = padded_frames * HOP_SAMPLES + 2 * _EDGE_SAMPLES
        rows = torch.stack(
            [
                F.pad(edged, (0, width - len(edged)))
                for edged in (
                    _reflect_edges(wave.to(device, torch.float32), count)
                    for wave, count in zip(waves, counts, strict=True)
                )
            ]
        )
        spectrum = torch.stft(
            rows,
            _WINDOW_SAMPLES,
            HOP_SAMPLES,
            window=self.window,
            center=False,
            return_complex=True,
        )[..., :-1]  # (A, 201, F); Whisper drops the last frame
        power = spectrum.abs().square().contiguous()
        log_mel = (self.filters @ power).clamp(min=1e-10).log10()  # (A, M, F)

        num_mel_frames = torch.tensor(counts, device=device)
        in_clip = torch.arange(padded_frames, device=device) < num_mel_frames[:, None]
        in_clip = in_clip[:, None, :]
        loudest = log_mel.masked_fill(~in_clip, -torch.inf).amax((1, 2), keepdim=True)
        log_mel = torch.maximum(log_mel, loudest - 8.0)  # 80 dB below the loudest
        scaled = ((log_mel + 4.0) / 4.0) * in_clip
        return scaled[:, :, : max(counts)], num_mel_frames


def _reflect_edges(wave: Tensor, num_mel_frames: int) -> Tensor:
    """Pad to whole hops with zeros, then mirror 12.5 ms at both ends."""
    padded = F.pad(wave, (0, num_mel_frames * HOP_SAMPLES - len(wave)))
    edged = F.pad(padded[None, None], (_EDGE_SAMPLES, _EDGE_SAMPLES), mode="reflect")
    return edged[0, 0]
