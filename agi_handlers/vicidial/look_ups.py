"""Data lines of VICIdial's look-ups -> typed results.  Pure.

Columns are taken by the names in the header line, because later versions append some
and the manual has others; values are not quoted, so their number is checked.
Source: vicidial/non_agent_api.php (2.14).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from agi_handlers.errors import VicidialUnavailable


class ColumnsShifted(VicidialUnavailable):
    """A row has more or fewer columns than its header: a value holds a separator."""


def rows_by_name(
    function: str, lines: Sequence[str], must_have: str, separator: str = "|"
) -> list[Mapping[str, str]]:
    """Rows under a header line, each as name -> value.

    The header may be repeated before every row.  Names are taken in lower case;
    columns that later versions append do no harm.

    Raises:
        ColumnsShifted: no header, or a row with another number of columns.
    """
    if not lines:
        return []
    names = [name.strip().lower() for name in lines[0].split(separator)]
    if must_have not in names:
        raise ColumnsShifted(f"{function}: no header with {must_have}")
    rows: list[Mapping[str, str]] = []
    for line in lines[1:]:
        if line == lines[0]:
            continue
        values = [value.strip() for value in line.split(separator)]
        if len(values) != len(names):
            raise ColumnsShifted(
                f"{function}: {len(values)} columns under {len(names)} names"
            )
        rows.append(MappingProxyType(dict(zip(names, values, strict=True))))
    return rows


@dataclass(frozen=True, slots=True)
class ApiVersion:
    """What the `version` function tells."""

    version: str
    build: str
    utc_offset_s: int | None = None
    """Of the web server's local time, in which all of VICIdial's times are."""
    epoch_s: int | None = None
    """Its clock, when it answered."""


def read_version(lines: Sequence[str]) -> ApiVersion:
    """Raises VicidialUnavailable when it is none."""
    parts = {
        name.strip().upper(): value.strip()
        for line in lines[:1]
        for name, _, value in (part.partition(":") for part in line.split("|"))
    }
    if not parts.get("VERSION"):
        raise VicidialUnavailable("version: not an answer of VICIdial's API")
    offset_s = epoch_s = None
    try:
        local = datetime.strptime(parts["DATE"], "%Y-%m-%d %H:%M:%S")
        epoch_s = int(parts["EPOCH"])
        seconds = local.replace(tzinfo=UTC).timestamp() - epoch_s
        # zones are whole quarters of an hour; the answer's two clocks tick apart
        offset_s = round(seconds / 900) * 900
    except (KeyError, ValueError, OverflowError):
        pass
    if offset_s is not None and abs(offset_s) > 15 * 3600:
        offset_s = None
    build = parts.get("BUILD", "")[:40]
    return ApiVersion(parts["VERSION"][:40], build, offset_s, epoch_s)


@dataclass(frozen=True, slots=True)
class CallInfo:
    """`callid_info`: where a running or ended call belongs."""

    call_type: str
    campaign_id: str
    """The in-group for an inbound call."""
    list_id: str
    status: str
    user: str
    """The line that has it; VDAD until the keepalive has noted it (10 s, outbound)."""


def read_call_info(lines: Sequence[str]) -> CallInfo | None:
    rows = rows_by_name("callid_info", lines, "campaign_id")
    if not rows:
        return None
    row = rows[0]
    return CallInfo(
        call_type=row.get("call_type", ""),
        campaign_id=row["campaign_id"],
        list_id=row.get("list_id", ""),
        status=row.get("status", ""),
        user=row.get("user", ""),
    )


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """`agent_status` of one line."""

    status: str
    call_id: str
    lead_id: str
    campaign_id: str
    phone_number: str
    session_id: str
    """A remote agent's external extension."""
    sub_status: str
    """DEAD: the caller is gone, the line not yet freed."""


def read_agent_status(lines: Sequence[str]) -> AgentStatus | None:
    rows = rows_by_name("agent_status", lines, "lead_id")
    if not rows:
        return None
    row = rows[0]
    return AgentStatus(
        status=row.get("status", ""),
        # the column's name differs between versions and the manual
        call_id=row.get("callid") or row.get("call_id") or row.get("callerid", ""),
        lead_id=row["lead_id"],
        campaign_id=row.get("campaign_id", ""),
        phone_number=row.get("phone_number", ""),
        session_id=row.get("session_id", ""),
        sub_status=row.get("real_time_sub_status", ""),
    )


@dataclass(frozen=True, slots=True)
class InGroupStatus:
    """`in_group_status`: is somebody there to take a transfer?"""

    num_calls: int
    num_waiting: int
    num_agents: int
    """Logged in, whatever they do."""
    num_agents_waiting: int
    """Free for a call."""

    @property
    def is_somebody_free(self) -> bool:
        """A call sent there now would be taken at once."""
        return self.num_agents_waiting > 0


_COUNTS = ("total_calls", "calls_waiting", "agents_logged_in", "agents_waiting")


def read_in_group_status(lines: Sequence[str]) -> InGroupStatus | None:
    """The one row that there is for whatever groups were asked for.

    Raises:
        ColumnsShifted: no numbers where they should be.
    """
    rows = rows_by_name("in_group_status", lines, "agents_waiting")
    if not rows:
        return None
    counts = [rows[0].get(name, "") for name in _COUNTS]
    if not all(re.fullmatch(r"[0-9]{1,9}", count) for count in counts):
        raise ColumnsShifted("in_group_status: a number is missing")
    return InGroupStatus(*map(int, counts))


def read_lead_search(lines: Sequence[str]) -> tuple[int, ...]:
    """Lead ids of `number|count|id-id-id`, newest first."""
    ids: list[int] = []
    for line in lines:
        values = line.split("|")
        if len(values) >= 3:
            found = re.fullmatch(r"\d{1,10}(?:-\d{1,10})*", values[2].strip(), re.ASCII)
            ids += [int(part) for part in found[0].split("-")] if found else []
    return tuple(ids)
