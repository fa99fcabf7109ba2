"""The campaigns there are: read again when a file changes, chosen for each call.

A call keeps the campaign it began with; only calls that begin later get a new version.
Files that are wrong change nothing: what was read last stays, and the log and the
health port say so until they are mended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from agi_handlers.campaigns import (
    AUTO,
    DEFAULT_CAMPAIGN,
    Campaign,
    CampaignsInvalid,
    load_campaigns,
)
from telemetry import ERRORS, fields

logger = logging.getLogger(__name__)

_LOOK_INTERVAL_S = 2.0
# An editor writes a file in several steps; it is read once it has been left alone.
_SETTLED_AFTER_LOOKS = 2


class CampaignShelf(Mapping[str, Campaign]):
    """Name -> campaign, as the files are now."""

    def __init__(
        self,
        directory: Path,
        campaigns: Mapping[str, Campaign],
        on_problem: Callable[[str], None] | None = None,
        language: str = "en-us",
    ) -> None:
        """campaigns: as just read; on_problem hears why files are not taken;
        language: that of files which name none."""
        self._directory = directory
        self._language = language
        self._campaigns = campaigns
        self.on_problem = on_problem or (lambda _: None)
        self._seen = self._look()

    @classmethod
    def open(cls, directory: Path, language: str = "en-us") -> CampaignShelf:
        """Raises CampaignsInvalid: at the start wrong files are fatal."""
        found = load_campaigns(directory, language)
        return cls(directory, found, language=language)

    def __getitem__(self, name: str) -> Campaign:
        return self._campaigns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._campaigns)

    def __len__(self) -> int:
        return len(self._campaigns)

    def reload(self) -> bool:
        """Read every file again; False: they are wrong, and nothing has changed."""
        self._seen = self._look()
        try:
            found = load_campaigns(self._directory, self._language)
        except CampaignsInvalid as exc:
            ERRORS.labels(kind="campaigns_invalid").inc()
            for problem in exc.problems:
                logger.error("campaign_not_taken", extra=fields(error=problem))
            logger.error(
                "campaigns_not_reloaded",
                extra=fields(
                    problems=len(exc.problems),
                    note="calls go on with the campaigns read before",
                ),
            )
            self.on_problem(f"campaigns not reloaded: {exc.problems[0]}")
            return False
        before, self._campaigns = self._campaigns, found
        names = [n for n, one in found.items() if before.get(n) != one]
        gone = [name for name in before if name not in found]
        logger.info(
            "campaigns_reloaded",
            extra=fields(changed=",".join(names), gone=",".join(gone), num=len(found)),
        )
        return True

    async def watch(self, interval_s: float = _LOOK_INTERVAL_S) -> None:
        """Reload when files have changed and settled, until cancelled."""
        changed, looks = self._seen, 0
        while True:
            await asyncio.sleep(interval_s)
            now = await asyncio.to_thread(self._look)
            if now == self._seen:
                looks = 0
                continue
            looks = looks + 1 if now == changed else 1
            changed = now
            if looks >= _SETTLED_AFTER_LOOKS:
                looks = 0
                self.reload()

    def _look(self) -> tuple[tuple[str, int, int], ...]:
        """Names, times and sizes of the files; empty when they cannot be seen."""
        try:
            found = [(f.name, f.stat()) for f in self._directory.glob("*.toml")]
        except OSError:
            return ()
        return tuple(sorted((name, st.st_mtime_ns, st.st_size) for name, st in found))


def choose_campaign(
    campaigns: Mapping[str, Campaign],
    asked: str,
    group: str = "",
    *,
    is_inbound: bool = False,
) -> Campaign | None:
    """The persona a dialplan asked for; `auto` or nothing: by VICIdial's group.

    group: VICIdial's campaign, or the in-group of an inbound call.  None: no such
    campaign.
    """
    if asked and asked != AUTO:
        return campaigns.get(asked)
    for campaign in campaigns.values():
        rules = campaign.vicidial
        groups = rules.in_groups if is_inbound else rules.campaigns
        if group and group.upper() in (name.upper() for name in groups):
            return campaign
    return campaigns.get(DEFAULT_CAMPAIGN)


def wants_group(campaigns: Mapping[str, Campaign], asked: str) -> bool:
    """Whether the choice depends on VICIdial's campaign or in-group."""
    if asked and asked != AUTO:
        return False
    return any(c.vicidial.campaigns or c.vicidial.in_groups for c in campaigns.values())
