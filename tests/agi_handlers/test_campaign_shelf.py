"""Campaigns are read again while calls go on, and chosen by VICIdial's groups."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from agi_handlers.campaign_shelf import CampaignShelf, choose_campaign, wants_group
from agi_handlers.campaigns import Campaign, CampaignsInvalid

INTERVAL_S = 0.02


async def becomes(condition: Callable[[], bool]) -> None:
    for _ in range(250):
        if condition():
            return
        await asyncio.sleep(INTERVAL_S)
    raise AssertionError("it never became true")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "default.toml").write_text("title = 'one'\n")
    return tmp_path


def test_wrong_files_are_fatal_at_the_start(folder: Path) -> None:
    (folder / "default.toml").write_text("titel = 'one'\n")
    with pytest.raises(CampaignsInvalid):
        CampaignShelf.open(folder)


def test_a_call_keeps_the_version_it_began_with(folder: Path) -> None:
    shelf = CampaignShelf.open(folder)
    of_call = dict(shelf)["default"]
    (folder / "default.toml").write_text("title = 'two'\n")
    (folder / "sales.toml").write_text("")
    assert shelf.reload()
    assert of_call.title == "one"
    assert shelf["default"].title == "two"
    assert sorted(shelf) == ["default", "sales"]


def test_a_broken_file_changes_nothing_and_is_said_loudly(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[str] = []
    shelf = CampaignShelf.open(folder)
    shelf.on_problem = said.append
    (folder / "sales.toml").write_text("colour = 'red'\n")
    (folder / "default.toml").write_text("title = 'two'\n")
    with caplog.at_level(logging.ERROR):
        assert not shelf.reload()
    assert shelf["default"].title == "one"
    assert "campaigns_not_reloaded" in caplog.text
    assert "colour" in said[0]
    (folder / "sales.toml").unlink()
    assert shelf.reload()
    assert shelf["default"].title == "two"


def test_an_empty_folder_keeps_the_campaigns(folder: Path) -> None:
    shelf = CampaignShelf.open(folder)
    (folder / "default.toml").unlink()
    assert not shelf.reload()
    assert shelf["default"].title == "one"


async def test_changed_files_are_taken_once_they_are_left_alone(folder: Path) -> None:
    shelf = CampaignShelf.open(folder)
    watching = asyncio.create_task(shelf.watch(INTERVAL_S))
    try:
        (folder / "default.toml").write_text("title = 'half of it")
        (folder / "default.toml").write_text("title = 'half of it, and the rest'\n")
        await becomes(lambda: shelf["default"].title != "one")
        assert shelf["default"].title == "half of it, and the rest"
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def test_a_broken_file_is_complained_about_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = CampaignShelf.open(folder)
    watching = asyncio.create_task(shelf.watch(INTERVAL_S))
    try:
        (folder / "default.toml").write_text("titel = 'two'\n")
        await becomes(lambda: "campaigns_not_reloaded" in caplog.text)
        await asyncio.sleep(8 * INTERVAL_S)
        assert caplog.text.count("campaigns_not_reloaded") == 1
    finally:
        watching.cancel()
        await asyncio.wait([watching])


PERSONAS = {
    "default": Campaign(name="default"),
    "sales": Campaign.model_validate(
        {"name": "sales", "vicidial": {"campaigns": ["BOTCAMP"]}}
    ),
    "night": Campaign.model_validate(
        {"name": "night", "vicidial": {"in_groups": ["NIGHT"]}}
    ),
}


@pytest.mark.parametrize(
    ("asked", "group", "is_inbound", "name"),
    [
        ("", "", False, "default"),
        ("", "BOTCAMP", False, "sales"),
        ("auto", "botcamp", False, "sales"),
        ("auto", "NIGHT", True, "night"),
        ("auto", "NIGHT", False, "default"),
        ("default", "BOTCAMP", False, "default"),
        ("night", "BOTCAMP", False, "night"),
    ],
)
def test_a_persona_is_named_or_found_by_its_group(
    asked: str, group: str, is_inbound: bool, name: str
) -> None:
    found = choose_campaign(PERSONAS, asked, group, is_inbound=is_inbound)
    assert found is not None
    assert found.name == name


def test_an_unknown_name_is_nobody() -> None:
    assert choose_campaign(PERSONAS, "moon") is None


def test_vicidial_is_asked_for_the_group_only_where_it_matters() -> None:
    assert wants_group(PERSONAS, "auto")
    assert not wants_group(PERSONAS, "sales")
    assert not wants_group({"default": Campaign()}, "")
