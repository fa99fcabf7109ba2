"""VICIdial behind its HTTP APIs: a small database that behaves as the real one.

Written from measured answers of 2.14: the texts, what each function does to leads, logs
and live rows, the keepalive's ten seconds, a strict database that queues nothing, the
lock after ten bad logins.  Speaks real HTTP; Asterisk's part is a test's callback.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self
from urllib.parse import parse_qs

from tests.free_port import free_port

Fault = Literal["", "html", "500", "empty", "silent", "reset", "redirect"]

LEAD_FIELDS = (
    "status", "user", "vendor_lead_code", "source_id", "list_id", "gmt_offset_now",
    "phone_code", "phone_number", "title", "first_name", "middle_initial", "last_name",
    "address1", "address2", "address3", "city", "state", "province", "postal_code",
    "country_code", "gender", "date_of_birth", "alt_phone", "email", "security_phrase",
    "comments", "called_count", "last_local_call_time", "rank", "owner",
    "entry_list_id", "lead_id",
)  # fmt: skip
KEEPALIVE_S = 10.0
LOCK_AFTER = 10
_INGROUPS = ("SALESLINE", "SUPPORT")


@dataclass(slots=True)
class Line:
    """A row of vicidial_live_agents for one line of a remote agent."""

    user: str
    status: str = "READY"
    call_id: str = ""
    lead_id: str = ""
    phone_number: str = ""
    extension: str = "8901"


@dataclass(slots=True)
class LiveCall:
    """A row of vicidial_auto_calls."""

    call_id: str
    lead_id: str
    group: str
    phone_number: str
    status: str = "LIVE"


@dataclass(slots=True)
class LogRow:
    """A row of vicidial_log or vicidial_closer_log."""

    call_id: str
    group: str
    status: str
    user: str = "VDAD"
    is_closed: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came."""

    method: str
    path: str
    query: str
    form: dict[str, str]

    @property
    def function(self) -> str:
        return self.form.get("function", "")


@dataclass(slots=True)
class VicidialDatabase:
    """What VICIdial knows; `answer` is its PHP."""

    user: str = "botapi"
    password: str = "Secret-Pass_1"
    campaign: str = "BOTCAMP"
    leads: dict[str, dict[str, str]] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)
    calls: dict[str, LiveCall] = field(default_factory=dict)
    log: dict[str, LogRow] = field(default_factory=dict)
    dnc: set[tuple[str, str]] = field(default_factory=set)
    callbacks: dict[str, dict[str, str]] = field(default_factory=dict)
    custom: dict[str, dict[str, str]] = field(default_factory=dict)
    free_agents: dict[str, int] = field(default_factory=dict)
    """In-group -> agents waiting for a call; two where nothing is said."""
    agents: dict[str, str] = field(default_factory=dict)
    """People logged in -> READY, INCALL, PAUSED."""
    remote_agents: dict[str, str] = field(default_factory=dict)
    """User ID Start -> ACTIVE or INACTIVE, as last set by API."""
    forbidden: frozenset[str] = frozenset()
    """Functions the API user may not use."""
    clock_ahead_s: int = 0
    has_strict_sql: bool = False
    refuses_callbacks: bool = False
    unknown_functions: frozenset[str] = frozenset()
    """What an older VICIdial does not have."""
    utc_offset_s: int = -5 * 3600
    num_bad_logins: int = 0
    on_hang_up: Callable[[str], None] = lambda call_id: None
    on_redirect: Callable[[str, str], None] = lambda call_id, where: None
    lead_status_history: list[tuple[str, str]] = field(default_factory=list)

    # --- what happens on the dialer ---

    def add_line(self, user: str) -> None:
        self.lines[user] = Line(user)

    def add_lead(self, lead_id: int, phone_number: str, **values: str) -> None:
        lead = dict.fromkeys(LEAD_FIELDS, "")
        lead |= {
            "status": "NEW",
            "list_id": "999",
            "gmt_offset_now": "-5.00",
            "phone_code": "1",
            "phone_number": phone_number,
            "called_count": "0",
            **values,
            "lead_id": str(lead_id),
        }
        self.leads[str(lead_id)] = lead

    def give_call(self, call_id: str, lead_id: int, group: str = "") -> Line:
        """The routing AGI gives a call to the first line that is READY."""
        line = next(li for li in self.lines.values() if li.status == "READY")
        group = group or self.campaign
        lead = self.leads[str(lead_id)]
        line.status, line.call_id = "QUEUE", call_id
        line.lead_id, line.phone_number = str(lead_id), lead["phone_number"]
        self.calls[call_id] = LiveCall(
            call_id, str(lead_id), group, lead["phone_number"], "XFER"
        )
        is_inbound = call_id.startswith("Y")
        self.log[call_id] = LogRow(
            call_id, group, "QUEUE", line.user if is_inbound else "VDAD"
        )
        self._set_status(str(lead_id), "QUEUE")
        return line

    def keepalive(self) -> None:
        """Every fifth loop of AST_VDremote_agents: QUEUE becomes INCALL, XFER."""
        for line in self.lines.values():
            if line.status == "QUEUE" and line.call_id in self.calls:
                line.status = "INCALL"
                row = self.log[line.call_id]
                row.status, row.user = "XFER", line.user
                self._set_status(line.lead_id, "XFER")
            elif line.call_id and line.call_id not in self.calls:
                self._free(line)

    def channel_ended(self, call_id: str) -> None:
        """call_log of the h extension: closes the log row, deletes the live row."""
        row, call = self.log.get(call_id), self.calls.pop(call_id, None)
        if row is not None and not row.is_closed:
            row.is_closed = True
            if row.status == "QUEUE":
                row.status = "DROP"
        if call is not None and row is not None and row.status == "DROP":
            self._set_status(call.lead_id, "DROP")

    def _set_status(self, lead_id: str, status: str) -> None:
        if lead_id in self.leads:
            self.leads[lead_id]["status"] = status[:6]
            self.lead_status_history.append((lead_id, status[:6]))

    @staticmethod
    def _free(line: Line) -> None:
        line.status, line.call_id, line.lead_id, line.phone_number = "READY", "", "", ""

    # --- the APIs ---

    def answer(self, path: str, form: dict[str, str]) -> str:
        """The body of one answer; HTTP says 200 whatever it is."""
        function = form.get("function", "")
        if function == "version":
            return self._version(path)
        if len(form.get("source", "")) < 2:
            return "ERROR: Invalid Source - \n"
        refused = self._login(path, form)
        if refused:
            return refused
        is_agent_api = path == "/agc/api.php"
        if function in self.forbidden:
            who = "auth USER" if is_agent_api else f"{function} USER"
            return (
                f"ERROR: {who} DOES NOT HAVE PERMISSION TO USE THIS FUNCTION - "
                f"{self.user}|{function}|\n"
            )
        name = f"_{'agent' if is_agent_api else 'non_agent'}_{function}"
        do = getattr(self, name, None)
        if do is None or function in self.unknown_functions:
            return "" if is_agent_api else "ERROR: NO FUNCTION SPECIFIED\n"
        body: str = do(form)
        return body + "\n"

    def _version(self, path: str) -> str:
        now = int(time.time()) + self.clock_ahead_s
        local = time.gmtime(now + self.utc_offset_s)
        date = time.strftime("%Y-%m-%d %H:%M:%S", local)
        if path == "/agc/api.php":
            return f"VERSION: 2.14-81|BUILD: 240429-2220|DATE: {date}|EPOCH: {now}\n"
        return (
            f"VERSION: 2.14-194|BUILD: 241004-1518|DATE: {date}|EPOCH: {now}|"
            "DST: 0|TZ: -5|TZNOW: -5|\n"
        )

    def _login(self, path: str, form: dict[str, str]) -> str:
        user, password = form.get("user", ""), form.get("pass", "")
        is_locked = self.num_bad_logins >= LOCK_AFTER
        if user == self.user and password == self.password and not is_locked:
            return ""
        self.num_bad_logins += 1
        end = "LOCK" if is_locked else "BAD"
        if path == "/agc/api.php":
            return f"ERROR: Invalid Username/Password: |{user}|{password}|{end}|\n"
        return f"ERROR: Login incorrect, please try again: |{user}|{password}|{end}|\n"

    def _agent_ra_call_control(self, form: dict[str, str]) -> str:
        user, call_id = form.get("agent_user", ""), form.get("value", "")
        stage, status = form.get("stage", ""), form.get("status", "") or "RAXFER"
        if not user or not call_id or not stage:
            return f"ERROR: ra_call_control not valid - {call_id}|{user}|{stage}"
        if user not in self.lines and user not in self.agents:
            return f"ERROR: agent_user is not logged in - {user}"
        call = self.calls.get(call_id.upper())
        if call is None:
            return f"ERROR: no active call found - {call_id}"
        third = where = ""
        match stage:
            case "HANGUP":
                third = "HANGUP"
            case "EXTENSIONTRANSFER":
                where = "".join(
                    c for c in form.get("phone_number", "") if c in "0123456789*#"
                )
                if len(where) < 2:
                    return f"ERROR: phone_number is not valid - {where}"
                third = where
            case "INGROUPTRANSFER":
                where = form.get("ingroup_choices", "")
                if where == "DEFAULTINGROUP":
                    return "ERROR: ingroup is not valid - ---NONE---"
                if where == "AGENTDIRECT":
                    where = f"AGENTDIRECT {user}"
                elif where not in _INGROUPS:
                    return f"ERROR: ingroup is not valid - {where}"
            case _:
                return f"ERROR: stage is not valid - {stage}"
        row = self.log[call.call_id]
        row.status, row.user = status[:6], user
        self._set_status(call.lead_id, status)
        for line in self.lines.values():
            if line.call_id == call.call_id:
                self._free(line)
        del self.calls[call.call_id]
        if not self.has_strict_sql:
            if stage == "HANGUP":
                self.on_hang_up(call.call_id)
            else:
                self.on_redirect(call.call_id, where)
        verb = "hungup" if stage == "HANGUP" else "transfer"
        return f"SUCCESS: ra_call_control {verb} - {user}|{call.call_id}|{third}"

    def _non_agent_callid_info(self, form: dict[str, str]) -> str:
        row = self.log.get(form["call_id"])
        if row is None:
            return f"ERROR: callid_info CALL NOT FOUND: {form['call_id']}"
        kind = "INBOUND" if row.call_id.startswith("Y") else "OUTBOUND_AUTO"
        header = (
            "call_id|custtime|call_date|phone|call_type|campaign_id|list_id|status|user"
        )
        values = (
            f"{row.call_id}|12|2026-11-22 10:00:00|7275551212|{kind}|{row.group}|999|"
            f"{row.status}|{row.user}"
        )
        return f"{header}\n{values}"

    def _non_agent_agent_status(self, form: dict[str, str]) -> str:
        user = form["agent_user"]
        line = self.lines.get(user)
        if user in self.agents:
            line = Line(user, self.agents[user])
        if line is None:
            return f"ERROR: agent_status AGENT NOT LOGGED IN: {user}"
        header = (
            "status|callid|lead_id|campaign_id|calls_today|full_name|user_group|"
            "user_level|pause_code|real_time_sub_status|phone_number|vendor_lead_code|"
            "session_id"
        )
        values = (
            f"{line.status}|{line.call_id}|{line.lead_id}|{self.campaign}|3|Bot|BOTS|"
            f"1|||{line.phone_number}||{line.extension}"
        )
        return f"{header}\n{values}"

    def _non_agent_lead_all_info(self, form: dict[str, str]) -> str:
        lead = self.leads.get(form.get("lead_id", ""))
        if lead is None:
            text = f"ERROR: lead_all_info LEAD NOT FOUND: {form.get('lead_id')}"
            return f"{text}\n{text}"
        values = "|".join(lead[name] for name in LEAD_FIELDS)
        return f"{'|'.join(LEAD_FIELDS)}\n{values}"

    def _non_agent_lead_field_info(self, form: dict[str, str]) -> str:
        lead = self.leads.get(form.get("lead_id", ""))
        if lead is None:
            return f"ERROR: lead_field_info LEAD NOT FOUND: {form.get('lead_id')}"
        return lead.get(form["field_name"], "")

    def _non_agent_lead_search(self, form: dict[str, str]) -> str:
        number = form["phone_number"]
        ids = [
            lead_id
            for lead_id, lead in self.leads.items()
            if lead["phone_number"] == number
        ]
        if not ids:
            return f"ERROR: lead_search NO MATCHES FOUND IN THE SYSTEM: {number}"
        return f"{number}|{len(ids)}|{'-'.join(sorted(ids, key=int, reverse=True))}"

    def _non_agent_in_group_status(self, form: dict[str, str]) -> str:
        """One row for all that were asked for, by the names they were asked by."""
        if not form.get("in_groups"):
            return f"ERROR: in_group_status INVALID SEARCH PARAMETERS: {self.user}|"
        lines = []
        if form.get("header") == "YES":
            lines.append(
                "ingroups|total_calls|calls_waiting|agents_logged_in|agents_in_calls|"
                "agents_waiting|agents_paused|agents_in_dispo|agents_in_dial"
            )
        names = form["in_groups"].split("|")
        known = [name for name in names if name in _INGROUPS]
        free = sum(self.free_agents.get(name, 2) for name in known)
        logged_in = max(3 * len(known), free)
        lines.append(
            f"{' '.join(names)}|{2 * len(known)}|{len(known)}|{logged_in}|"
            f"{logged_in - free}|{free}|0|0|0"
        )
        return "\n".join(lines)

    def _non_agent_update_lead(self, form: dict[str, str]) -> str:
        lead_id = form.get("lead_id", "")
        lead = self.leads.get(lead_id)
        if lead is None:
            return f"ERROR: update_lead NO MATCHES FOUND IN THE SYSTEM: {lead_id}"
        lines = []
        changed = {
            name: "" if form[name] == "--BLANK--" else form[name]
            for name in LEAD_FIELDS
            if form.get(name) and name not in ("lead_id", "list_id", "user")
        }
        if "status" in changed:
            self._set_status(lead_id, changed["status"])
        if "comments" in changed:
            changed["comments"] = changed["comments"][:255]
        rows = int(any(lead[name] != value for name, value in changed.items()))
        lead |= changed
        if changed:
            lines.append(
                "SUCCESS: update_lead LEAD HAS BEEN UPDATED - "
                f"{self.user}|{lead_id}|{rows}|||"
            )
        known = self.custom.get(lead_id, {})
        if form.get("custom_fields") == "Y":
            known |= {name: form[name] for name in known if name in form}
            lines.append(
                f"NOTICE: update_lead CUSTOM FIELDS VALUES UPDATED - {lead_id}"
            )
        is_callback = form.get("callback") == "Y" and not self.refuses_callbacks
        if is_callback and form.get("campaign_id"):
            verb = "UPDATED" if lead_id in self.callbacks else "ADDED"
            self.callbacks[lead_id] = _callback(form)
            lines.append(
                f"NOTICE: update_lead SCHEDULED CALLBACK {verb} - {lead_id}|1|BOTCAMP"
            )
        return "\n".join(lines)

    def _non_agent_update_log_entry(self, form: dict[str, str]) -> str:
        group, call_id = form.get("group", ""), form.get("call_id", "")
        groups = {*_INGROUPS, self.campaign, *(row.group for row in self.log.values())}
        if group not in groups:
            return f"ERROR: update_log_entry GROUP NOT FOUND: {self.user}|{group}"
        row = self.log.get(call_id)
        if row is None or row.group != group:
            return f"ERROR: update_log_entry NO RECORDS FOUND: {self.user}|{call_id}"
        if row.status == form["status"]:
            return f"ERROR: update_log_entry NO RECORDS UPDATED - {row.call_id}"
        old, row.status = row.status, form["status"][:6]
        return (
            "SUCCESS: update_log_entry RECORD HAS BEEN UPDATED - "
            f"{self.user}|{self.user}|{row.group}|{row.call_id}|{row.status}|{old}"
        )

    def _non_agent_add_lead(self, form: dict[str, str]) -> str:
        number, lead_id = form["phone_number"], 1 + max(map(int, self.leads), default=0)
        if len(number) < 6:
            return f"ERROR: add_lead INVALID PHONE NUMBER LENGTH - {number}|{self.user}"
        known = [
            lead
            for lead in self.leads.values()
            if lead["phone_number"] == number and lead["list_id"] == form["list_id"]
        ]
        if known and form.get("duplicate_check") == "DUPLIST":
            return (
                "ERROR: add_lead DUPLICATE PHONE NUMBER IN LIST - "
                f"{number}|{form['list_id']}|{known[0]['lead_id']}"
            )
        given = {n: form[n] for n in LEAD_FIELDS if form.get(n)}
        self.add_lead(lead_id, **{**given, "phone_number": number})
        lines = [
            "SUCCESS: add_lead LEAD HAS BEEN ADDED - "
            f"{number}|{form['list_id']}|{lead_id}|-5|{self.user}",
            f"NOTICE: add_lead NOT ADDED TO HOPPER - {lead_id}",
        ]
        if form.get("callback") == "Y" and form.get("campaign_id"):
            self.callbacks[str(lead_id)] = _callback(form)
            self._set_status(str(lead_id), "CBHOLD")
            lines.append(f"NOTICE: add_lead SCHEDULED CALLBACK ADDED - {lead_id}")
        return "\n".join(lines)

    def _non_agent_add_dnc_phone(self, form: dict[str, str]) -> str:
        key = (form["phone_number"], form["campaign_id"])
        if key in self.dnc:
            return (
                "ERROR: add_dnc_phone DNC NUMBER ALREADY EXISTS: "
                f"{self.user}|{key[0]}|{key[1]}"
            )
        self.dnc.add(key)
        return (
            "SUCCESS: add_dnc_phone DNC NUMBER HAS BEEN ADDED - "
            f"{self.user}|{key[0]}|{key[1]}"
        )

    def _non_agent_update_remote_agent(self, form: dict[str, str]) -> str:
        user = form["agent_user"]
        if user not in self.lines:
            return f"ERROR: update_remote_agent REMOTE AGENT DOES NOT EXIST: {user}"
        self.remote_agents[user] = form["status"]
        return (
            "SUCCESS: update_remote_agent REMOTE AGENT HAS BEEN UPDATED - "
            f"{self.user}|{user}|"
        )


def _callback(form: dict[str, str]) -> dict[str, str]:
    names = ("callback_datetime", "callback_status", "campaign_id")
    return {name: form.get(name, "") for name in names}


class FakeVicidial:
    """The web server in front of it; one answer a connection."""

    def __init__(self, database: VicidialDatabase | None = None) -> None:
        self.db = database or VicidialDatabase()
        self.requests: list[Request] = []
        self.fault: Fault = ""
        self.faulty_functions: frozenset[str] = frozenset()
        """Functions the fault is limited to; empty: all."""
        self.lost_answers = 0
        """So many requests are carried out, but their answers get lost."""
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def functions(self) -> list[str]:
        """Of all requests so far, without the version probes."""
        return [r.function for r in self.requests if r.function != "version"]

    def forms(self, function: str) -> list[dict[str, str]]:
        return [r.form for r in self.requests if r.function == function]

    async def asked(
        self, function: str, times: int = 1, timeout_s: float = 10.0
    ) -> dict[str, str]:
        """Until a function was asked for so often; the form of the last time."""
        async with asyncio.timeout(timeout_s):
            while len(self.forms(function)) < times:
                self._changed.clear()
                await self._changed.wait()
        return self.forms(function)[-1]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the port of last time if there was one."""
        self._port = self._port or free_port()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def stop(self) -> None:
        """The web server is down."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split("\r\n", 1)[0].split(" ")
        length = 0
        for line in head.split("\r\n")[1:]:
            name, _, value = line.partition(":")
            if name.lower() == "content-length":
                length = int(value)
        body = (await reader.readexactly(length)).decode()
        path, _, query = target.partition("?")
        form = {k: v[-1] for k, v in parse_qs(body, keep_blank_values=True).items()}
        request = Request(method, path, query, form)
        self.requests.append(request)
        self._changed.set()
        fault = self.fault
        if self.faulty_functions and request.function not in self.faulty_functions:
            fault = ""
        if fault == "silent":
            await reader.read()  # until the other side gives up
            return
        await self._respond(fault, request, writer)

    async def _respond(
        self, fault: Fault, request: Request, writer: asyncio.StreamWriter
    ) -> None:
        status, more, text = "200 OK", "", ""
        match fault:
            case "":
                text = self.db.answer(request.path, request.form)
                if self.lost_answers and request.function != "version":
                    self.lost_answers -= 1
                    writer.transport.abort()
                    return
            case "html":
                text = "<!DOCTYPE html>\n<html><body><form>Login: ...</form></html>\n"
            case "500":
                status = "500 Internal Server Error"
            case "redirect":
                status, more = "302 Found", "Location: https://127.0.0.1/\r\n"
            case "reset" | "silent":
                writer.transport.abort()
                return
            case "empty":
                pass
        payload = text.encode()
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\n{more}"
            f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n".encode()
            + payload
        )
        await writer.drain()
