"""Several hosts in one store: what one writes all find, on PostgreSQL and others.

PostgreSQL and MariaDB are started by the test in a folder of their own, where they are
installed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agi_handlers.call_records import CallRecords, RecordsOptions
from agi_handlers.records.archive import (
    BadCursor,
    CallQuery,
    NoRecords,
    RecordsUnreadable,
    SearchTooSlow,
)
from agi_handlers.records.database import RecordsTooNew
from agi_handlers.records.errors import StoreUnavailable
from agi_handlers.records.rows import CallRow, Confirmation, EventRow, TurnRow
from agi_handlers.records.store import StoreOptions, open_archive, open_store
from tests.agi_handlers.records.stored_calls import ROWS, T0
from tests.free_port import free_port
from tools import export_calls, forget

SECRET = "the same on every host"


def _postgres_programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of an empty server on loopback."""
    programs = _postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: postgresql)")
    # it refuses to run as root, and nobody else may look into pytest's folders
    with tempfile.TemporaryDirectory() as folder:
        yield from _run_postgres(programs, Path(folder))


def _run_postgres(programs: Path, folder: Path) -> Iterator[str]:
    user, port = _who_serves(folder), free_port()
    data = folder / "data"
    quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, **user}
    initdb = (programs / "initdb", "-D", data, "-U", "bot", "-A", "trust", "--no-sync")
    subprocess.run(initdb, **quiet, cwd="/")
    options = f"-p {port} -h 127.0.0.1 -k {folder} -F"
    control = (programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log")
    subprocess.run((*control, "-o", options, "start"), **quiet, cwd="/")
    try:
        yield f"postgresql+psycopg://bot@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run((*control, "-m", "immediate", "stop"), **quiet, cwd="/")


@pytest.fixture(scope="module")
def mariadb() -> Iterator[str]:
    """The URL of an empty server on loopback."""
    install, server = (shutil.which(n) for n in ("mariadb-install-db", "mariadbd"))
    if install is None or server is None:
        pytest.skip("MariaDB's server is not installed (Debian: mariadb-server)")
    with tempfile.TemporaryDirectory() as folder:
        yield from _run_mariadb(install, server, Path(folder))


def _run_mariadb(install: str, server: str, folder: Path) -> Iterator[str]:
    user, name = _who_serves(folder), pwd.getpwuid(folder.stat().st_uid).pw_name
    own = ("--no-defaults", f"--datadir={folder}/data", f"--user={name}")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "cwd": "/", **user}
    subprocess.run((install, *own, "--auth-root-authentication-method=normal"),
                   check=True, stderr=subprocess.DEVNULL, **quiet)  # fmt: skip
    port, log = free_port(), folder / "log"
    address = (f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve")
    where = (f"--socket={folder}/socket", f"--log-error={log}")
    careless = ("--innodb-flush-log-at-trx-commit=0", "--skip-innodb-doublewrite")
    running = subprocess.Popen((server, *own, *address, *where, *careless), **quiet)
    try:
        url = f"mysql+pymysql://root@127.0.0.1:{port}/calls?charset=utf8mb4"
        _until_it_answers(url, running)
        yield url
    finally:
        running.terminate()
        running.wait(20)


def _until_it_answers(url: str, running: subprocess.Popen[bytes]) -> None:
    from sqlalchemy import text

    from agi_handlers.records.shared_database import open_engine

    without_database = url.replace("/calls?", "/?")
    engine = open_engine(without_database, keeps=False)
    deadline = time.monotonic() + 30
    while True:
        try:
            with engine.begin() as connection:
                connection.execute(text("CREATE DATABASE IF NOT EXISTS calls"))
            return
        except Exception:  # whatever the driver raises while nobody listens yet
            if running.poll() is not None or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _who_serves(folder: Path) -> dict[str, Any]:
    """Database servers refuse to run as root: the folder becomes nobody's."""
    if os.getuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid}


@pytest.fixture(
    scope="module",
    params=[
        "sqlite",
        pytest.param("postgres", marks=pytest.mark.slow),
        pytest.param("mariadb", marks=pytest.mark.slow),
    ],
)
def server(request: pytest.FixtureRequest) -> str:
    """A server's URL; empty: SQLite, which has none."""
    if request.param == "sqlite":
        return ""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def options(server: str, data_dir: Path) -> StoreOptions:
    """An empty store, as one host has it configured."""
    pytest.importorskip("sqlalchemy")
    if not server:
        return StoreOptions(data_dir, f"sqlite:///{data_dir}/shared.db", SECRET)
    _empty(server)
    return StoreOptions(data_dir, server, SECRET)


def _empty(url: str) -> None:
    from sqlalchemy import text

    from agi_handlers.records.shared_database import open_engine

    engine = open_engine(url)
    what = "SCHEMA public" if url.startswith("postgres") else "DATABASE calls"
    cascade = " CASCADE" if url.startswith("postgres") else ""
    with engine.begin() as connection:
        connection.execute(text(f"DROP {what}{cascade}"))
        connection.execute(text(f"CREATE {what}"))
    engine.dispose()


def fill(options: StoreOptions) -> None:
    keeper = CallRecords(RecordsOptions(options, days=0))
    with keeper.running():
        for row in ROWS:
            if isinstance(row, CallRow):
                keeper.open_call(row)
            else:
                keeper.put(row)
    assert keeper.num_dropped == 0


def found(options: StoreOptions, **query: Any) -> list[str]:
    page = open_archive(options).search(CallQuery(**query))
    return [call["call_id"] for call in page.calls]


def test_the_same_questions_have_the_same_answers(options: StoreOptions) -> None:
    fill(options)
    for query, wanted in (
        ({}, ["call-3", "call-2", "call-1"]),
        ({"number": "212-555-0187"}, ["call-1"]),
        ({"number": "87"}, ["call-1"]),
        ({"campaign": "support"}, ["call-3", "call-2"]),
        ({"status": "running"}, ["call-3"]),
        ({"disposition": "XFER"}, ["call-1"]),
        ({"lead": "4711"}, ["call-2"]),
        ({"text": "OPEN"}, ["call-1"]),
        ({"text": "clos* wh*"}, ["call-2", "call-1"]),
        ({"text": "clos"}, []),
        ({"text": "%"}, []),
        ({"text": "call-2"}, ["call-2"]),
        ({"text": "1700000000.1"}, ["call-1"]),
        ({"text": "' OR 1=1 --"}, []),
        ({"since_at": T0 + 50, "until_at": T0 + 150}, ["call-2"]),
    ):
        assert found(options, **query) == wanted, query


def test_pages_and_a_whole_call(options: StoreOptions) -> None:
    fill(options)
    archive = open_archive(options)
    first = archive.search(CallQuery(limit=2))
    assert first.next_cursor is not None
    assert found(options, cursor=first.next_cursor) == ["call-1"]
    with pytest.raises(BadCursor):
        archive.search(CallQuery(cursor="nonsense"))
    call = archive.call("call-1")
    assert call is not None
    assert [turn["response_ms"] for turn in call["turns"]] == [None, 450]
    assert call["events"] == [
        {"at_ms": 5000, "kind": "barge_in", "name": "", "detail": "", "turn": None}
    ]
    assert "caller_key" not in call
    assert archive.call("nope") is None
    assert archive.campaigns() == ["sales", "support"]
    assert [one["call_id"] for one in archive.each(CallQuery())] == found(options)


def test_figures_are_those_of_the_file(options: StoreOptions) -> None:
    fill(options)
    shared = open_archive(options).figures(T0 - 3600, T0 + 3600, 3600)
    alone = StoreOptions(options.data_dir)
    fill(alone)
    assert shared == open_archive(alone).figures(T0 - 3600, T0 + 3600, 3600)


def test_hosts_close_only_their_own_calls(options: StoreOptions) -> None:
    store = open_store(options)
    try:
        ours = CallRow("ours", T0, owner="a:4573")
        store.write([ours, replace(ours, call_id="theirs", owner="b:4573")])
        said = TurnRow("ours", 1, "reply", said_text="tulips", released_ms=2500)
        store.write([said, EventRow("ours", 1000, "barge_in")])
        store.write([Confirmation("ours", T0 + 86_400, "ok", "status PU")])
        store.write([Confirmation("forgotten", T0, "ok", "")])
        assert store.close_open_calls("a:4573") == 1
    finally:
        store.close()
    call = open_archive(options).call("ours")
    assert call is not None
    assert (call["status"], call["num_turns"], call["num_barge_ins"]) == (
        *("interrupted", 1, 1),
    )
    assert call["ended_at"] == T0 + 2.5
    told = call["events"][-1]
    assert (told["at_ms"], told["kind"], told["name"]) == (
        86_400_000,
        "confirmed",
        "ok",
    )
    assert found(options, text="tulips") == ["ours"]
    assert found(options, status="running") == ["theirs"]


def test_retention_and_forgetting_take_all_of_a_call(options: StoreOptions) -> None:
    fill(options)
    store = open_store(options)
    try:
        assert store.delete_older(T0 + 10) == 1
        key = options.keys().of("3105550123")
        assert store.count(key) == 2
        assert store.forget(key) == 2
        assert found(options) == []
        assert found(options, text="close") == []
    finally:
        store.close()


def test_tools_work_on_it(
    options: StoreOptions, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    fill(options)
    monkeypatch.setenv("ULTRAVOX_DATA_DIR", str(options.data_dir))
    monkeypatch.setenv("ULTRAVOX_RECORDS_URL", options.url)
    monkeypatch.setenv("ULTRAVOX_CALLER_KEY", SECRET)
    assert export_calls.main(["--campaign", "sales"]) == 0
    assert '"call_id": "call-1"' in capsys.readouterr().out
    assert forget.main(["310 555 0123", "--delete", "--recordings-only"]) == 0
    assert len(found(options)) == 3
    assert forget.main(["310 555 0123", "--delete"]) == 0
    assert found(options) == ["call-1"]


def test_an_empty_store_says_so(options: StoreOptions) -> None:
    with pytest.raises(NoRecords):
        open_archive(options).search(CallQuery())


def test_a_later_version_is_not_touched(options: StoreOptions) -> None:
    open_store(options).close()
    from sqlalchemy import text

    from agi_handlers.records.shared_database import open_engine

    engine = open_engine(options.url)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO records_version VALUES (99)"))
    engine.dispose()
    with pytest.raises(RecordsTooNew):
        open_store(options)


def test_what_cannot_be_reached_is_told_without_the_password(data_dir: Path) -> None:
    pytest.importorskip("sqlalchemy")
    url = "postgresql+psycopg://bot:secret@127.0.0.1:1/calls"
    options = StoreOptions(data_dir, url, SECRET)
    with pytest.raises(StoreUnavailable) as unwritable:
        open_store(options)
    with pytest.raises(RecordsUnreadable) as unreadable:
        open_archive(options).search(CallQuery())
    assert "secret" not in f"{unwritable.value} {unreadable.value} {options}"


@pytest.mark.parametrize("url", ["nonsense", "oracle://x", "postgresql+nothing://x"])
def test_urls_nobody_can_serve_are_refused(data_dir: Path, url: str) -> None:
    pytest.importorskip("sqlalchemy")
    with pytest.raises(StoreUnavailable):
        open_archive(StoreOptions(data_dir, url, SECRET))


@pytest.mark.slow
def test_a_question_without_end_is_given_up(postgres: str, data_dir: Path) -> None:
    _empty(postgres)
    options = StoreOptions(data_dir, postgres, SECRET)
    fill(options)
    from sqlalchemy import text

    from agi_handlers.records.shared_database import open_engine

    engine = open_engine(postgres)
    with engine.begin() as holder:  # somebody holds the table
        holder.execute(text("LOCK TABLE calls"))
        with pytest.raises(SearchTooSlow):
            open_archive(options, timeout_s=0.3).search(CallQuery())
    engine.dispose()


def test_numbers_are_found_by_every_host_with_the_secret(data_dir: Path) -> None:
    hosts = [StoreOptions(data_dir / name, "", SECRET) for name in ("a", "b")]
    digests = {host.keys().of("212 555 0187") for host in hosts}
    assert len(digests) == 1
