"""The speech service in one process: streaming, cancelling, and what enters history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace

import pytest

from model.engine.interface import EngineLoad
from model.engine.request import GenerationRequest
from model.engine.scripted import ScriptedEngine, ScriptedOptions
from model.engine.stream import TokenStream
from model.errors import (
    ContextTooLong,
    EngineOverloaded,
    GenerationFailed,
    InvalidAudio,
    SpeechOverloaded,
    SynthesisFailed,
)
from model.local_session import LocalSession
from model.service import LocalSpeechService, ServiceOptions
from model.speech import (
    ReplyAction,
    ReplyAudio,
    ReplyDone,
    ReplyEvent,
    ReplyText,
    SessionOptions,
    TurnEnd,
    TypedTurn,
    UserTurn,
    Utterance,
)
from model.tts.errors import VoiceUnknown
from model.tts.speaker import Speaker, SpeakerOptions
from model.ultravox.config import TurnEndBounds
from tests.fakes.tone_synthesizer import MS_PER_CHAR, ToneSynthesizer

OPTIONS = SessionOptions("call-1", "Be brief.", actions=("transfer", "hangup"))
HI = TypedTurn("Hi")
# No pause between sentences: then a piece lasts 10 ms for each of its characters.
NO_PAUSE = SpeakerOptions(sentence_pause_ms=0, clause_pause_ms=0)


class Busy(ScriptedEngine):
    """Has so much of its time taken by callers."""

    busy_share = 0.0

    def load(self) -> EngineLoad:
        return replace(super().load(), busy_share=self.busy_share)


class Listening(ScriptedEngine):
    """Remembers what every request's dialogue was."""

    def __init__(self, options: ScriptedOptions | None = None) -> None:
        super().__init__(options)
        self.dialogues: list[list[tuple[str, str]]] = []

    def submit(self, request: GenerationRequest) -> TokenStream:
        self.dialogues.append(
            [(message.role, message.text) for message in request.prompt.messages]
        )
        return super().submit(request)


@asynccontextmanager
async def speaking(
    *replies: str,
    engine: ScriptedEngine | None = None,
    synthesizer: ToneSynthesizer | None = None,
    options: ServiceOptions | None = None,
) -> AsyncIterator[LocalSpeechService]:
    synthesizer = synthesizer or ToneSynthesizer()
    async with engine or Listening(ScriptedOptions(replies)) as running:
        speaker = Speaker(synthesizer, options=NO_PAUSE)
        yield LocalSpeechService(running, synthesizer, speaker, options)


@asynccontextmanager
async def talking(
    *replies: str,
    engine: ScriptedEngine | None = None,
    synthesizer: ToneSynthesizer | None = None,
    service: ServiceOptions | None = None,
    options: SessionOptions = OPTIONS,
) -> AsyncIterator[LocalSession]:
    """One dialogue at a service of its own."""
    async with (
        speaking(
            *replies, engine=engine, synthesizer=synthesizer, options=service
        ) as speech,
        speech.open_session(options) as session,
    ):
        yield session


async def hear(session: LocalSession, turn: int, user: UserTurn) -> list[ReplyEvent]:
    async with aclosing(session.reply(turn, user)) as events:
        return [event async for event in events]


def text_of(events: list[ReplyEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, ReplyText))


def speech_ms(events: list[ReplyEvent], rate_hz: int = 8000) -> int:
    n_bytes = sum(len(event.pcm16) for event in events if isinstance(event, ReplyAudio))
    return n_bytes * 1000 // 2 // rate_hz


async def test_a_reply_is_text_and_speech_then_done() -> None:
    async with talking("Hello there. Good bye.") as session:
        events = await hear(session, 0, HI)
    assert text_of(events) == "Hello there. Good bye."
    assert speech_ms(events) == len("Hello there.Good bye.") * MS_PER_CHAR
    done = events[-1]
    assert isinstance(done, ReplyDone)
    assert done.finish_reason == "stop"
    assert done.text == "Hello there. Good bye."
    assert 0 < done.timings.first_audio_ms <= done.timings.total_ms


@pytest.mark.parametrize("bounds", [None, TurnEndBounds(0.9, 0.2)])
async def test_how_likely_the_turn_is_over_comes_before_the_reply(
    bounds: TurnEndBounds | None,
) -> None:
    script = ScriptedOptions(("Hello.",), end_of_turn_probability=0.25, turn_end=bounds)
    async with talking(engine=ScriptedEngine(script)) as session:
        events = await hear(session, 0, HI)
    over_from, more_below = (0.9, 0.2) if bounds else (None, None)
    assert events[0] == TurnEnd(0, 0.25, over_from, more_below)
    assert events[0].is_calibrated == (bounds is not None)
    assert not any(isinstance(event, TurnEnd) for event in events[1:])


async def test_an_engine_that_cannot_tell_says_nothing_of_the_turns_end() -> None:
    async with talking("Hello.") as session:
        events = await hear(session, 0, HI)
    assert isinstance(events[0], ReplyText)


async def test_the_first_sentence_is_spoken_while_the_rest_is_still_written() -> None:
    script = ScriptedOptions(("First one. Then more and more.",), token_interval_ms=5)
    async with talking(engine=Listening(script)) as session:
        events = await hear(session, 0, HI)
    first_audio = next(i for i, e in enumerate(events) if isinstance(e, ReplyAudio))
    last_text = max(i for i, e in enumerate(events) if isinstance(e, ReplyText))
    assert first_audio < last_text


async def test_calls_that_the_engine_has_no_time_for_are_refused_at_once() -> None:
    engine, synthesizer, now_s = Busy(), ToneSynthesizer(), 0.0
    async with engine, AsyncExitStack() as calls:
        service = LocalSpeechService(
            engine,
            synthesizer,
            Speaker(synthesizer),
            ServiceOptions(max_sessions=40, max_busy_share=0.8),
            clock=lambda: now_s,
        )
        for _ in range(4):
            await calls.enter_async_context(service.open_session(OPTIONS))
        assert service.max_sessions == 40  # nothing measured yet
        engine.busy_share, now_s = 0.5, 15.0  # an eighth of its time for each
        assert service.max_sessions == 6
        assert (await service.status()).has_room
        for _ in range(2):
            await calls.enter_async_context(service.open_session(OPTIONS))
        engine.busy_share, now_s = 0.9, 30.0  # slower than it looked
        assert not (await service.status()).has_room
        with pytest.raises(SpeechOverloaded):
            await calls.enter_async_context(service.open_session(OPTIONS))
        engine.busy_share, now_s = 0.1, 45.0
        await calls.enter_async_context(service.open_session(OPTIONS))


async def test_actions_are_taken_out_of_text_and_speech() -> None:
    async with talking("One moment. [[transfer sales]] [[launch x]]") as session:
        events = await hear(session, 0, HI)
    assert text_of(events).strip() == "One moment."
    actions = [event for event in events if isinstance(event, ReplyAction)]
    assert actions == [ReplyAction(0, "transfer", "sales")]


async def test_speech_comes_at_the_rate_of_the_session() -> None:
    options = SessionOptions("c", "", rate_hz=16_000)
    async with talking("Hello.", options=options) as session:
        events = await hear(session, 0, HI)
    assert speech_ms(events, 16_000) == 6 * MS_PER_CHAR


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 48_000])
async def test_an_utterance_of_any_rate_keeps_its_length(rate_hz: int) -> None:
    async with talking() as session:
        said = Utterance(bytes(2 * rate_hz * 3), rate_hz)
        events = await hear(session, 0, said)
    assert text_of(events) == "I heard you speak for 3.0 seconds."


@pytest.mark.parametrize("pcm16", [b"", b"\0"])
async def test_an_utterance_that_is_no_audio_is_refused(pcm16: bytes) -> None:
    async with speaking() as service, service.open_session(OPTIONS) as session:
        with pytest.raises(InvalidAudio):
            await hear(session, 0, Utterance(pcm16, 8000))
        assert text_of(await hear(session, 1, HI)) == "You said: Hi"


class TestHistory:
    """What of a reply the next one knows of."""

    async def ask(self, session: LocalSession, turn: int, text: str) -> None:
        await hear(session, turn, TypedTurn(text))

    async def test_a_settled_turn_is_part_of_the_dialogue(self) -> None:
        engine = Listening(ScriptedOptions(("One two.", "Three four.")))
        async with talking(engine=engine) as session:
            await self.ask(session, 0, "a")
            await session.settle(0)
            await self.ask(session, 1, "b")
        assert engine.dialogues[-1] == [
            ("system", "Be brief."),
            ("user", "a"),
            ("assistant", "One two."),
            ("user", "b"),
        ]

    async def test_only_what_was_heard_is(self) -> None:
        engine = Listening(ScriptedOptions(("Aaaa bbbb. Cccc dddd.",)))
        async with talking(engine=engine) as session:
            await self.ask(session, 0, "a")
            await session.settle(0, 150)  # of 200 ms: half the second sentence
            await self.ask(session, 1, "b")
        assert engine.dialogues[-1][2] == ("assistant", "Aaaa bbbb. Cccc")

    async def test_a_reply_of_which_nothing_was_heard_is_not(self) -> None:
        engine = Listening(ScriptedOptions(("Unheard.",)))
        async with talking(engine=engine) as session:
            await self.ask(session, 0, "a")
            await session.settle(0, 0)
            await self.ask(session, 1, "b")
        assert engine.dialogues[-1][1:] == [("user", "a"), ("user", "b")]

    async def test_a_forgotten_turn_leaves_nothing(self) -> None:
        engine = Listening(ScriptedOptions(("Early.",)))
        async with talking(engine=engine) as session:
            await self.ask(session, 0, "wait")
            await session.forget(0)
            await self.ask(session, 1, "wait, I mean")
        assert engine.dialogues[-1][1:] == [("user", "wait, I mean")]

    async def test_a_turn_still_open_counts_as_heard_until_it_is_settled(self) -> None:
        engine = Listening(ScriptedOptions(("Aaaa bbbb.", "Next.", "Last.")))
        async with talking(engine=engine) as session:
            await self.ask(session, 0, "a")
            await self.ask(session, 1, "b")
            assert engine.dialogues[-1][2] == ("assistant", "Aaaa bbbb.")
            await session.settle(0, 50)
            await session.settle(1)
            await self.ask(session, 2, "c")
        assert engine.dialogues[-1][1:] == [
            ("user", "a"),
            ("assistant", "Aaaa"),
            ("user", "b"),
            ("assistant", "Next."),
            ("user", "c"),
        ]

    async def test_what_was_said_without_the_model_is_the_bots_too(self) -> None:
        engine = Listening()
        async with talking(engine=engine) as session:
            async with aclosing(session.say(0, "Welcome to us.")) as events:
                said = [event async for event in events]
            await session.settle(0)
            await self.ask(session, 1, "a")
        assert text_of(said) == "Welcome to us."
        assert isinstance(said[-1], ReplyDone)
        assert engine.dialogues[-1][1:] == [
            ("assistant", "Welcome to us."),
            ("user", "a"),
        ]

    async def test_a_filler_spoken_meanwhile_does_not_lose_the_reply(self) -> None:
        engine = Listening(ScriptedOptions(("The answer.", "Next.")))
        async with talking(engine=engine) as session:
            await self.ask(session, 0, "a")
            async with aclosing(session.say(1, "One moment.")) as events:
                assert [event async for event in events]
            await session.settle(1)
            await session.settle(0)
            await self.ask(session, 2, "b")
        assert sorted(engine.dialogues[-1][1:]) == [
            ("assistant", "One moment."),
            ("assistant", "The answer."),
            ("user", "a"),
            ("user", "b"),
        ]

    async def test_a_barge_in_keeps_what_was_heard_of_a_reply_in_the_making(
        self,
    ) -> None:
        script = ScriptedOptions(("Aaaa bbbb. Never ever said.",), token_interval_ms=30)
        engine = Listening(script)
        async with talking(engine=engine) as session:
            async with aclosing(session.reply(0, TypedTurn("a"))) as events:
                async for event in events:
                    if isinstance(event, ReplyAudio):
                        break
            await session.settle(0, 99)
            assert engine.load().num_active == 0
            await self.ask(session, 1, "b")
        assert engine.dialogues[-1][1:3] == [("user", "a"), ("assistant", "Aaaa")]

    async def test_settling_a_turn_that_is_not_open_changes_nothing(self) -> None:
        engine = Listening(ScriptedOptions(("One.",)))
        async with talking(engine=engine) as session:
            await session.settle(5)
            await session.forget(6)
            await self.ask(session, 7, "a")
            await session.settle(7)
            await session.settle(7, 0)
            await self.ask(session, 8, "b")
        assert engine.dialogues[-1][2] == ("assistant", "One.")


class Narrow(Listening):
    """Takes dialogues of four messages at most."""

    def submit(self, request: GenerationRequest) -> TokenStream:
        if len(request.prompt.messages) > 4:
            raise ContextTooLong("too long", num_tokens=5, limit_tokens=4)
        return super().submit(request)


async def test_the_oldest_turns_go_when_the_context_is_full() -> None:
    engine = Narrow(ScriptedOptions(("Yes.",)))
    async with talking(engine=engine) as session:
        for turn, word in enumerate(("a", "b", "c", "d")):
            await hear(session, turn, TypedTurn(word))
            await session.settle(turn)
    assert engine.dialogues[-1] == [
        ("system", "Be brief."),
        ("user", "c"),
        ("assistant", "Yes."),
        ("user", "d"),
    ]


async def test_a_turn_too_long_by_itself_is_refused() -> None:
    class Tiny(Listening):
        def submit(self, request: GenerationRequest) -> TokenStream:
            raise ContextTooLong("too long", num_tokens=5, limit_tokens=4)

    async with talking(engine=Tiny()) as session:
        with pytest.raises(ContextTooLong):
            await hear(session, 0, HI)


async def test_closing_the_iterator_frees_engine_and_synthesiser() -> None:
    script = ScriptedOptions(("Some words. " * 50,), token_interval_ms=5)
    engine, synthesizer = Listening(script), ToneSynthesizer()
    synthesizer.hold = asyncio.Event()
    async with talking(engine=engine, synthesizer=synthesizer) as session:
        async with aclosing(session.reply(0, HI)) as events:
            async for event in events:
                if isinstance(event, ReplyAudio):
                    break
            assert engine.load().num_active == 1
            assert synthesizer.num_running > 0
        assert engine.load().num_active == 0
        assert synthesizer.num_running == 0


async def test_leaving_the_session_ends_replies_under_way() -> None:
    engine = Listening(ScriptedOptions(("Never.",), first_token_ms=60_000))
    async with speaking(engine=engine) as service:
        async with service.open_session(OPTIONS) as session:
            reading = asyncio.create_task(hear(session, 0, HI))
            while not engine.load().num_active:  # noqa: ASYNC110 - the engine's own
                await asyncio.sleep(0)
        load = engine.load()
        assert (load.num_active, load.num_sessions) == (0, 0)
        assert await reading == []


async def test_one_session_too_many_is_refused_and_room_comes_back() -> None:
    async with speaking("Hi.", options=ServiceOptions(max_sessions=1)) as service:
        async with service.open_session(OPTIONS):
            with pytest.raises(SpeechOverloaded):
                async with service.open_session(OPTIONS):
                    pytest.fail("there was no room")
        async with service.open_session(OPTIONS):
            assert (await service.status()).num_sessions == 1
        assert (await service.status()).num_sessions == 0


async def test_an_unknown_voice_is_refused_at_the_door() -> None:
    async with speaking("Hi.") as service:
        with pytest.raises(VoiceUnknown):
            async with service.open_session(SessionOptions("c", "", voice="nobody")):
                pytest.fail("there is no such voice")
        assert service.num_sessions == 0


async def test_turn_numbers_must_rise() -> None:
    async with speaking("Hi.") as service, service.open_session(OPTIONS) as session:
        await hear(session, 3, HI)
        with pytest.raises(ValueError, match="turn 3 after turn 3"):
            await hear(session, 3, HI)


class FullOnce(Listening):
    """Has no room for its first request."""

    def submit(self, request: GenerationRequest) -> TokenStream:
        if not self.dialogues:
            self.dialogues.append([])
            raise EngineOverloaded("no room")
        return super().submit(request)


async def test_an_overloaded_engine_keeps_nothing_of_the_turn() -> None:
    engine = FullOnce()
    async with talking(engine=engine) as session:
        with pytest.raises(EngineOverloaded):
            await hear(session, 0, TypedTurn("lost"))
        await session.settle(0)
        await hear(session, 1, TypedTurn("kept"))
    assert engine.dialogues[-1][1:] == [("user", "kept")]


async def collect(session: LocalSession, turn: int, events: list[ReplyEvent]) -> None:
    """Into a list that is still there when the reply fails."""
    async with aclosing(session.reply(turn, HI)) as stream:
        async for event in stream:
            events.append(event)


async def test_speech_that_fails_ends_the_reply_with_its_error() -> None:
    async with talking("Fine so far. This is unspeakable. More.") as session:
        events: list[ReplyEvent] = []
        with pytest.raises(SynthesisFailed):
            await collect(session, 0, events)
    assert speech_ms(events) == len("Fine so far.") * MS_PER_CHAR


async def test_what_was_spoken_before_a_failure_can_still_be_settled() -> None:
    engine = Listening(ScriptedOptions(("Fine so far. It is unspeakable.", "Ok.")))
    async with talking(engine=engine) as session:
        with pytest.raises(SynthesisFailed):
            await hear(session, 0, TypedTurn("a"))
        await session.settle(0)
        await hear(session, 1, TypedTurn("b"))
    assert engine.dialogues[-1][1:3] == [("user", "a"), ("assistant", "Fine so far.")]


async def test_a_fault_of_ours_is_contained(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Listening):
        def submit(self, request: GenerationRequest) -> TokenStream:
            raise ZeroDivisionError("secret")

    async with talking(engine=Broken()) as session:
        with pytest.raises(GenerationFailed) as caught:
            await hear(session, 0, HI)
        async with aclosing(session.say(1, "Still here.")) as events:
            assert [event async for event in events]
    assert "secret" not in str(caught.value)
    assert [record.getMessage() for record in caplog.records] == ["reply_failed"]


async def test_two_dialogues_do_not_know_of_each_other() -> None:
    engine = Listening()
    async with (
        speaking(engine=engine) as service,
        service.open_session(SessionOptions("a", "I am A.")) as one,
        service.open_session(SessionOptions("b", "I am B.")) as other,
    ):
        for turn in range(3):
            both = await asyncio.gather(
                hear(one, turn, TypedTurn(f"one {turn}")),
                hear(other, turn, TypedTurn(f"other {turn}")),
            )
            assert text_of(both[0]) == f"You said: one {turn}"
            assert text_of(both[1]) == f"You said: other {turn}"
            await one.settle(turn)
            await other.settle(turn)
    for dialogue in engine.dialogues:
        words = " ".join(text for _, text in dialogue)
        assert ("I am A." in words) != ("I am B." in words)
        assert ("one" in words) != ("other" in words)


async def test_a_slow_reader_holds_up_the_making() -> None:
    synthesizer = ToneSynthesizer()
    async with (
        talking(
            "A sentence of words. " * 30,
            synthesizer=synthesizer,
            service=ServiceOptions(max_buffered_bytes=2000),
        ) as session,
        aclosing(session.reply(0, HI)) as events,
    ):
        first = await anext(events)
        for _ in range(1000):
            await asyncio.sleep(0)
        num_made = synthesizer.num_made
        rest = [event async for event in events]
    assert num_made < 10
    assert speech_ms([first, *rest]) == 30 * 20 * MS_PER_CHAR
