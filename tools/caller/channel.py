"""A channel without Asterisk: a caller's mouth and ear, variables, 20 ms slots."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tools.caller.activities import Activity
from tools.caller.agi_wire import Channel
from tools.caller.dialplan_functions import function_call, substitute
from tools.caller.ear import Ear
from tools.caller.journal import Journal
from tools.caller.mouth import Mouth, Slot
from tools.caller.sound_files import SoundFolders

STATE_RINGING: Final = 4
STATE_UP: Final = 6

SlotListener = Callable[[Slot], None]


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the pretended Asterisk has, and where its files are."""

    sounds: SoundFolders
    has_audiosocket: bool = True
    # Local scripts are commands that the bot sends: run only for bots one trusts.
    runs_scripts: bool = False
    modules: frozenset[str] = frozenset({"app_playback.so", "res_agi.so"})


@dataclass(slots=True)
class PretendChannel:
    """One call's channel; every time is on the journal's clock."""

    about: Channel
    abilities: Abilities
    mouth: Mouth
    ear: Ear
    journal: Journal
    is_behind: Callable[[], bool] = lambda: False
    """Whether this process was held up: then it is not the bot that is late."""
    variables: dict[str, str] = field(default_factory=dict)
    set_by_bot: dict[str, str] = field(default_factory=dict)
    goes_on_at: dict[str, str] = field(default_factory=dict)
    legs_used: list[str] = field(default_factory=list)
    keys_heard: str = ""
    answered_s: float | None = None
    hung_up_by: str = ""
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    eagi_listener: SlotListener | None = None
    _listeners: list[SlotListener] = field(default_factory=list)
    _activity: Activity | None = None
    _response: asyncio.Future[str | None] | None = None

    @property
    def is_up(self) -> bool:
        return self.answered_s is not None and not self.hung_up.is_set()

    @property
    def state(self) -> int:
        return STATE_RINGING if self.answered_s is None else STATE_UP

    def answer(self) -> None:
        if self.answered_s is None:
            self.answered_s = self.journal.now()
            self.journal.event("answered")

    def hang_up(self, by: str) -> None:
        """The channel ends: what runs is answered as at a hang-up."""
        if self.hung_up.is_set():
            return
        self.hung_up_by = by
        self.hung_up.set()
        self.journal.event("hung-up", by=by)
        if self._activity is not None:
            self._end_activity(self._activity.on_hangup())

    # --- audio ---

    def on_slot_time(self, at_s: float) -> None:
        """20 ms of call: the caller says something, and hears something."""
        if self.hung_up.is_set():
            return
        self.ear.on_time(at_s)
        if self.answered_s is None:
            slot = Slot(None)  # a caller who hears it ring does not talk yet
        else:
            slot = self.mouth.next_slot(at_s, self.answered_s, self.ear)
        for listener in tuple(self._listeners):
            listener(slot)
        activity = self._activity
        if self.eagi_listener is not None and (activity is None or activity.feeds_eagi):
            self.eagi_listener(slot)
        if activity is not None:
            response = activity.on_slot(at_s, slot, self.ear)
            if response is not None:
                self._end_activity(response)
        self._tell_news()
        if self.mouth.has_hung_up:
            self.hang_up("caller")

    def _tell_news(self) -> None:
        for said in self.mouth.events():
            self.journal.event(said.name, what=said.what)
        for name, at_s in self.ear.news():
            self.journal.event(name, at_s)

    def listen(self, listener: SlotListener) -> Callable[[], None]:
        """Give every slot of the caller to listener; call the result to end it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def run(self, activity: Activity) -> str | None:
        """Do something until it is over; its response, if it gets one."""
        assert self._activity is None, "one command at a time"
        if self.hung_up.is_set():
            return activity.on_hangup()
        self._response = asyncio.get_running_loop().create_future()
        self._activity = activity
        try:
            return await self._response
        finally:
            self._activity = self._response = None

    def interrupt(self) -> None:
        """A new command came."""
        if self._activity is not None and self._activity.is_interruptible:
            self._end_activity(self._activity.on_interrupt())

    def _end_activity(self, response: str | None) -> None:
        self._activity = None
        if self._response is not None and not self._response.done():
            self._response.set_result(response)

    # --- variables ---

    def set_variable(self, name: str, value: str) -> None:
        name = name.lstrip("_")
        self.variables[name] = self.set_by_bot[name] = value
        self.journal.event("variable", variable=name, value=value)

    def get_variable(self, name: str) -> str | None:
        """A variable or function; None when it is not set."""
        call = function_call(name)
        if call is not None and name not in self.variables:
            return self._function(*call)
        return self.variables.get(name, self._built_in().get(name))

    def evaluate(self, expression: str) -> str:
        return substitute(expression, self.get_variable)

    def _built_in(self) -> Mapping[str, str]:
        about = self.about
        return {
            "CHANNEL": about.name,
            "UNIQUEID": about.uniqueid,
            "EXTEN": about.extension,
            "CONTEXT": about.context,
            "PRIORITY": str(about.priority),
        }

    def _function(self, name: str, argument: str) -> str | None:
        about, answered_s = self.about, self.answered_s
        talked_s = 0 if answered_s is None else self.journal.now() - answered_s
        match name, argument:
            case "IFMODULE", "app_audiosocket.so":
                return str(int(self.abilities.has_audiosocket))
            case "IFMODULE", module:
                return str(int(module in self.abilities.modules))
            case "CALLERID", "num" | "number":
                return about.callerid
            case "CALLERID", "name":
                return about.calleridname
            case "CALLERID", "dnid":
                return about.dnid
            case "CHANNEL", "state":
                return "Up" if answered_s is not None else "Ring"
            case "CDR", "billsec" | "duration":
                return str(int(talked_s))
            case "CDR", "start":
                return time.strftime("%Y-%m-%d %H:%M:%S")
            case "DIALPLAN_EXISTS", _:
                return "1"
            case _:
                return None


def folders_of(places: list[Path]) -> SoundFolders:
    """The folders themselves and their English parts, as Asterisk looks."""
    return SoundFolders([part for place in places for part in (place / "en", place)])
