"""Which leg a call gets, and what is remembered of a dialer that cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import pytest

from agi_handlers.agi.connection import AgiConnection
from agi_handlers.audio_leg.audiosocket_leg import AudioSocketOptions
from agi_handlers.audio_leg.choose_leg import (
    LegChooser,
    LegOptions,
    Media,
    parse_advertise,
)
from agi_handlers.audio_leg.eagi_leg import EagiOptions
from agi_handlers.audio_leg.frame_wheel import FrameWheel
from agi_handlers.audio_leg.leg import LegName
from agi_handlers.audio_leg.media_port import MediaPort
from agi_handlers.errors import AudioLegUnavailable, ChannelGone
from tests.fakes.asterisk import HOLD, Answer, FakeAsterisk, connected_agi
from tests.fakes.asterisk_shell import EagiApplication, exec_agi
from tests.fakes.audiosocket import AppBehaviour, AudioSocketApplication

IFMODULE = "IFMODULE(app_audiosocket.so)"


@dataclass
class Dialer:
    """An Asterisk with some of the ways to carry audio."""

    audiosocket: AppBehaviour = "modern"
    has_shell: bool = True
    can_record: bool = True
    has_func_module: bool = True
    address: str = "127.0.0.1"

    @asynccontextmanager
    async def call(self) -> AsyncIterator[tuple[AgiConnection, FakeAsterisk]]:
        responses: dict[str, Answer] = {
            "EXEC AudioSocket": AudioSocketApplication(self.audiosocket),
            "EXEC EAGI": EagiApplication() if self.has_shell else "200 result=0",
            "EXEC AGI": exec_agi if self.can_record else "200 result=0",
            "STREAM FILE": HOLD,
        }
        variables = {"AGISTATUS": "SUCCESS" if self.can_record else "NOTFOUND"}
        if self.has_func_module:
            variables[IFMODULE] = "0" if self.audiosocket == "absent" else "1"
        agi, asterisk = await connected_agi(responses=responses, variables=variables)
        agi.peer_host, agi.local_host = self.address, "127.0.0.1"
        try:
            yield agi, asterisk
        finally:
            await agi.close()
            await asterisk.aclose()


@pytest.fixture
def options(tmp_path: Path) -> LegOptions:
    return LegOptions(
        asterisk_dir=str(tmp_path),
        audiosocket=AudioSocketOptions(judge_timeout_s=1.0),
        eagi=EagiOptions(connect_timeout_s=2.0, end_timeout_s=1.0),
    )


async def leg_of(
    chooser: LegChooser,
    dialer: Dialer,
    *,
    media: Media | None = None,
    call_id: UUID | None = None,
) -> tuple[LegName, list[str]]:
    """The leg a call gets, and the AGI commands until then."""
    async with (
        dialer.call() as (agi, asterisk),
        chooser.open_leg(agi, media=media, call_id=call_id) as leg,
    ):
        return leg.name, list(asterisk.commands)


@pytest.mark.parametrize(
    ("dialer", "name"),
    [
        (Dialer(), "audiosocket"),
        (Dialer(has_func_module=False), "audiosocket"),
        (Dialer(audiosocket="absent"), "eagi"),
        (Dialer(audiosocket="absent", has_func_module=False), "eagi"),
        (Dialer(audiosocket="refused"), "eagi"),
        (Dialer(audiosocket="absent", has_shell=False), "recorded_turns"),
    ],
)
async def test_the_best_leg_a_dialer_has_is_taken(
    media_port: MediaPort,
    wheel: FrameWheel,
    options: LegOptions,
    dialer: Dialer,
    name: LegName,
) -> None:
    chooser = LegChooser(options, media_port, wheel)
    assert (await leg_of(chooser, dialer))[0] == name


async def test_what_failed_on_a_dialer_is_not_tried_again_there(
    media_port: MediaPort, wheel: FrameWheel, options: LegOptions
) -> None:
    chooser = LegChooser(options, media_port, wheel)
    poor = Dialer(audiosocket="refused")
    _, commands = await leg_of(chooser, poor)
    assert any(line.startswith("EXEC AudioSocket") for line in commands)
    name, commands = await leg_of(chooser, poor)
    assert name == "eagi"
    assert not any(line.startswith("EXEC AudioSocket") for line in commands)
    # another dialer is another matter
    name, _ = await leg_of(chooser, Dialer(address="10.1.1.6"))
    assert name == "audiosocket"


async def test_a_repaired_dialer_is_used_fully_after_some_time(
    media_port: MediaPort, wheel: FrameWheel, options: LegOptions
) -> None:
    chooser = LegChooser(replace(options, remember_failure_s=0.0), media_port, wheel)
    assert (await leg_of(chooser, Dialer(audiosocket="refused")))[0] == "eagi"
    assert (await leg_of(chooser, Dialer()))[0] == "audiosocket"


@pytest.mark.parametrize("media", ["audiosocket", "eagi", "recorded_turns"])
async def test_a_forced_leg_is_the_only_one_tried(
    media_port: MediaPort, wheel: FrameWheel, options: LegOptions, media: Media
) -> None:
    chooser = LegChooser(options, media_port, wheel)
    assert (await leg_of(chooser, Dialer(), media=media))[0] == media
    chooser = LegChooser(replace(options, media=media), media_port, wheel)
    assert (await leg_of(chooser, Dialer()))[0] == media


async def test_a_forced_leg_that_is_not_there_is_an_error(
    media_port: MediaPort, wheel: FrameWheel, options: LegOptions
) -> None:
    chooser = LegChooser(replace(options, media="audiosocket"), media_port, wheel)
    with pytest.raises(AudioLegUnavailable, match="no app_audiosocket"):
        await leg_of(chooser, Dialer(audiosocket="absent"))


async def test_no_leg_at_all_is_an_error_that_names_every_try(
    media_port: MediaPort, wheel: FrameWheel, options: LegOptions
) -> None:
    # the shell is asked for twice, for EAGI and for recorded turns
    chooser = LegChooser(options, media_port, wheel)
    nothing = Dialer(audiosocket="absent", has_shell=False, can_record=False)
    for _ in range(2):
        with pytest.raises(AudioLegUnavailable) as caught:
            await leg_of(chooser, nothing)
        assert "no app_audiosocket" in str(caught.value)
        assert str(caught.value).count("file transfer") == 2


async def test_a_channel_that_is_not_up_is_answered_first(
    media_port: MediaPort, wheel: FrameWheel, options: LegOptions
) -> None:
    chooser = LegChooser(options, media_port, wheel)
    async with Dialer().call() as (agi, asterisk):
        asterisk.responses["CHANNEL STATUS"] = "200 result=4"
        async with chooser.open_leg(agi):
            assert asterisk.commands[:2] == ["CHANNEL STATUS", "ANSWER"]
    _, commands = await leg_of(chooser, Dialer())
    assert "ANSWER" not in commands


async def test_a_channel_that_cannot_be_answered_is_an_error(
    media_port: MediaPort, wheel: FrameWheel, options: LegOptions
) -> None:
    chooser = LegChooser(options, media_port, wheel)
    async with Dialer().call() as (agi, asterisk):
        asterisk.responses["CHANNEL STATUS"] = "200 result=4"
        asterisk.responses["ANSWER"] = "200 result=-1"
        with pytest.raises(AudioLegUnavailable, match="cannot be answered"):
            async with chooser.open_leg(agi):
                pass


async def test_a_caller_who_is_gone_is_not_a_failure_of_the_dialer(
    media_port: MediaPort, wheel: FrameWheel, options: LegOptions
) -> None:
    chooser = LegChooser(options, media_port, wheel)
    async with Dialer(audiosocket="refused").call() as (agi, asterisk):

        async def leaves_meanwhile(words: list[str]) -> str:
            asterisk.is_hung_up = True
            return "200 result=-1"

        asterisk.responses["EXEC AudioSocket"] = leaves_meanwhile
        with pytest.raises(ChannelGone):
            async with chooser.open_leg(agi):
                pass
    assert (await leg_of(chooser, Dialer()))[0] == "audiosocket"


async def test_asterisk_is_told_the_address_at_which_it_reached_us(
    media_port: MediaPort, wheel: FrameWheel, options: LegOptions
) -> None:
    chooser = LegChooser(options, media_port, wheel)
    call_id = UUID("40325ec2-5efd-4bd3-805f-53576e581d13")
    _, commands = await leg_of(chooser, Dialer(), call_id=call_id)
    exec_line = next(line for line in commands if "EXEC AudioSocket" in line)
    assert exec_line.endswith(f" {call_id},127.0.0.1:{media_port.port}")


async def test_an_advertised_address_is_told_instead(
    media_port: MediaPort, wheel: FrameWheel, options: LegOptions
) -> None:
    options = replace(options, advertise="localhost")
    chooser = LegChooser(options, media_port, wheel)
    _, commands = await leg_of(chooser, Dialer())
    exec_line = next(line for line in commands if "EXEC AudioSocket" in line)
    assert exec_line.endswith(f",localhost:{media_port.port}")


async def test_an_error_in_the_talk_is_not_taken_for_a_leg_that_failed(
    media_port: MediaPort, wheel: FrameWheel, options: LegOptions
) -> None:
    chooser = LegChooser(options, media_port, wheel)
    with pytest.raises(AudioLegUnavailable, match="of the talk"):
        async with Dialer().call() as (agi, _), chooser.open_leg(agi):
            raise AudioLegUnavailable("an error of the talk")
    assert (await leg_of(chooser, Dialer()))[0] == "audiosocket"


async def test_calls_on_one_chooser_do_not_disturb_each_other(
    media_port: MediaPort, wheel: FrameWheel, options: LegOptions
) -> None:
    chooser = LegChooser(options, media_port, wheel)
    dialers = [Dialer(), Dialer(audiosocket="absent", address="10.1.1.6"), Dialer()]
    outcomes = await asyncio.gather(*(leg_of(chooser, dialer) for dialer in dialers))
    assert [name for name, _ in outcomes] == ["audiosocket", "eagi", "audiosocket"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("", 0)),
        ("bot.example", ("bot.example", 0)),
        ("bot.example:9100", ("bot.example", 9100)),
        ("10.0.0.5:9100", ("10.0.0.5", 9100)),
        ("2001:db8::5", ("2001:db8::5", 0)),
        ("[2001:db8::5]", ("2001:db8::5", 0)),
        ("[2001:db8::5]:9100", ("2001:db8::5", 9100)),
    ],
)
def test_an_advertised_address_is_read(text: str, expected: tuple[str, int]) -> None:
    assert parse_advertise(text) == expected


@pytest.mark.parametrize(
    "text", ["a b", "$(id)", "a;b", "host:0", "host:70000", "host:http", "[::1]:x"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        parse_advertise(text)
