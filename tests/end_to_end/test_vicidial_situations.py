"""Every way a VICIdial call can go, as whole calls on real Asterisk.

The dialplan is the project's entries, the bot the real service, the model server one
that says what each persona tells it.  VICIdial is played: where it would queue an AMI
Redirect or Hangup, the lab's Asterisk does the same by its console.  Calls run side by
side, each with a lead, a number and a VICIdial campaign or in-group of its own, and the
group chooses the persona.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.end_to_end.asterisk_lab import Asterisk
from tests.end_to_end.bot_service import BotService
from tests.end_to_end.sip_caller import SipCall
from tests.fakes.obedient_model import ObedientModel
from tests.fakes.vicidial import FakeVicidial
from tools.caller.say_items import Press, recording

pytestmark = [pytest.mark.asterisk, pytest.mark.slow, pytest.mark.timeout(240)]

PEOPLE_HZ = 440
IN_GROUP_HZ = 620
OUTSIDE_HZ = 850
LONG_S = 4.0  # who speaks for longer than this has said that he wants no more calls
SHORT_S = 1.15  # who speaks no longer than this, pre-roll and all, has hummed
PERSONAS = {
    "default": """
        instructions = "say=<Goodbye. [[note roof]] [[hangup]]>"
        [rules]
        actions = ["hangup", "note"]
        [transfer]
        default = "SALESLINE"
        [vicidial]
        new_lead_list = 998
    """,
    "sales": """
        instructions = "You call {first_name}. say=<Yes.>"
        [phrases]
        greeting = "Hello {first_name}."
        [rules]
        opt_out_key = "9"
        [transfer]
        default = "SALESLINE"
        [vicidial]
        campaigns = ["SALES"]
    """,
    "patient": """
        [rules]
        actions = ["transfer"]
        [transfer]
        default = "SUPPORT"
        [transfer_fallback]
        default = "stay"
        [vicidial]
        campaigns = ["PATIENT"]
    """,
    "callback": """
        instructions = "say=<Fine. [[callback tomorrow 10 am]]>"
        [rules]
        actions = ["callback"]
        [vicidial]
        campaigns = ["LATER"]
    """,
    "patter": """
        [phrases]
        greeting = "We have a very large number of offers for you today, and I will \
            read all of them to you, one after the other, until you ask me to stop, \
            which some people do and other people do not, for the offers are good."
        [vicidial]
        campaigns = ["PATTER"]
    """,
    "unheard": """
        [rules]
        no_input_s = 1.5
        [transfer]
        default = "SALESLINE"
        [vicidial]
        campaigns = ["UNHEARD"]
    """,
    "inbound": """
        instructions = "say=<Goodbye. [[disposition WN]] [[hangup]]>"
        [rules]
        actions = ["hangup", "disposition"]
        [dispositions.codes]
        WN = "WRONG"
        [vicidial]
        in_groups = ["BOT_IN"]
    """,
    "closer": """
        instructions = "say=<[[transfer outside]]>"
        [transfer]
        outside = "917275559999"
        [vicidial]
        in_groups = ["BOT_CLOSER"]
    """,
}


@dataclass
class Caller:
    """One lead, as VICIdial and Asterisk know it."""

    lead_id: int
    call_id: str
    number: str
    group: str


@dataclass
class Centre:
    """A dialer, VICIdial and the bot."""

    asterisk: Asterisk
    bot: BotService
    vicidial: FakeVicidial
    num_leads: int = 0

    def caller(self, group: str, letter: str = "V") -> Caller:
        """A new lead whose call one of the bot's lines gets."""
        self.num_leads += 1
        lead_id, db = 1000 + self.num_leads, self.vicidial.db
        number = f"727555{lead_id:04d}"
        call_id = f"{letter}122101530{lead_id:010d}"
        db.add_line(f"7{self.num_leads:03d}")
        db.add_lead(lead_id, number, first_name="Maria")
        db.give_call(call_id, lead_id, group)
        return Caller(lead_id, call_id, number, group)

    def dial(
        self, caller: Caller, to: str, name: str = "", *, is_mute: bool = False
    ) -> SipCall:
        """is_mute: not a packet of his voice arrives."""
        return SipCall(
            self.asterisk.sip_port,
            to,
            number=caller.number,
            name=name or caller.call_id,
            is_mute=is_mute,
        )

    def lead(self, caller: Caller) -> dict[str, str]:
        return self.vicidial.db.leads[str(caller.lead_id)]

    async def becomes(self, condition: Callable[[], bool], what: str) -> None:
        for _ in range(700):
            if condition():
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"never: {what}\n{self.bot.log()[-3000:]}")

    async def status_becomes(self, caller: Caller, status: str) -> None:
        """In the lead and in the call's log."""
        db, lead = self.vicidial.db, self.lead(caller)
        await self.becomes(
            lambda: lead["status"] == db.log[caller.call_id].status == status,
            f"{caller.call_id} {status}, but {lead['status']}",
        )

    def phrases_said(self, vicidial_call_id: str) -> list[str]:
        """Fixed phrases of a call, as the bot's own record has them."""
        rows = self._recorded(
            "SELECT phrase FROM turns JOIN calls USING (call_id) WHERE phrase != ''"
            " AND vicidial_call_id = ? ORDER BY turn",
            vicidial_call_id,
        )
        return [phrase for (phrase,) in rows]

    def said_to(self, caller: Caller) -> str:
        """What he heard of the first thing that the bot said."""
        [(text,)] = self._recorded(
            "SELECT heard_text FROM turns JOIN calls USING (call_id)"
            " WHERE turn = 1 AND vicidial_call_id = ?",
            caller.call_id,
        )
        return str(text)

    async def made_of(self, caller: Caller, num_times: int) -> list[str]:
        """What was made of it, so many times, that he spoke over the bot."""
        query = (
            "SELECT kind FROM events JOIN calls USING (call_id) WHERE kind IN"
            " ('went_on', 'barge_in') AND vicidial_call_id = ? ORDER BY events.number"
        )

        def made() -> list[str]:
            return [kind for (kind,) in self._recorded(query, caller.call_id)]

        await self.becomes(lambda: len(made()) >= num_times, "noticed over the bot")
        return made()

    async def uniqueid(self, caller: Caller) -> str:
        """Asterisk's, while the call is up."""
        shown = await asyncio.to_thread(self.asterisk.cli, "core show channels concise")
        (row,) = (line for line in shown.splitlines() if caller.number in line)
        return row.rsplit("!", 1)[1]

    async def is_recorded_with(self, caller: Caller, **ids: str) -> None:
        """The bot's record of the call has VICIdial's ids and Asterisk's."""
        ids = {"lead_id": str(caller.lead_id), "list_id": "999"} | ids
        ended = "SELECT * FROM calls WHERE vicidial_call_id = ? AND ended_at NOT NULL"
        await self.becomes(
            lambda: bool(self._recorded(ended, caller.call_id)), "a record"
        )
        (row,) = self._recorded(ended, caller.call_id)
        assert {name: row[name] for name in ids} == ids

    def _recorded(self, query: str, vicidial_call_id: str) -> list[sqlite3.Row]:
        with closing(sqlite3.connect(self.bot.folder / "data/calls.sqlite")) as records:
            records.row_factory = sqlite3.Row
            return records.execute(query, (vicidial_call_id,)).fetchall()

    # --- what AST_manager_send does ---

    def hang_up(self, call_id: str) -> None:
        self._soon(call_id, "channel request hangup {}")

    def redirect(self, call_id: str, where: str) -> None:
        number = self._number(call_id)
        lead_id = int(call_id[-10:])
        exten = f"90009*{where}**{lead_id}**{number}**7001*"
        exten = where if where.isdecimal() else exten
        self._soon(call_id, f"channel redirect {{}} default,{exten},1")

    def _number(self, call_id: str) -> str:
        return self.vicidial.db.leads[str(int(call_id[-10:]))]["phone_number"]

    def _soon(self, call_id: str, command: str) -> None:
        number = self._number(call_id)

        def act() -> None:
            shown = self.asterisk.cli("core show channels concise").splitlines()
            rows = [line.split("!") for line in shown]
            # none: the caller was faster
            for row in rows:
                if number in row:  # not in one place: data may hold the separator
                    self.asterisk.cli(command.format(row[0]))

        loop = asyncio.get_running_loop()
        loop.call_later(0.2, lambda: loop.run_in_executor(None, act))


def _words_of(seconds: float) -> str:
    if seconds > LONG_S:
        return "please stop calling me"
    return "hello there" if seconds > SHORT_S else "Mm-hmm."


@asynccontextmanager
async def open_centre(
    asterisk: Asterisk, folder: Path, agi_port: int
) -> AsyncIterator[Centre]:
    personas = folder / "personas"
    personas.mkdir()
    for name, text in PERSONAS.items():
        lines = "\n".join(line.strip() for line in text.splitlines())
        (personas / f"{name}.toml").write_text(lines)
    async with (
        ObedientModel(_words_of) as model,
        FakeVicidial() as vicidial,
    ):
        vicidial.db.add_line("7001")
        vicidial.db.lines["7001"].status = "PAUSED"
        settings = {
            "CAMPAIGNS_DIR": str(personas),
            "ENGINE": "openai",
            "ENGINE_URL": model.url,
            "VICIDIAL_URL": vicidial.url,
            "VICIDIAL_USER": "botapi",
            "VICIDIAL_PASSWORD": "Secret-Pass_1",
            "VICIDIAL_AGENT_USER": "7001",
            "VICIDIAL_DRAIN": "true",
        }
        bot = await asyncio.to_thread(BotService.start, folder, agi_port, settings)
        centre = Centre(asterisk, bot, vicidial)
        vicidial.db.on_hang_up = centre.hang_up
        vicidial.db.on_redirect = centre.redirect
        asterisk.cli("module load res_clioriginate.so")  # it has the command
        try:
            await asyncio.to_thread(bot.wait_until_ready)
            yield centre
        finally:
            await asyncio.to_thread(bot.stop)


# --- the situations -----------------------------------------------------------------


async def outbound_call_goes_to_a_person_with_its_caller_id(centre: Centre) -> None:
    caller, since = centre.caller("SALES"), centre.asterisk.log_position()
    async with centre.dial(caller, "010*010*010*015*8901") as call:
        await call.happened("heard-start", timeout_s=30)
        uniqueid = await centre.uniqueid(caller)
        call.do(Press("0"))
        await call.heard_tone(IN_GROUP_HZ, timeout_s=30)
        await centre.status_becomes(caller, "XFER")
        assert call.is_up
    lead = f"-----SALESLINE-----{caller.number}-----lead {caller.lead_id}-----park"
    await centre.asterisk.logged(f"in-group script: CLOSER-----LB{lead}", since)
    person = f"person at the phone: number={caller.number} name={caller.call_id}"
    await centre.asterisk.logged(person, since)
    await centre.is_recorded_with(
        caller,
        uniqueid=uniqueid,
        vicidial_campaign="SALES",
        in_group="",
        campaign="sales",
        disposition="XFER",
    )


async def opt_out_by_key_of_a_call_whose_name_is_a_customer(centre: Centre) -> None:
    caller = centre.caller("SALES")
    async with centre.dial(caller, f"also*{caller.call_id}*8901", "GARCIA") as call:
        await call.happened("heard-start", timeout_s=30)
        call.do(Press("9"))
        await call.ended(timeout_s=40)
    assert (caller.number, "SYSTEM_INTERNAL") in centre.vicidial.db.dnc
    await centre.status_becomes(caller, "DNC")


async def opt_out_by_words(centre: Centre) -> None:
    caller = centre.caller("SALES")
    async with centre.dial(caller, "010*010*010*015*8901") as call:
        await call.happened("heard-end", timeout_s=30)
        call.do(recording(centre.asterisk.recording("vm-intro")))
        await call.ended(timeout_s=60)
    assert (caller.number, "SYSTEM_INTERNAL") in centre.vicidial.db.dnc
    await centre.status_becomes(caller, "DNC")


async def a_hum_does_not_end_the_bots_words_and_a_sentence_does(
    centre: Centre,
) -> None:
    caller = centre.caller("PATTER")
    async with centre.dial(caller, "8901") as call:
        await call.happened("heard-start", timeout_s=30)
        await asyncio.sleep(1.0)
        call.do(recording(centre.asterisk.recording("your")))
        made = await centre.made_of(caller, 1)
        assert made == ["went_on"], centre.bot.events("short_sound")
        await asyncio.sleep(1.0)  # on its way to his ear
        begun_s = call.at_s
        call.do(recording(centre.asterisk.recording("one-moment-please")))
        assert await centre.made_of(caller, 2) == ["went_on", "barge_in"]
        said = await call.happened("said-end", after_s=begun_s)
        await call.happened("heard-start", after_s=said.at_s, timeout_s=10)
        await call.hang_up()
    heard = centre.said_to(caller)
    assert heard.startswith("We have a very large number of offers"), heard


async def a_caller_of_whom_no_packet_comes_reaches_people(centre: Centre) -> None:
    caller = centre.caller("UNHEARD")
    async with centre.dial(caller, "8901", is_mute=True) as call:
        await call.heard_tone(IN_GROUP_HZ, timeout_s=60)
        await centre.status_becomes(caller, "XFER")
    said = centre.phrases_said(caller.call_id)
    assert said == ["greeting", "still_there", "still_there", "transferring"]
    assert "caller_audio_missing" in {
        entry["event"] for entry in centre.bot.events(caller.call_id)
    }


async def callback_is_read_back_and_scheduled(centre: Centre) -> None:
    caller = centre.caller("LATER")
    async with centre.dial(caller, "8901") as call:
        await call.happened("heard-end", timeout_s=30)
        call.do(recording(centre.asterisk.recording("one-moment-please")))
        await centre.becomes(
            lambda: "callback_noted" in centre.phrases_said(caller.call_id), "read back"
        )
        await call.hang_up()
    await centre.becomes(lambda: centre.lead(caller)["status"] == "CBHOLD", "CBHOLD")
    callback = centre.vicidial.db.callbacks[str(caller.lead_id)]
    assert callback["campaign_id"] == "LATER"
    assert callback["callback_datetime"].endswith(" 10:00:00")


async def inbound_call_gets_the_persona_of_its_in_group(centre: Centre) -> None:
    caller = centre.caller("BOT_IN", "Y")
    line = centre.vicidial.db.log[caller.call_id].user
    async with centre.dial(caller, "010*010*010*015*8901") as call:
        await call.happened("heard-end", timeout_s=30)
        call.do(recording(centre.asterisk.recording("one-moment-please")))
        await call.ended(timeout_s=60)
    await centre.status_becomes(caller, "WRONG")
    assert centre.vicidial.db.log[caller.call_id].user == line
    await centre.is_recorded_with(
        caller,
        vicidial_campaign=centre.vicidial.db.campaign,
        in_group="BOT_IN",
        agent_user=line,
        campaign="inbound",
        disposition="WRONG",
    )


async def agent_gives_the_call_to_the_bots_in_group(centre: Centre) -> None:
    """Local Closer: the call has a Y id, and the bot sends it to an outside number."""
    caller = centre.caller("BOT_CLOSER", "Y")
    async with centre.dial(caller, "010*010*010*015*8901") as call:
        await call.happened("heard-end", timeout_s=30)
        call.do(recording(centre.asterisk.recording("one-moment-please")))
        await call.heard_tone(OUTSIDE_HZ, timeout_s=60)
    assert "transferring" in centre.phrases_said(caller.call_id)
    await centre.status_becomes(caller, "XFER")


async def agent_transfers_blind_and_the_customer_hangs_up_early(centre: Centre) -> None:
    caller, since = centre.caller("SALES", "M"), centre.asterisk.log_position()
    async with centre.dial(caller, "8905") as call:
        await call.happened("heard-start", timeout_s=30)
        await asyncio.sleep(max(0.0, 3.0 - call.events[-1].at_s))
        await call.hang_up()
    await centre.status_becomes(caller, "PU")
    await centre.asterisk.logged(r"\[h@default:1\]", since)


async def nobody_free_keeps_the_caller_in_the_talk(centre: Centre) -> None:
    centre.vicidial.db.free_agents["SUPPORT"] = 0
    caller = centre.caller("PATIENT")
    async with centre.dial(caller, "8901") as call:
        await call.happened("heard-end", timeout_s=30)
        call.do(Press("0"))
        await centre.becomes(
            lambda: "nobody_free" in centre.phrases_said(caller.call_id), "told so"
        )
        told = await call.happened("heard-end", after_s=call.events[-1].at_s)
        call.do(recording(centre.asterisk.recording("one-moment-please")))
        said = await call.happened("said-end", after_s=told.at_s)
        await call.happened("heard-start", after_s=said.at_s, timeout_s=30)
    await centre.status_becomes(caller, "PU")


async def unknown_caller_by_a_call_menu_becomes_a_lead(centre: Centre) -> None:
    port, number = centre.asterisk.sip_port, "3055550000"
    async with SipCall(port, "menu", number=number, name="ROE") as call:
        call.do(Press("1"))
        await call.happened("heard-end", timeout_s=30)
        call.do(recording(centre.asterisk.recording("one-moment-please")))
        await call.ended(timeout_s=60)
    db = centre.vicidial.db

    def lead() -> dict[str, str]:
        found = [lead for lead in db.leads.values() if lead["phone_number"] == number]
        return found[0] if found else {"comments": "", "list_id": "", "status": ""}

    await centre.becomes(lambda: "roof" in lead()["comments"], f"a lead {call.events}")
    assert (lead()["list_id"], lead()["status"]) == ("998", "PU")


async def two_channels_claim_one_id(centre: Centre) -> None:
    """A copied caller name: the second call is served, and takes nothing away."""
    caller, port = centre.caller("SALES"), centre.asterisk.sip_port
    async with centre.dial(caller, "8901") as first:
        await first.happened("heard-start", timeout_s=30)
        copy = SipCall(port, "8901", number="3055550001", name=caller.call_id)
        async with copy as second:
            await second.happened("heard-start", timeout_s=30)
            second.do(Press("0"))
            await second.heard_tone(IN_GROUP_HZ, timeout_s=30)
        assert first.is_up
        first.do(Press("0"))
        await first.heard_tone(IN_GROUP_HZ, timeout_s=30)
    told = centre.vicidial.forms("ra_call_control")
    assert [form["value"] for form in told].count(caller.call_id) == 1
    claimed = await centre.bot.logged("call_id_claimed_twice")
    assert claimed["vicidial_call_id"] == caller.call_id


SITUATIONS: tuple[Callable[[Centre], Awaitable[None]], ...] = (
    outbound_call_goes_to_a_person_with_its_caller_id,
    opt_out_by_key_of_a_call_whose_name_is_a_customer,
    opt_out_by_words,
    a_hum_does_not_end_the_bots_words_and_a_sentence_does,
    a_caller_of_whom_no_packet_comes_reaches_people,
    callback_is_read_back_and_scheduled,
    inbound_call_gets_the_persona_of_its_in_group,
    agent_gives_the_call_to_the_bots_in_group,
    agent_transfers_blind_and_the_customer_hangs_up_early,
    nobody_free_keeps_the_caller_in_the_talk,
    unknown_caller_by_a_call_menu_becomes_a_lead,
    two_channels_claim_one_id,
)


async def side_by_side(
    centre: Centre, situations: tuple[Callable[[Centre], Awaitable[None]], ...]
) -> None:
    """All of them at once; each failure is shown under its name."""
    done = await asyncio.gather(
        *(situation(centre) for situation in situations), return_exceptions=True
    )
    failed = {
        situation.__name__: problem
        for situation, problem in zip(situations, done, strict=True)
        if problem is not None
    }
    assert not failed, failed


async def vicidial_is_away_and_comes_back(centre: Centre) -> None:
    """Down, then a login page: callers notice nothing, and no outcome is lost."""
    vicidial, since = centre.vicidial, centre.asterisk.log_position()
    first, second, third = (centre.caller("SALES") for _ in range(3))
    await vicidial.stop()
    async with (
        centre.dial(first, "8901") as to_person,
        centre.dial(second, "8901") as leaving,
    ):
        await leaving.happened("heard-start", timeout_s=30)
        to_person.do(Press("0"))
        await to_person.heard_tone(IN_GROUP_HZ, timeout_s=30)
        await leaving.hang_up()
        await centre.asterisk.logged(r"\[h@default:1\]", since, timeout_s=15)
    script = f"in-group script: CLOSER-----LB-----SALESLINE-----8901.*{first.call_id}"
    assert re.search(script, centre.asterisk.log(since))
    await vicidial.start()
    vicidial.fault = "html"
    async with centre.dial(third, "8901") as call:
        await call.happened("heard-start", timeout_s=30)
    vicidial.fault = ""
    for caller in (second, third):
        vicidial.db.channel_ended(caller.call_id)
        await centre.status_becomes(caller, "PU")


async def bot_killed_at_three_steps(centre: Centre) -> None:
    """kill -9 of the process that has the calls: all of them reach people."""
    centre.vicidial.db.has_strict_sql = True  # nothing queued is ever done
    callers = [centre.caller("SALES") for _ in range(4)]
    async with contextlib.AsyncExitStack() as stack:
        *calls, done = [
            await stack.enter_async_context(centre.dial(caller, "8901"))
            for caller in callers
        ]
        for call in (*calls, done):
            await call.happened("heard-start", timeout_s=30)
        done.do(Press("9"))  # his call ends by AGI, for VICIdial does not end it
        await done.ended(timeout_s=30)
        await centre.bot.logged("vicidial_did_not_hang_up")
        await centre.status_becomes(callers[-1], "DNC")
        waiting, thinking, _ = calls
        thinking.do(recording(centre.asterisk.recording("one-moment-please")))
        waiting.do(Press("0"))  # the bot waits for a redirect that never comes
        await centre.becomes(
            lambda: centre.vicidial.db.log[callers[0].call_id].status == "XFER", "asked"
        )
        centre.bot.phone_halves()[0].kill()
        for call in calls:
            await call.heard_tone(IN_GROUP_HZ, timeout_s=15)
    centre.vicidial.db.has_strict_sql = False
    await centre.bot.becomes("ready")  # by the one that takes its place


async def test_every_situation(
    asterisk: Asterisk, tmp_path: Path, vicidial_agi_port: int
) -> None:
    async with open_centre(asterisk, tmp_path, vicidial_agi_port) as centre:
        await side_by_side(centre, SITUATIONS)
        await asterisk.is_empty()
        await vicidial_is_away_and_comes_back(centre)
        await bot_killed_at_three_steps(centre)
        await asterisk.is_empty()
        assert centre.vicidial.db.num_bad_logins == 0
        assert all(request.method == "POST" for request in centre.vicidial.requests)
        told = centre.vicidial.forms("ra_call_control")
        assert len({form["value"] for form in told}) == len(told)  # one for each call
        for form in told:
            assert re.fullmatch(r"[A-Za-z0-9_-]{1,6}", form["status"])
        assert "Secret-Pass_1" not in centre.bot.log()
    assert centre.vicidial.db.remote_agents == {"7001": "INACTIVE"}
