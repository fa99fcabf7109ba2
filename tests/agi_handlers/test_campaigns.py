"""Campaign files: validated whole, with every mistake named."""

from __future__ import annotations

from pathlib import Path

import pytest

from agi_handlers.campaigns import (
    Campaign,
    CampaignsInvalid,
    Phrases,
    TransferTarget,
    load_campaigns,
)
from agi_handlers.vicidial.lead import NO_LEAD, Lead

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_campaigns_we_ship_are_valid() -> None:
    campaigns = load_campaigns(ROOT / "campaigns")
    assert campaigns["default"].phrases.greeting
    assert campaigns["default"].target_of("") == ""


def test_every_mistake_of_every_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "default.toml").write_text("colour = 'red'\n[rules]\nno_input_s = 0\n")
    (tmp_path / "b.toml").write_text("this is = = no toml")
    (tmp_path / "c.toml").write_text("[rules]\nactions = ['fly']\n")
    (tmp_path / "d.toml").write_text("[transfer]\nsales = 'a,b'\n")
    with pytest.raises(CampaignsInvalid) as caught:
        load_campaigns(tmp_path)
    text = str(caught.value)
    for part in ("colour", "no_input_s", "b.toml", "unknown action 'fly'", "'a,b'"):
        assert part in text
    assert len(caught.value.problems) == 5


def test_folder_without_a_default_campaign_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sales.toml").write_text("")
    with pytest.raises(CampaignsInvalid, match=r"no default\.toml"):
        load_campaigns(tmp_path)


def test_transfer_targets_are_looked_up_by_name_and_unknown_ones_refused(
    tmp_path: Path,
) -> None:
    (tmp_path / "default.toml").write_text(
        "[transfer]\nsales = 'SALESLINE'\ndefault = '8600'\n"
    )
    campaign = load_campaigns(tmp_path)["default"]
    assert campaign.target_of("Sales ") == "SALESLINE"
    assert campaign.target_of("") == "8600"
    assert campaign.target_of("../../etc") is None


def test_dispositions_are_checked_against_vicidials_column(tmp_path: Path) -> None:
    (tmp_path / "default.toml").write_text("[dispositions]\ncompleted = 'TOOLONG'\n")
    (tmp_path / "b.toml").write_text("[dispositions.codes]\nWN = 'wrong number'\n")
    with pytest.raises(CampaignsInvalid) as caught:
        load_campaigns(tmp_path)
    assert len(caught.value.problems) == 2
    assert "'TOOLONG': a VICIdial status has 1 to 6" in str(caught.value)


def test_codes_of_the_model_become_the_shops_statuses(tmp_path: Path) -> None:
    (tmp_path / "default.toml").write_text("[dispositions.codes]\nWN = 'WRONG'\n")
    dispositions = load_campaigns(tmp_path)["default"].dispositions
    assert dispositions.of_code("wn") == "WRONG"
    assert dispositions.of_code("NI") == "NI"
    assert dispositions.of_code("not interested") == ""


def test_answering_machines_get_a_message_with_the_leads_fields(tmp_path: Path) -> None:
    (tmp_path / "default.toml").write_text(
        '[answering]\nmachine = "leave_message"\nmessage = "Hi {first_name|there}."\n'
        '[dispositions]\nmessage_left = "AM"\n'
    )
    campaign = load_campaigns(tmp_path)["default"]
    filled = campaign.for_lead(Lead(values={"first_name": "Ana"}))
    assert filled.answering.message == "Hi Ana."
    assert filled.answering.machine == "leave_message"
    assert campaign.for_lead(NO_LEAD).answering.message == "Hi there."
    assert campaign.dispositions.message_left == "AM"


@pytest.mark.parametrize(
    ("answering", "problem"),
    [
        ('machine = "leave_message"', "needs a message"),
        ('machine = "shout"', "hang_up"),
        ("listen_first_s = 0.1", "0.5"),
        ('machine = "note"\nmessage = "Hi {frist_name}"', "frist_name"),
    ],
)
def test_mistakes_about_answering_machines_are_named(
    tmp_path: Path, answering: str, problem: str
) -> None:
    (tmp_path / "default.toml").write_text(f"[answering]\n{answering}\n")
    with pytest.raises(CampaignsInvalid, match=problem):
        load_campaigns(tmp_path)


def test_what_is_left_out_comes_in_the_campaigns_language(tmp_path: Path) -> None:
    (tmp_path / "default.toml").write_text("")
    (tmp_path / "ventas.toml").write_text(
        'language = "es-mx"\n[phrases]\ngreeting = "Hola {first_name}"\n'
    )
    campaigns = load_campaigns(tmp_path)
    ventas = campaigns["ventas"].for_lead(Lead(values={"first_name": "Ana"}))
    assert ventas.phrases.greeting == "Hola Ana"
    assert ventas.phrases.still_there == "¿Sigue usted ahí?"
    assert "español" in ventas.instructions
    assert campaigns["default"].phrases.still_there == "Are you still there?"
    assert load_campaigns(tmp_path, "es")["default"].phrases.still_there == (
        "¿Sigue usted ahí?"
    )


def test_a_language_nobody_knows_must_bring_its_phrases(tmp_path: Path) -> None:
    (tmp_path / "default.toml").write_text(
        'language = "fr"\n[phrases]\ngreeting = "Bonjour"\n'
    )
    with pytest.raises(CampaignsInvalid, match=r"'fr'.*still_there"):
        load_campaigns(tmp_path)
    phrases = "\n".join(f'{name} = "Bonjour"' for name in Phrases.model_fields)
    (tmp_path / "default.toml").write_text(f'language = "fr"\n[phrases]\n{phrases}')
    assert load_campaigns(tmp_path)["default"].phrases.closed == "Bonjour"


def test_a_lead_field_that_does_not_exist_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "default.toml").write_text('[phrases]\ngreeting = "Hi {frist_name}"\n')
    with pytest.raises(CampaignsInvalid, match=r"no lead has a field \{frist_name\}"):
        load_campaigns(tmp_path)


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("SALESLINE", "in_group", "SALESLINE"),
        ("917275559999", "extension", "917275559999"),
        ("ingroup:100", "in_group", "100"),
        ("extension:support", "extension", "support"),
        ("", "people", ""),
        ("ingroup:", "people", ""),
    ],
)
def test_transfer_targets_are_in_groups_or_extensions(
    text: str, kind: str, name: str
) -> None:
    target = TransferTarget.parse(text)
    assert (target.kind, target.name) == (kind, name)


def test_campaign_of_a_call_has_the_leads_fields_in_it() -> None:
    campaign = Campaign.model_validate(
        {
            "instructions": "You call {first_name}.",
            "phrases": {"greeting": "Hello {first_name}!", "say_again": "{city}"},
        }
    )
    maria = campaign.for_lead(Lead(1, {"first_name": "Maria"}))
    assert maria.instructions.startswith("You call \u00abMaria\u00bb.")
    assert maria.phrases.greeting == "Hello Maria!"
    assert maria.phrases.say_again == Phrases().say_again, "nothing would be said"
    assert campaign.instructions == "You call {first_name}."
    plain = Campaign()
    assert plain.for_lead(NO_LEAD) == plain


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("", "people", ""),
        ("SALESLINE", "in_group", "SALESLINE"),
        ("917275559999", "extension", "917275559999"),
        ("ingroup:8600", "in_group", "8600"),
        ("did:17275551000", "extension", "17275551000"),
        ("agent:1001", "agent", "1001"),
    ],
)
def test_a_target_says_what_it_is(text: str, kind: str, name: str) -> None:
    target = TransferTarget.parse(text)
    assert (target.kind, target.name) == (kind, name)


def test_fallbacks_must_lead_somewhere_and_in_no_circle(tmp_path: Path) -> None:
    (tmp_path / "default.toml").write_text(
        "[transfer]\nsales = 'SALESLINE'\n[transfer_fallback]\nsales = 'moon'\n"
    )
    (tmp_path / "b.toml").write_text(
        "[transfer]\nsales = 'A1'\nhelp = 'B2'\n"
        "[transfer_fallback]\nsales = 'help'\nhelp = 'sales'\n"
    )
    with pytest.raises(CampaignsInvalid) as caught:
        load_campaigns(tmp_path)
    assert len(caught.value.problems) == 2
    assert "no 'moon'" in str(caught.value)
    assert "circle" in str(caught.value)


def test_ways_of_a_transfer_are_its_fallbacks_in_order() -> None:
    campaign = Campaign.model_validate(
        {
            "transfer": {"sales": "SALESLINE", "help": "SUPPORT"},
            "transfer_fallback": {"sales": "help", "help": "stay"},
        }
    )
    assert campaign.ways("Sales") == ["sales", "help", "stay"]
    assert campaign.ways("") == ["default"]


def test_a_group_of_vicidial_has_one_persona(tmp_path: Path) -> None:
    for name in ("default", "b"):
        (tmp_path / f"{name}.toml").write_text("[vicidial]\nin_groups = ['SALES_IN']\n")
    with pytest.raises(CampaignsInvalid, match=r"SALES_IN is b\.toml's already"):
        load_campaigns(tmp_path)


def test_fields_a_caller_may_change_are_those_of_his_own(tmp_path: Path) -> None:
    (tmp_path / "default.toml").write_text("[vicidial]\nupdate_fields = ['status']\n")
    with pytest.raises(CampaignsInvalid, match="no field that a caller may change"):
        load_campaigns(tmp_path)


def test_a_name_that_means_something_else_is_refused(tmp_path: Path) -> None:
    for name in ("default", "auto"):
        (tmp_path / f"{name}.toml").write_text("")
    with pytest.raises(CampaignsInvalid, match=r"auto\.toml"):
        load_campaigns(tmp_path)


def test_a_file_that_has_changed_has_another_version(tmp_path: Path) -> None:
    file = tmp_path / "default.toml"
    file.write_text("title = 'one'\n")
    first = load_campaigns(tmp_path)["default"].version
    file.write_text("title = 'two'\n")
    assert load_campaigns(tmp_path)["default"].version != first
