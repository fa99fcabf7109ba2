"""What a conversation needs of the world around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from agi_handlers.audio_leg.batched_ears import BatchedEars
from agi_handlers.audio_leg.leg import AudioLeg
from agi_handlers.conversation.answer_screen import AnswerScreen
from agi_handlers.conversation.call_notes import CallNotes
from agi_handlers.conversation.turn_actions import PhraseName
from model.audio.prompts import Prompt
from model.speech import SpeechSession
from model.vad.listener import CallerEar
from model.vad.options import Expected


@dataclass(frozen=True, slots=True)
class CallParts:
    """Of one call: its leg, ear and session, its campaign, whom to ask and to tell."""

    leg: AudioLeg
    ear: CallerEar
    session: SpeechSession
    phrases: Mapping[PhraseName, str]
    prompts: Mapping[str, Prompt]
    target_of: Callable[[str], str | None]
    """A destination's name as the model said it -> the dialplan's; None: unknown."""
    record_opt_out: Callable[[], Awaitable[None]] | None = None
    """Writes down that the caller wants no more calls; None: nobody to tell."""
    confirm_transfer: Callable[[str], Awaitable[str | None]] | None = None
    """As `target_of`, after a look at who is free there; None: nobody, stay."""
    read_callback: Callable[[str], str | None] | None = None
    """When to call back, as the model wrote it -> as it is read back; None: unclear."""
    promises: Callable[[str], bool] = lambda text: False
    """Whether a reply's words announce a transfer."""
    expects: Expected = "anything"
    """What callers say here where the bot has asked for nothing else."""
    language: str = "en-us"
    ears: BatchedEars = field(default_factory=BatchedEars)
    """Of all calls of the process: they share runs of the detector."""
    pause_recording: Callable[[bool], None] | None = None
    """True: record silence, False: sound again; None: nothing is recorded."""
    keys_are_secret: bool = False
    """Nothing is recorded from the caller's first key until he speaks again."""
    screen: AnswerScreen | None = None
    """Finds out who answered a call of ours; None: nobody asks."""
    notes: CallNotes = field(default_factory=CallNotes)
    """Takes down what happens; by itself it keeps nothing."""
