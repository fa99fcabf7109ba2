"""VICIdial's Agent and Non-Agent APIs over HTTP, one method per function we use.

POST only, one try only: what must arrive goes through the outbox.  After one refused
login no further call is made with these credentials: ten lock the user for a quarter
of an hour, the right password included.
Long, because every function we use stands here, and nothing else.
Source: docs AGENT_API.txt, NON-AGENT_API.txt and the PHP behind them (2.14).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Literal, Self, TypeAlias

import httpx

from agi_handlers.errors import VicidialUnavailable
from agi_handlers.vicidial.api_text import (
    is_status,
    password_problem,
    phone_digits,
    stored_text,
)
from agi_handlers.vicidial.look_ups import (
    AgentStatus,
    ApiVersion,
    CallInfo,
    ColumnsShifted,
    InGroupStatus,
    read_agent_status,
    read_call_info,
    read_in_group_status,
    read_lead_search,
    read_version,
    rows_by_name,
)
from agi_handlers.vicidial.responses import (
    ENGLISH,
    MAX_BODY_BYTES,
    Accepted,
    Denied,
    LoginRefused,
    Refusal,
    Refused,
    Response,
    Vocabulary,
    accepted,
    data_lines,
    read_response,
)
from model.http_bodies import plain_client, read_bounded
from telemetry import ERRORS, fields

logger = logging.getLogger(__name__)

Api: TypeAlias = Literal["agent", "non_agent"]
_PATHS: Mapping[Api, str] = {
    "agent": "/agc/api.php",
    "non_agent": "/vicidial/non_agent_api.php",
}


class NotSent(VicidialUnavailable):
    """No connection: VICIdial has not seen the request at all."""


class VicidialOptionsInvalid(ValueError):
    """URL, user or password can never work; the message says why, without them."""


@dataclass(frozen=True, slots=True)
class VicidialOptions:
    """Where the APIs are, as whom, and how long they may take."""

    url: str
    user: str
    password: str = field(repr=False)
    # 2 to 20 letters or digits; stands in VICIdial's API log
    source: str = "ultravox"
    # While a caller waits, or Asterisk keeps a dead channel for us: vicidial.md's 3 s.
    timeout_s: float = 3.0
    # A host that is gone is noticed within this; the rest is for PHP and MySQL.
    connect_timeout_s: float = 1.0
    # Apache's prefork workers are few, and a dialer has other users.
    max_connections: int = 16
    # A PEM file for a web server with a certificate of its own.
    ca_file: Path | None = None
    vocabulary: Vocabulary = ENGLISH

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise VicidialOptionsInvalid("the URL must begin with http:// or https://")
        if "@" in self.url.split("/")[2]:
            raise VicidialOptionsInvalid("the URL must not contain user or password")
        if not self.user:
            raise VicidialOptionsInvalid("the API user is empty")
        problem = password_problem(self.password)
        if problem is not None:
            raise VicidialOptionsInvalid(f"the API password {problem}")
        _tls(self)
        is_plain = self.source.isascii() and self.source.isalnum()
        if not is_plain or not 2 <= len(self.source) <= 20:
            raise VicidialOptionsInvalid("the source must be 2 to 20 letters or digits")


@dataclass(frozen=True, slots=True)
class CallbackRequest:
    """When to call a lead back."""

    campaign_id: str
    """Required, or nothing is scheduled."""
    at: str
    """`YYYY-MM-DD HH:MM:SS`, the web server's time."""
    comments: str = ""
    status: str = "CALLBK"

    @property
    def form(self) -> dict[str, str]:
        """As `update_lead` and `add_lead` want it."""
        return {
            "campaign_id": self.campaign_id,
            "callback": "Y",
            "callback_status": self.status,
            "callback_datetime": self.at,
            "callback_type": "ANYONE",
            "callback_comments": stored_text(self.comments, "callback_comments"),
        }


class VicidialClient:
    """One connection pool to one VICIdial; use as an async context."""

    def __init__(self, options: VicidialOptions) -> None:
        self._options = options
        self._login_refused = False
        self._http: httpx.AsyncClient | None = None

    def __repr__(self) -> str:
        return f"VicidialClient({self._options.url!r})"

    @property
    def is_locked_out(self) -> bool:
        """The login was refused: nothing more is sent until a restart."""
        return self._login_refused

    async def __aenter__(self) -> Self:
        options = self._options
        self._http = plain_client(
            base_url=options.url.rstrip("/"),
            timeout=httpx.Timeout(options.timeout_s, connect=options.connect_timeout_s),
            limits=httpx.Limits(
                max_connections=options.max_connections,
                max_keepalive_connections=options.max_connections,
            ),
            follow_redirects=False,  # a redirected POST becomes a GET with a login page
            trust_env=False,  # no proxy may see the password
            verify=_tls(options),
        )
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.__aexit__(exc_type, exc, traceback)

    # --- Agent API ---

    async def version(self, api: Api) -> ApiVersion:
        """Needs no login and cannot lock anybody out."""
        response = await self._post(api, "version", {}, with_login=False)
        return read_version(data_lines("version", response))

    async def hang_up(self, call_id: str, agent_user: str, status: str) -> None:
        """`ra_call_control` HANGUP: status into log and lead, line READY, channel gone.

        SUCCESS means queued; the channel follows within a second, or never.

        Raises:
            Refused: NO_ACTIVE_CALL, AGENT_NOT_LOGGED_IN.  VicidialUnavailable.
        """
        await self._control(call_id, agent_user, status, {"stage": "HANGUP"})

    async def transfer_to_in_group(
        self, call_id: str, agent_user: str, status: str, in_group: str
    ) -> None:
        """`ra_call_control` INGROUPTRANSFER.  Raises as `hang_up`, INGROUP_INVALID."""
        await self._control(
            call_id,
            agent_user,
            status,
            {"stage": "INGROUPTRANSFER", "ingroup_choices": in_group},
        )

    async def transfer_to_agent(self, call_id: str, agent: str, status: str) -> None:
        """`ra_call_control` to one person, by his user id.

        VICIdial takes AGENTDIRECT's person from agent_user, so its log names him.
        Raises as `hang_up`; AGENT_NOT_LOGGED_IN: he is not there.
        """
        await self.transfer_to_in_group(call_id, agent, status, "AGENTDIRECT")

    async def transfer_to_extension(
        self, call_id: str, agent_user: str, status: str, extension: str
    ) -> None:
        """`ra_call_control` EXTENSIONTRANSFER.  Raises as `hang_up`, PHONE_INVALID."""
        await self._control(
            call_id,
            agent_user,
            status,
            {"stage": "EXTENSIONTRANSFER", "phone_number": extension},
        )

    async def _control(
        self, call_id: str, agent_user: str, status: str, more: Mapping[str, str]
    ) -> None:
        assert is_status(status), "a disposition has 1 to 6 letters or digits"
        await self._change(
            "ra_call_control",
            {"agent_user": agent_user, "value": call_id, "status": status, **more},
            "agent",
        )

    # --- Non-Agent API: look-ups ---

    async def lead_all_info(self, lead_id: int) -> Mapping[str, str] | None:
        """Every standard field of a lead by name; None: no such lead for this user.

        Raises:
            ColumnsShifted: a value holds the separator; ask single fields.
        """
        lines = await self._look_up(
            "lead_all_info", {"lead_id": str(lead_id), "header": "YES", "stage": "pipe"}
        )
        rows = rows_by_name("lead_all_info", lines, "lead_id")
        return rows[0] if rows else None

    async def lead_field_info(self, lead_id: int, name: str, list_id: str = "") -> str:
        """One field; empty when it is, or when there is none.

        list_id: for a custom field.
        """
        custom = {"custom_fields": "Y", "list_id": list_id} if list_id else {}
        lines = await self._look_up(
            "lead_field_info",
            {"lead_id": str(lead_id), "field_name": name, **custom},
            is_bare=True,
        )
        return lines[0] if lines else ""

    async def lead_value(self, lead_id: int, name: str) -> str:
        """One field, by whichever function this VICIdial has and can answer."""
        try:
            lead = await self.lead_all_info(lead_id)
        except ColumnsShifted:
            return await self.lead_field_info(lead_id, name)
        except Refused as exc:
            if exc.reason is not Refusal.UNKNOWN_FUNCTION:  # before 2021
                raise
            return await self.lead_field_info(lead_id, name)
        return lead.get(name, "") if lead is not None else ""

    async def lead_search(self, phone_number: str) -> tuple[int, ...]:
        """Leads with that number, the newest first."""
        lines = await self._look_up("lead_search", {"phone_number": phone_number})
        return read_lead_search(lines)

    async def callid_info(self, call_id: str) -> CallInfo | None:
        """Campaign or in-group of a call, and the line that has it."""
        lines = await self._look_up(
            "callid_info",
            {"call_id": call_id, "detail": "YES", "header": "YES", "stage": "pipe"},
        )
        return read_call_info(lines)

    async def agent_status(self, agent_user: str) -> AgentStatus | None:
        """What one line is doing; None: not logged in."""
        lines = await self._look_up(
            "agent_status",
            {"agent_user": agent_user, "header": "YES", "stage": "pipe"},
            missing=(Refusal.NOT_FOUND, Refusal.AGENT_NOT_LOGGED_IN),
        )
        return read_agent_status(lines)

    async def in_group_status(self, in_group: str) -> InGroupStatus | None:
        """Calls and agents of an in-group; of one that does not exist: none of them."""
        lines = await self._look_up(
            "in_group_status",
            {"in_groups": in_group, "header": "YES", "stage": "pipe"},
        )
        return read_in_group_status(lines)

    # --- Non-Agent API: changes ---

    async def update_lead(
        self,
        lead_id: int,
        values: Mapping[str, str],
        *,
        comments: str | None = None,
        custom: Mapping[str, str] | None = None,
        callback: CallbackRequest | None = None,
    ) -> None:
        """Write fields of a lead; `api_text.BLANK` empties one.

        comments: sent as they are; what people wrote there keeps its letters.
        An empty answer means that there was nothing to change.

        Raises:
            Refused: NOT_FOUND, PERMISSION.  VicidialUnavailable.
        """
        asked = {name: stored_text(v, name) for name, v in values.items()}
        asked |= {name: stored_text(v) for name, v in (custom or {}).items()}
        if custom:
            asked["custom_fields"] = "Y"
        if comments is not None:
            asked["comments"] = comments
        if callback is not None:
            asked |= callback.form
        asked["lead_id"] = str(lead_id)
        response = await self._post("non_agent", "update_lead", asked)
        if callback is None and not isinstance(response, Accepted | Denied):
            data = data_lines("update_lead", response)
            if not data:
                return
        done = accepted("update_lead", response)
        words = self._options.vocabulary
        if callback is not None and not words.has_callback(done.notices):
            raise Refused("update_lead", Refusal.OTHER, "no callback was scheduled")

    async def update_log_entry(self, group: str, call_id: str, status: str) -> None:
        """The status of a call in the log; equal already counts as done."""
        await self._change(
            "update_log_entry",
            {"group": group, "call_id": call_id, "status": status},
            done_already=Refusal.UNCHANGED,
        )

    async def add_lead(
        self,
        phone_number: str,
        list_id: int,
        values: Mapping[str, str],
        callback: CallbackRequest | None = None,
    ) -> int | None:
        """A new lead; its id, or None when the list has that number already.

        With a callback VICIdial sets CBHOLD by itself.

        Raises:
            Refused: no such list, no number.  VicidialUnavailable.
        """
        asked = {name: stored_text(v, name) for name, v in values.items()}
        done = await self._change(
            "add_lead",
            {
                "phone_code": "1",
                **asked,
                **(callback.form if callback is not None else {}),
                "phone_number": phone_digits(phone_number),
                "list_id": str(list_id),
                "duplicate_check": "DUPLIST",  # so that it can be told twice
            },
            done_already=Refusal.ALREADY,
        )
        # phone|list|lead_id|gmt|user; the manual has another order
        ids = done.values[2:3] if done is not None else ()
        return int(ids[0]) if ids and ids[0].isascii() and ids[0].isdigit() else None

    async def add_dnc_phone(self, phone_number: str, campaign_id: str = "") -> None:
        """Never dial that number again: system-wide, or one campaign's list.

        A number that is there already counts as done.
        """
        await self._change(
            "add_dnc_phone",
            {
                "phone_number": phone_digits(phone_number),
                "campaign_id": campaign_id or "SYSTEM_INTERNAL",
            },
            done_already=Refusal.ALREADY,
        )

    async def update_remote_agent(self, agent_user: str, *, is_active: bool) -> None:
        """Drain the bot's lines, or open them again."""
        status = "ACTIVE" if is_active else "INACTIVE"
        await self._change(
            "update_remote_agent", {"agent_user": agent_user, "status": status}
        )

    # --- one request ---

    async def _look_up(
        self,
        function: str,
        asked: Mapping[str, str],
        missing: tuple[Refusal, ...] = (Refusal.NOT_FOUND,),
        *,
        is_bare: bool = False,
    ) -> tuple[str, ...]:
        response = await self._post("non_agent", function, asked, is_bare=is_bare)
        if isinstance(response, Denied) and response.reason in missing:
            return ()
        return data_lines(function, response)

    async def _change(
        self,
        function: str,
        asked: Mapping[str, str],
        api: Api = "non_agent",
        *,
        done_already: Refusal | None = None,
    ) -> Accepted | None:
        response = await self._post(api, function, asked)
        if isinstance(response, Denied) and response.reason is done_already:
            return None
        return accepted(function, response)

    async def _post(
        self,
        api: Api,
        function: str,
        asked: Mapping[str, str],
        *,
        with_login: bool = True,
        is_bare: bool = False,
    ) -> Response:
        assert self._http is not None, "used outside its context"
        options = self._options
        if with_login and self._login_refused:
            raise LoginRefused(function)
        form = {"source": options.source, "function": function, **asked}
        if with_login:
            form |= {"user": options.user, "pass": options.password}
        started_s = perf_counter()
        try:
            # httpx's limits are per read: a server that drips would hold a caller
            async with asyncio.timeout(options.timeout_s):
                status, body = await self._exchange(self._http, _PATHS[api], form)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
            ERRORS.labels(kind="vicidial_connection").inc()
            raise NotSent(f"{function}: {type(exc).__name__}") from exc
        except (TimeoutError, httpx.TimeoutException) as exc:
            ERRORS.labels(kind="vicidial_timeout").inc()
            raise VicidialUnavailable(
                f"{function}: no answer in {options.timeout_s:g} s"
            ) from exc
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as exc:
            ERRORS.labels(kind="vicidial_connection").inc()
            raise VicidialUnavailable(f"{function}: {type(exc).__name__}") from exc
        response = read_response(
            status,
            body,
            options.vocabulary,
            options.password,
            bare_function=function if is_bare else "",
        )
        took_ms = round((perf_counter() - started_s) * 1000)
        self._note(function, response, took_ms)
        return response

    @staticmethod
    async def _exchange(
        http: httpx.AsyncClient, path: str, form: Mapping[str, str]
    ) -> tuple[int, bytes]:
        async with http.stream("POST", path, data=dict(form)) as answer:
            # one byte more than is allowed: by that it is judged as unusable
            body = await read_bounded(answer, MAX_BODY_BYTES + 1)
            return answer.status_code, body

    def _note(self, function: str, response: Response, took_ms: int) -> None:
        what = type(response).__name__.lower()
        if isinstance(response, Denied):
            what = f"denied: {response.reason}"
            if response.reason is Refusal.LOGIN:
                self._login_refused = True
                ERRORS.labels(kind="vicidial_login").inc()
                logger.error(
                    "vicidial_login_refused",
                    extra=fields(
                        function=function,
                        advice="check ULTRAVOX_VICIDIAL_USER and _PASSWORD and the "
                        "user's level; nothing is sent until a restart",
                    ),
                )
        logger.info(
            "vicidial", extra=fields(function=function, answer=what, ms=took_ms)
        )


def _tls(options: VicidialOptions) -> ssl.SSLContext | bool:
    if options.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(options.ca_file))
    except (OSError, ssl.SSLError) as exc:
        raise VicidialOptionsInvalid(
            f"{options.ca_file}: no certificate: {exc}"
        ) from exc
