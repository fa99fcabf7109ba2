"""The wheel: who gets frames, what lateness does, and that one leg cannot stop it."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from agi_handlers.audio_leg.frame_wheel import (
    ANSWER_S,
    MAX_UNEVEN,
    FrameWheelOptions,
    frames_due,
    run_frame_wheel,
)


class Leg:
    """Counts its frames; says when it has had enough."""

    def __init__(self, num_wanted: int = 3) -> None:
        self.ticks: list[int] = []
        self.enough = asyncio.Event()
        self._num_wanted = num_wanted

    def on_frame_time(self, num_frames: int) -> None:
        self.ticks.append(num_frames)
        if len(self.ticks) >= self._num_wanted:
            self.enough.set()


class BrokenLeg(Leg):
    def on_frame_time(self, num_frames: int) -> None:
        super().on_frame_time(num_frames)
        raise ValueError("broken")


async def wait_for(*legs: Leg) -> None:
    async with asyncio.timeout(5):
        for leg in legs:
            await leg.enough.wait()


@pytest.mark.parametrize(
    ("lateness_s", "expected"),
    [
        (0.0, (1, 0)),
        (0.019, (1, 0)),
        (0.021, (2, 0)),
        (0.055, (3, 0)),
        (0.061, (3, 1)),
        (1.001, (3, 48)),
    ],
)
def test_a_late_tick_catches_up_three_frames_and_skips_the_rest(
    lateness_s: float, expected: tuple[int, int]
) -> None:
    assert frames_due(lateness_s, 3) == expected


async def test_every_leg_gets_frames_until_it_is_removed() -> None:
    with run_frame_wheel() as wheel:
        legs = [Leg() for _ in range(6)]
        for leg in legs:
            wheel.add(leg)
        await wait_for(*legs)
        wheel.remove(legs[0])
        seen = len(legs[0].ticks)
        others = [Leg() for _ in range(2)]
        for leg in others:
            wheel.add(leg)
        await wait_for(*others)
        assert len(legs[0].ticks) == seen
        assert wheel.num_legs == 7


async def test_legs_are_spread_over_the_phases() -> None:
    with run_frame_wheel(FrameWheelOptions(num_phases=4)) as wheel:
        for _ in range(8):
            wheel.add(Leg())
        assert [len(phase.legs) for phase in wheel._phases] == [2, 2, 2, 2]


async def test_a_leg_that_fails_is_taken_off_and_the_others_go_on() -> None:
    with run_frame_wheel(FrameWheelOptions(num_phases=1)) as wheel:
        broken, sound = BrokenLeg(1), Leg(4)
        wheel.add(broken)
        wheel.add(sound)
        await wait_for(sound)
        assert len(broken.ticks) == 1
        assert wheel.num_legs == 1


async def test_a_leg_may_leave_in_its_own_tick() -> None:
    with run_frame_wheel(FrameWheelOptions(num_phases=1)) as wheel:

        class Leaving(Leg):
            def on_frame_time(self, num_frames: int) -> None:
                super().on_frame_time(num_frames)
                wheel.remove(self)

        leaving, staying = Leaving(1), Leg()
        wheel.add(leaving)
        wheel.add(staying)
        await wait_for(staying)
        assert len(leaving.ticks) == 1


async def test_a_blocked_loop_does_not_lead_to_a_burst() -> None:
    options = FrameWheelOptions(num_phases=1, max_frames_per_tick=2)
    with run_frame_wheel(options) as wheel:
        leg = Leg(3)
        wheel.add(leg)
        await wait_for(leg)
        time.sleep(0.2)  # noqa: ASYNC251 - that is the fault
        leg.enough.clear()
        await wait_for(leg)
        assert max(leg.ticks) <= 2
        assert wheel.stats.num_skipped_frames >= 7
        assert wheel.stats.num_late_ticks >= 1
        assert wheel.stats.max_lateness_s >= 0.15


async def test_a_leg_follows_its_callers_frames_with_the_next_phase_it_can() -> None:
    """Ready 4 ms after the caller's frame: phases are 5 ms apart."""
    with run_frame_wheel(FrameWheelOptions(num_phases=4)) as wheel:
        leg = Leg()
        wheel.add(leg)
        while True:
            before_s = time.monotonic()
            wheel.follow_caller(leg)
            after_s = time.monotonic()
            expected = {
                math.ceil((at_s + ANSWER_S - wheel._epoch) / 0.005) % 4
                for at_s in (before_s, after_s)
            }
            if len(expected) == 1:  # the clock passed no phase meanwhile
                break
        assert [len(phase.legs) for phase in wheel._phases].index(1) in expected
        assert wheel.num_legs == 1
        await wait_for(leg)


async def test_legs_that_follow_in_unison_stay_spread_over_the_phases() -> None:
    with run_frame_wheel(FrameWheelOptions(num_phases=4)) as wheel:
        legs = [Leg() for _ in range(20)]
        for leg in legs:
            wheel.add(leg)
        for leg in legs:
            wheel.follow_caller(leg)
        sizes = [len(phase.legs) for phase in wheel._phases]
        assert sum(sizes) == 20
        assert max(sizes) - min(sizes) <= MAX_UNEVEN
        await wait_for(*legs)


async def test_a_leg_that_is_not_on_the_wheel_follows_nobody() -> None:
    with run_frame_wheel() as wheel:
        wheel.follow_caller(Leg())
        assert wheel.num_legs == 0


async def test_the_wheel_rests_when_there_is_no_leg() -> None:
    with run_frame_wheel(FrameWheelOptions(num_phases=1)) as wheel:
        leg = Leg()
        wheel.add(leg)
        await wait_for(leg)
        wheel.remove(leg)
        phase = wheel._phases[0]
        async with asyncio.timeout(5):
            while phase.timer is not None:  # noqa: ASYNC110 - no event says so
                await asyncio.sleep(0.005)
        again = Leg()
        wheel.add(again)
        await wait_for(again)


async def test_closing_leaves_no_timer() -> None:
    with run_frame_wheel() as wheel:
        wheel.add(Leg())
    assert all(phase.timer is None for phase in wheel._phases)
    assert wheel.num_legs == 0
