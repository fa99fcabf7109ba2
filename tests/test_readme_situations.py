"""The README's table of VICIdial situations: each row names its proof, and its log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
SITUATIONS: Final = "end_to_end/test_vicidial_situations.py"
DIALER: Final = "end_to_end/test_vicidial_calls.py"
CONTROL: Final = "agi_handlers/vicidial/test_call_control.py"
LOOK: Final = "agi_handlers/vicidial/test_transfer_look.py"
CALL: Final = "agi_handlers/conversation/test_call.py"
WHOLE: Final = "agi_handlers/vicidial/test_whole_calls.py"
# Row -> the tests that show what it says of caller, lead and log.
PROOFS: Final = {
    "bot says goodbye": (
        (SITUATIONS, "inbound_call_gets_the_persona_of_its_in_group"),
        (CONTROL, "test_goodbye_is_one_hang_up_with_the_status"),
    ),
    "transfer to an in-group or extension": (
        (SITUATIONS, "outbound_call_goes_to_a_person_with_its_caller_id"),
        (SITUATIONS, "agent_gives_the_call_to_the_bots_in_group"),
    ),
    "transfer to one person": ((CONTROL, "test_transfer_to_one_person_names_him"),),
    "nobody is free there": (
        (SITUATIONS, "nobody_free_keeps_the_caller_in_the_talk"),
        (LOOK, "test_nobody_free_leads_to_the_next_and_the_last_queues"),
    ),
    "that person has left, no such in-group": (
        (CONTROL, "test_transfer_to_a_person_who_has_left_goes_to_people"),
        (CONTROL, "test_refused_transfer_leads_to_the_dialplans_people"),
    ),
    "the model promises a transfer and asks for none": (
        (CALL, "test_words_that_promise_a_transfer_bring_one"),
    ),
    '"give me a person", key 0': (
        (SITUATIONS, "outbound_call_goes_to_a_person_with_its_caller_id"),
        (CALL, "test_asking_for_a_person_works_without_the_models_consent"),
    ),
    '"stop calling me", the campaign\'s opt-out key': (
        (SITUATIONS, "opt_out_by_words"),
        (SITUATIONS, "opt_out_by_key_of_a_call_whose_name_is_a_customer"),
        (WHOLE, "test_opt_out_is_written_before_the_goodbye"),
    ),
    "a callback is agreed": ((SITUATIONS, "callback_is_read_back_and_scheduled"),),
    "a callback nobody understands": (
        (CONTROL, "test_callback_nobody_understands_is_a_comment"),
    ),
    "a field is corrected": (
        (CONTROL, "test_fields_the_campaign_lets_callers_change"),
    ),
    "caller hangs up, even in second 3": (
        (SITUATIONS, "agent_transfers_blind_and_the_customer_hangs_up_early"),
        (DIALER, "test_caller_who_hangs_up_is_reported_before_call_log"),
    ),
    "nobody speaks": (
        (CALL, "test_silent_caller_is_asked_twice_then_told_goodbye"),
        ("agi_handlers/vicidial/test_endings.py", "test_the_status_is_the_shops"),
    ),
    "a machine answers": (
        (
            "end_to_end/test_answering.py",
            "test_a_machine_gets_its_message_and_a_person_his_greeting",
        ),
        (
            "agi_handlers/test_screened_call.py",
            "test_faxes_and_dead_numbers_get_no_message",
        ),
    ),
    "outside the campaign's hours": (
        (WHOLE, "test_outside_its_hours_a_campaign_leaves_callers_to_people"),
        (WHOLE, "test_outside_its_hours_a_campaign_may_say_so"),
    ),
    "an unknown caller at a DID": (
        (SITUATIONS, "unknown_caller_by_a_call_menu_becomes_a_lead"),
    ),
    "a call without an id": (
        (WHOLE, "test_call_that_is_not_vicidials_goes_by_the_dialplan"),
    ),
    "two channels claim one id": ((SITUATIONS, "two_channels_claim_one_id"),),
    "the bot fails or is killed in mid-call": (
        (SITUATIONS, "bot_killed_at_three_steps"),
    ),
    "VICIdial is down, slow, or shows a login page": (
        (SITUATIONS, "vicidial_is_away_and_comes_back"),
        (WHOLE, "test_answers_that_are_none_never_keep_a_caller"),
    ),
    "VICIdial says SUCCESS and does nothing": (
        (DIALER, "test_redirect_that_never_comes_is_made_by_the_dialplan"),
        (CONTROL, "test_queued_is_not_done_so_the_bot_hangs_up_itself"),
    ),
    "the API password is wrong": (
        (CONTROL, "test_wrong_password_never_locks_the_user"),
    ),
}


def rows() -> dict[str, str]:
    """What happens, without its remark in brackets -> the row's last cell."""
    text = (ROOT / "README.md").read_text()
    table = text.split("the lead's status becomes | log |\n|---|---|---|---|\n")[1]
    lines = table.split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].split(" (")[0]: row[-1] for row in cells}


def test_every_row_has_its_proof_and_every_proof_its_row() -> None:
    assert set(rows()) == set(PROOFS)


@pytest.mark.parametrize("row", PROOFS)
def test_the_proofs_exist_and_so_do_the_log_lines(row: str) -> None:
    for file, name in PROOFS[row]:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text()
    source = "".join(path.read_text() for path in (ROOT / "agi_handlers").rglob("*.py"))
    for event in re.findall(r"`(\w+)`", rows()[row]):
        assert f'"{event}"' in source, event
