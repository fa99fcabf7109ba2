"""What a caller hears, from audio with arrival times."""

from __future__ import annotations

import numpy as np
import pytest

from tools.caller.ear import Cadence, Ear, Sound

FRAME_S = 0.02


def tone(num_samples: int = 160) -> bytes:
    return (np.tile([5000, -5000], num_samples // 2)).astype("<i2").tobytes()


def silence(num_samples: int = 160) -> bytes:
    return bytes(2 * num_samples)


def hear(ear: Ear, frames: list[bytes], from_s: float = 0.0) -> float:
    """Frames at their times; when the last one has been heard."""
    for number, frame in enumerate(frames):
        ear.on_arrival(from_s + number * FRAME_S, frame)
    return from_s + len(frames) * FRAME_S


class TestSounds:
    def test_a_sound_begins_and_ends_at_its_voiced_samples(self) -> None:
        ear = Ear()
        half = silence(80) + tone(80)
        hear(ear, [silence(), half, tone(), silence()] + [silence()] * 20)
        (sound,) = ear.sounds
        assert sound.start_s == pytest.approx(0.03)
        assert sound.end_s == pytest.approx(0.06)

    def test_a_gap_inside_a_word_does_not_end_it(self) -> None:
        ear = Ear()
        hear(ear, [tone()] + [silence()] * 10 + [tone()] + [silence()] * 20)
        assert len(ear.sounds) == 1

    def test_no_frames_at_all_are_quiet_too(self) -> None:
        ear = Ear()
        hear(ear, [tone()])
        ear.on_time(0.3)
        assert ear.is_hearing
        ear.on_time(0.5)
        assert ear.sounds == [Sound(0.0, 0.02)]

    def test_the_end_of_the_call_ends_a_sound(self) -> None:
        ear = Ear()
        hear(ear, [tone()] * 5)
        ear.finish()
        ear.finish()
        assert len(ear.sounds) == 1

    def test_news_are_told_once_with_their_times(self) -> None:
        ear = Ear()
        hear(ear, [tone()] * 2 + [silence()] * 20)
        assert ear.news() == [("heard-start", 0.0), ("heard-end", pytest.approx(0.04))]
        assert ear.news() == []

    def test_frames_that_come_together_are_heard_one_after_another(self) -> None:
        """The usual lead of 60 ms: three frames at once."""
        ear = Ear()
        for _ in range(3):
            ear.on_arrival(0.0, tone())
        ear.finish()
        assert ear.sounds[0].end_s == pytest.approx(0.06)
        assert ear.lost_s == 0

    def test_the_time_of_a_late_frame_is_given_back_in_silence(self) -> None:
        ear = Ear()
        at_s = hear(ear, [tone()] * 5)
        ear.on_arrival(at_s + 0.04, tone())
        at_s = hear(ear, [tone()] * 4 + [silence()] * 30, at_s + FRAME_S)
        hear(ear, [tone()], at_s)
        ear.finish()
        late, after = ear.sounds
        assert late.end_s == pytest.approx(0.24)
        assert after.start_s == pytest.approx(at_s)

    def test_what_comes_far_too_early_is_lost(self) -> None:
        """Asterisk neither paces nor queues: 4 s written at once are not heard."""
        ear = Ear()
        for _ in range(200):
            ear.on_arrival(0.0, tone())
        ear.finish()
        assert ear.sounds[0].end_s < 0.3
        assert ear.lost_s > 3.7

    def test_levels(self) -> None:
        ear = Ear()
        hear(ear, [silence(), tone(), silence()])
        assert ear.loud_since(0.0, 300) == pytest.approx(0.02)
        assert ear.loud_since(0.03, 300) is None
        assert ear.loud_since(0.0, 20_000) is None
        assert ear.last_above(300) == pytest.approx(0.04)
        assert ear.last_above(20_000) == 0

    def test_the_recording_has_everything_at_its_time(self) -> None:
        ear = Ear()
        ear.on_audio(1.0, tone())
        ear.on_audio(1.5, tone())
        recording = ear.pcm16(from_s=0.5)
        assert len(recording) // 2 == 8000 + 160
        assert recording[8000:8320] == tone()
        assert not any(recording[:8000])

    def test_the_recording_begins_where_it_is_asked_to(self) -> None:
        ear = Ear()
        ear.on_audio(1.0, tone())
        ear.on_audio(1.5, tone())
        assert ear.pcm16(from_s=1.4)[1600:] == tone()
        assert ear.pcm16(from_s=1.51) == tone()[160:]
        assert ear.pcm16(from_s=2.0) == b""

    def test_jitter_is_not_heard_as_clicks(self) -> None:
        ear = Ear()
        for number in range(50):
            ear.on_arrival(number * FRAME_S + 0.003 * (number % 2), tone())
        assert ear.pcm16() == tone() * 50


class TestCadence:
    def test_a_steady_stream_is_never_late(self) -> None:
        cadence = Cadence()
        for number in range(100):
            cadence.on_frame(number * FRAME_S, FRAME_S)
        assert (cadence.num_frames, cadence.num_late) == (100, 0)
        assert max(cadence.lateness_s) == pytest.approx(0, abs=1e-9)

    def test_a_stall_counts_once(self) -> None:
        cadence = Cadence()
        for number in range(50):
            stalled_s = 0.1 if number >= 20 else 0.0
            cadence.on_frame(number * FRAME_S + stalled_s, FRAME_S)
        assert cadence.num_late == 1
        assert max(cadence.lateness_s) == pytest.approx(0.1)
        assert cadence.max_gap_s == pytest.approx(0.12)

    def test_a_lead_covers_a_stall(self) -> None:
        cadence = Cadence()
        for _ in range(3):
            cadence.on_frame(0.0, FRAME_S)
        cadence.on_frame(0.06, FRAME_S)
        cadence.on_frame(0.07, FRAME_S)
        assert cadence.num_late == 0

    def test_a_pause_of_the_sender_is_not_lateness(self) -> None:
        cadence = Cadence()
        cadence.on_frame(0.0, FRAME_S)
        cadence.on_frame(2.0, FRAME_S)
        assert (cadence.num_late, cadence.num_pauses) == (0, 1)
        assert cadence.max_gap_s == pytest.approx(2.0)
