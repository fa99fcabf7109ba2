"""The dialplan on real Asterisk: whatever the bot does, the caller is taken somewhere.

The bot is a stub here. Each place a call can end in has a tone of its own in the lab.
"""

from __future__ import annotations

import re

import pytest

from tests.end_to_end.asterisk_lab import Asterisk
from tests.end_to_end.sip_caller import SipCall
from tests.end_to_end.stub_bot import (
    Behaviour,
    Dialogue,
    StubBot,
    crashes,
    is_ready,
    never_ends,
)
from tools.caller.say_items import Press
from tools.dialplan import (
    ASTERISK_VERSIONS,
    CONTEXT,
    ENTRIES,
    Entry,
    context_text,
)

pytestmark = [pytest.mark.asterisk, pytest.mark.slow]

PEOPLE_HZ = 440
IN_GROUP_HZ = 620
BILLING_HZ = 850
VICIDIAL_ID = "V1022103344000001234"


def sets(**variables: str) -> Behaviour:
    """Sets channel variables in that order, then closes."""

    async def behave(dialogue: Dialogue) -> None:
        for name, value in variables.items():
            await dialogue.set(name, value)

    return behave


async def closes_when_told(dialogue: Dialogue) -> None:
    """Waits for the HANGUP line, still talks to Asterisk, then closes."""
    await dialogue.wait_for_hangup()
    await dialogue.set("BOT_STATUS", "hangup")


def test_the_project_s_files_load_without_a_complaint(asterisk: Asterisk) -> None:
    shown = asterisk.cli("dialplan show ultravox") + asterisk.cli("dialplan show")
    for context in (
        "ultravox",
        "ultravox-settings",
        "ultravox-people",
        "ultravox-vicidial",
        "vicidial-auto-system-setting-custom",
    ):
        assert f"Context '{context}' created by 'pbx_config'" in shown
    complaints = re.findall(r".*(?:WARNING|ERROR).*pbx_config.*", asterisk.log())
    assert not complaints


def test_what_is_printed_for_each_version_is_parsed_to_the_last_line(
    asterisk: Asterisk,
) -> None:
    """By this version's parser; the grammar has been the same since 1.6."""
    printed = {
        f"printed-{situation}-{version}": context_text(
            Entry("agi://10.0.0.5:4573", "SUPPORT", situation, people="8500"), version
        )
        for situation in ENTRIES
        for version in ASTERISK_VERSIONS
    }
    file = asterisk.folder / "etc/extensions-printed.conf"
    contexts = (
        text.replace(f"[{CONTEXT}]", f"[{name}]") for name, text in printed.items()
    )
    file.write_text("".join(contexts))
    since = asterisk.log_position()
    try:
        asterisk.cli("dialplan reload")
        shown = asterisk.cli("dialplan show")
    finally:
        file.unlink()
        asterisk.cli("dialplan reload")
    assert not re.findall(r".*(?:WARNING|ERROR).* pbx.*", asterisk.log(since))
    of_context = dict(
        re.findall(r"\[ Context '(printed[\w-]+)'(.*?)(?=\[ Context '|\Z)", shown, re.S)
    )
    for name, text in printed.items():
        num_parsed = len(re.findall(r"\[.*:\d+\]$", of_context[name], re.M))
        assert num_parsed == text.count("exten => "), of_context[name]


async def test_closed_port_leads_to_people(
    asterisk: Asterisk, unused_tcp_port: int
) -> None:
    async with SipCall(asterisk.sip_port, f"at*{unused_tcp_port}") as call:
        await call.heard_tone(PEOPLE_HZ, timeout_s=5)
    await asterisk.is_empty()


async def test_a_bot_that_is_full_is_never_answered(asterisk: Asterisk) -> None:
    async with StubBot(health=sets(BOT_STATUS="busy")) as bot:
        since = asterisk.log_position()
        async with SipCall(asterisk.sip_port, f"at*{bot.port}") as call:
            await call.heard_tone(PEOPLE_HZ)
        assert bot.scripts == ["health"]
        story = asterisk.log(since)
        answered = [line for line in story.splitlines() if "] Answer(" in line]
        assert len(answered) == 1
        assert "people@lab" in answered[0]


async def test_a_bot_that_is_frozen_before_the_call_is_given_up(
    asterisk: Asterisk,
) -> None:
    async with StubBot(health=never_ends) as bot:
        async with SipCall(asterisk.sip_port, f"at*{bot.port}") as call:
            await call.heard_tone(PEOPLE_HZ)
        assert bot.scripts == ["health"]
    await asterisk.is_empty()


@pytest.mark.parametrize(
    "health", [crashes, never_ends, sets(BOT_STATUS="draining")], ids=lambda b: ""
)
async def test_the_second_bot_is_asked_when_the_first_is_not_ready(
    asterisk: Asterisk, health: Behaviour
) -> None:
    async with StubBot(health=health) as first, StubBot(talk=never_ends) as second:
        to = f"at*{first.port}*60*{second.port}"
        async with SipCall(asterisk.sip_port, to) as call:
            await call.until(
                lambda: second.scripts == ["health", "ultravox"], "a talk", 10
            )
        assert first.scripts == ["health"]
    await asterisk.is_empty()


async def test_two_bots_that_are_not_ready_lead_to_people(asterisk: Asterisk) -> None:
    async with StubBot(health=crashes) as first, StubBot(health=crashes) as second:
        to = f"at*{first.port}*60*{second.port}"
        async with SipCall(asterisk.sip_port, to) as call:
            await call.heard_tone(PEOPLE_HZ)
        assert first.scripts == second.scripts == ["health"]


async def test_a_bot_that_dies_in_the_talk_leads_to_people(asterisk: Asterisk) -> None:
    async with StubBot(talk=crashes) as bot:
        async with SipCall(asterisk.sip_port, f"at*{bot.port}") as call:
            await call.heard_tone(PEOPLE_HZ)
        assert bot.scripts == ["health", "ultravox"]


async def test_a_failure_the_bot_reports_leads_to_people(asterisk: Asterisk) -> None:
    failed = sets(BOT_STATUS="failed", BOT_REASON="speech_unavailable")
    async with StubBot(talk=failed) as bot:
        since = asterisk.log_position()
        async with SipCall(asterisk.sip_port, f"at*{bot.port}") as call:
            await call.heard_tone(PEOPLE_HZ)
        assert "to people: failed speech_unavailable" in asterisk.log(since)


async def test_a_talk_that_is_done_ends_the_call(asterisk: Asterisk) -> None:
    done = sets(BOT_STATUS="done", BOT_RESULT="done")
    async with (
        StubBot(talk=done) as bot,
        SipCall(asterisk.sip_port, f"at*{bot.port}") as call,
    ):
        await call.ended(timeout_s=5)
        assert not any(event.name == "tone" for event in call.events)


async def test_the_campaign_is_in_the_request(asterisk: Asterisk) -> None:
    async with StubBot(talk=crashes) as bot:
        async with SipCall(
            asterisk.sip_port, f"at*{bot.port}", number="7275551212"
        ) as call:
            await call.heard_tone(PEOPLE_HZ)
        talk = bot.requests[-1]
        assert talk.query == "campaign=default"
        assert talk.environment["agi_callerid"] == "7275551212"


async def test_a_transfer_goes_to_its_target(asterisk: Asterisk) -> None:
    transfer = sets(BOT_STATUS="transfer", BOT_TRANSFER_TO="billing", BOT_RESULT="done")
    async with (
        StubBot(talk=transfer) as bot,
        SipCall(asterisk.sip_port, f"at*{bot.port}") as call,
    ):
        await call.heard_tone(BILLING_HZ)


@pytest.mark.parametrize("target", ["", "nowhere"])
async def test_a_transfer_without_a_place_to_go_leads_to_people(
    asterisk: Asterisk, target: str
) -> None:
    transfer = sets(BOT_STATUS="transfer", BOT_TRANSFER_TO=target, BOT_RESULT="done")
    async with (
        StubBot(talk=transfer) as bot,
        SipCall(asterisk.sip_port, f"at*{bot.port}") as call,
    ):
        await call.heard_tone(PEOPLE_HZ)


async def test_a_bot_that_is_frozen_in_the_talk_is_left_at_the_limit(
    asterisk: Asterisk,
) -> None:
    async with StubBot(talk=never_ends) as bot:
        since = asterisk.log_position()
        async with SipCall(asterisk.sip_port, f"at*{bot.port}*3") as call:
            tone = await call.heard_tone(PEOPLE_HZ)
        assert tone.at_s >= 2.5
        assert "call_limit" in asterisk.log(since)
    await asterisk.is_empty()


async def test_results_of_an_earlier_visit_do_not_count(asterisk: Asterisk) -> None:
    """A caller comes back to the bot from a transfer; the second talk crashes."""
    talks = [
        sets(BOT_STATUS="transfer", BOT_TRANSFER_TO="again", BOT_RESULT="done"),
        crashes,
    ]

    async def talk(dialogue: Dialogue) -> None:
        await talks.pop(0)(dialogue)

    async with StubBot(talk=talk) as bot:
        async with SipCall(asterisk.sip_port, f"at*{bot.port}") as call:
            await call.heard_tone(PEOPLE_HZ)
        assert bot.scripts == ["health", "ultravox"] * 2


async def test_a_caller_who_hangs_up_leaves_no_channel(asterisk: Asterisk) -> None:
    async with StubBot(talk=never_ends) as bot:
        since = asterisk.log_position()
        async with SipCall(asterisk.sip_port, f"at*{bot.port}") as call:
            await call.until(lambda: len(bot.requests) == 2, "a talk", 5)
        await asterisk.is_empty()
        assert "[h@ultravox:1]" in asterisk.log(since)


# --- VICIdial's entry ---------------------------------------------------------------


async def _in_group_call(asterisk: Asterisk, since: int) -> tuple[str, str]:
    """Handle method and caller name that the in-group script was run with."""
    line = await asterisk.logged("in-group script:", since)
    found = re.search(
        r"in-group script: (\w+)-----LB-----(\w+)-----89\d\d-----Closer"
        r"-----park----------999-----1 name=(.*)",
        line,
    )
    assert found, line
    method, in_group, name = found.groups()
    return f"{method} {in_group}", name.strip()


@pytest.mark.parametrize(
    ("name", "connected", "method", "name_then"),
    [
        (VICIDIAL_ID, "GARCIA", "CLOSER SALESLINE", VICIDIAL_ID),
        ("GARCIA", VICIDIAL_ID, "CLOSER SALESLINE", VICIDIAL_ID),
        ("GARCIA", "ROE", "CIDLOOKUP SALESLINE", "GARCIA"),
    ],
)
async def test_vicidial_people_get_the_call_with_its_lead(
    asterisk: Asterisk, name: str, connected: str, method: str, name_then: str
) -> None:
    async with StubBot(health=crashes) as bot:
        since = asterisk.log_position()
        to = f"vicidial*{bot.port}*60*{name}*{connected}"
        async with SipCall(asterisk.sip_port, to) as call:
            await call.heard_tone(IN_GROUP_HZ)
        assert await _in_group_call(asterisk, since) == (method, name_then)


async def test_vicidial_bot_gets_both_names_as_arguments(asterisk: Asterisk) -> None:
    async with StubBot(talk=crashes) as bot:
        to = f"vicidial*{bot.port}*60*GARCIA*{VICIDIAL_ID}"
        async with SipCall(asterisk.sip_port, to) as call:
            await call.heard_tone(IN_GROUP_HZ)
        talk = bot.requests[-1]
        assert talk.query == "campaign=default"
        assert talk.environment["agi_arg_1"] == "GARCIA"
        assert talk.environment["agi_arg_2"] == VICIDIAL_ID


async def test_vicidial_bot_may_report_before_the_call_log_closes_the_call(
    asterisk: Asterisk,
) -> None:
    async with StubBot(talk=closes_when_told) as bot:
        since = asterisk.log_position()
        to = f"vicidial*{bot.port}*60*{VICIDIAL_ID}*x"
        async with SipCall(asterisk.sip_port, to) as call:
            await call.until(lambda: len(bot.requests) == 2, "a talk", 5)
        call_log = await asterisk.logged(r"\[h@ultravox-vicidial:1\] AGI", since)
        assert "call_log--HVcauses--PRI-----NODEBUG-----" in call_log
        assert bot.requests[-1].num_hangups == 1
    await asterisk.is_empty()


async def test_vicidial_call_that_is_done_ends(asterisk: Asterisk) -> None:
    done = sets(BOT_STATUS="done", BOT_RESULT="done")
    async with StubBot(talk=done) as bot:
        since = asterisk.log_position()
        to = f"vicidial*{bot.port}*60*{VICIDIAL_ID}*x"
        async with SipCall(asterisk.sip_port, to) as call:
            await call.ended(timeout_s=5)
        assert "in-group script" not in asterisk.log(since)


async def test_vicidial_transfer_goes_to_the_in_group_it_names(
    asterisk: Asterisk,
) -> None:
    transfer = sets(BOT_STATUS="transfer", BOT_TRANSFER_TO="SUPPORT", BOT_RESULT="done")
    async with StubBot(talk=transfer) as bot:
        since = asterisk.log_position()
        to = f"vicidial*{bot.port}*60*{VICIDIAL_ID}*x"
        async with SipCall(asterisk.sip_port, to) as call:
            await call.heard_tone(IN_GROUP_HZ)
        assert (await _in_group_call(asterisk, since))[0] == "CLOSER SUPPORT"


async def test_vicidial_limit_leads_to_people(asterisk: Asterisk) -> None:
    async with StubBot(health=is_ready, talk=closes_when_told) as bot:
        since = asterisk.log_position()
        to = f"vicidial*{bot.port}*2*{VICIDIAL_ID}*x"
        async with SipCall(asterisk.sip_port, to) as call:
            await call.heard_tone(IN_GROUP_HZ)
        assert (await _in_group_call(asterisk, since))[0] == "CLOSER SALESLINE"


@pytest.mark.parametrize(
    ("to", "name", "method", "number_called"),
    [
        ("8901", VICIDIAL_ID, "CLOSER SALESLINE", "8901"),
        ("010*010*010*015*8901", VICIDIAL_ID, "CLOSER SALESLINE", "8901"),
        (f"also*{VICIDIAL_ID}*8901", "GARCIA", "CLOSER SALESLINE", "8901"),
        ("8902", "ROE", "CIDLOOKUP SALESLINE", "8902"),
        ("8903", "CENTRE", "CIDLOOKUP SALESLINE", "8903"),
        ("8905", VICIDIAL_ID, "CLOSER SALESLINE", "8905"),
    ],
)
async def test_every_entry_leads_to_people_while_the_bot_is_down(
    asterisk: Asterisk, to: str, name: str, method: str, number_called: str
) -> None:
    """As pasted: nobody listens on the port that the entries have."""
    since = asterisk.log_position()
    async with SipCall(asterisk.sip_port, to, name=name) as call:
        await call.heard_tone(IN_GROUP_HZ)
    line = await asterisk.logged("in-group script:", since)
    assert f"-----{number_called}-----Closer" in line
    assert (await _in_group_call(asterisk, since))[0] == method


async def test_after_hours_entry_leads_to_its_mailbox(asterisk: Asterisk) -> None:
    """Its in-group is closed: that would send the call back here."""
    since = asterisk.log_position()
    async with SipCall(asterisk.sip_port, "8904", name=VICIDIAL_ID) as call:
        await call.heard_tone(PEOPLE_HZ)
    assert "in-group script" not in asterisk.log(since)


async def test_people_who_send_the_call_back_make_no_circle(asterisk: Asterisk) -> None:
    """The in-group's no-agent action is the bot's extension, and the bot is down."""
    since = asterisk.log_position()
    async with SipCall(asterisk.sip_port, "circle", name=VICIDIAL_ID) as call:
        await call.ended(timeout_s=15)
    assert asterisk.log(since).count("in-group script: CLOSER") == 3
    assert "no bot and no people" in asterisk.log(since)
    await asterisk.is_empty()


async def test_call_menu_option_leads_to_the_bot_and_on_to_people(
    asterisk: Asterisk,
) -> None:
    since = asterisk.log_position()
    async with SipCall(asterisk.sip_port, "menu", name="ROE") as call:
        call.do(Press("1"))
        await call.heard_tone(IN_GROUP_HZ)
    assert (await _in_group_call(asterisk, since))[0] == "CIDLOOKUP SALESLINE"


async def test_vicidial_extension_transfer_is_dialled_by_the_dialplan(
    asterisk: Asterisk,
) -> None:
    transfer = sets(
        BOT_STATUS="transfer",
        BOT_TRANSFER_KIND="extension",
        BOT_TRANSFER_TO="917275559999",
        BOT_RESULT="done",
    )
    async with StubBot(talk=transfer) as bot:
        to = f"vicidial*{bot.port}*60*{VICIDIAL_ID}*x"
        async with SipCall(asterisk.sip_port, to) as call:
            await call.heard_tone(BILLING_HZ)


async def test_vicidial_extension_that_does_not_exist_leads_to_people(
    asterisk: Asterisk,
) -> None:
    transfer = sets(
        BOT_STATUS="transfer",
        BOT_TRANSFER_KIND="extension",
        BOT_TRANSFER_TO="123",
        BOT_RESULT="done",
    )
    async with StubBot(talk=transfer) as bot:
        to = f"vicidial*{bot.port}*60*{VICIDIAL_ID}*x"
        async with SipCall(asterisk.sip_port, to) as call:
            await call.heard_tone(IN_GROUP_HZ)


async def test_other_calls_whose_limit_runs_out_are_hung_up_as_ever(
    asterisk: Asterisk,
) -> None:
    """The pasted T belongs to every call of VICIdial's default context."""
    since = asterisk.log_position()
    async with SipCall(asterisk.sip_port, "limit") as call:
        await call.ended(timeout_s=5)
        assert not any(event.name == "tone" for event in call.events)
    assert "[T@default:1]" in asterisk.log(since)
