"""Known faults of the installed packages, checked without a network.

    python -m tools.audit osv-pypi.zip [--ignore PYSEC-2026-1,CVE-2026-2]

Wants the advisories of the Python Packaging Advisory Database in OSV's form: fetch
`https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip` where there is a
network, and carry it here.  Compares them with every package installed beside this
Python, and says how old the newest advisory is: nothing younger can be found.  Where a
network is, `pip-audit` (`pip install pip-audit && pip-audit`) asks for today's.

What it cannot tell: whether the bot uses the part that is at fault; faults of what is
no Python package (libtorch inside of torch has its advisories under torch, the system's
libraries have theirs elsewhere); faults nobody has reported.

Exit status: 0 nothing known, 1 something is, 2 the file is no such database.
Source of the form: https://ossf.github.io/osv-schema/
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

import msgspec
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

_ECOSYSTEM: Final = "PyPI"
_MAX_SUMMARY_CHARS: Final = 100


class _Event(msgspec.Struct):
    introduced: str | None = None
    fixed: str | None = None
    last_affected: str | None = None


class _Range(msgspec.Struct):
    type: str
    events: list[_Event]


class _Package(msgspec.Struct):
    name: str
    ecosystem: str


class _Affected(msgspec.Struct):
    package: _Package | None = None
    ranges: list[_Range] = []
    versions: list[str] = []


class _Advisory(msgspec.Struct):
    id: str
    modified: str
    summary: str = ""
    details: str = ""
    aliases: list[str] = []
    withdrawn: str | None = None
    affected: list[_Affected] = []


@dataclass(frozen=True, slots=True)
class Fault:
    """An installed package that an advisory is about."""

    package: str
    version: str
    names: tuple[str, ...]
    """The advisory's own and its aliases."""
    fixed_in: tuple[str, ...]
    summary: str


@dataclass(frozen=True, slots=True)
class Audit:
    """What a database said."""

    num_packages: int
    num_advisories: int
    newest: str
    """When the last advisory was changed: the database's age."""
    faults: Sequence[Fault]


class DatabaseInvalid(Exception):
    """The file is no archive of OSV records."""


def audit(database: Path, installed: Iterable[tuple[str, str]]) -> Audit:
    """Compare names and versions with the advisories.

    Raises:
        DatabaseInvalid: the file is missing, no ZIP, has no advisory for Python
            packages, or one that cannot be read.
    """
    versions = {
        canonicalize_name(name): _Installed(name, version)
        for name, version in installed
    }
    num_advisories, newest = 0, ""
    faults: list[Fault] = []
    for advisory in _advisories(database):
        about = [
            affected
            for affected in advisory.affected
            if affected.package and affected.package.ecosystem == _ECOSYSTEM
        ]
        num_advisories += bool(about)
        newest = max(newest, advisory.modified)
        if advisory.withdrawn is not None:
            continue
        for affected in about:
            assert affected.package is not None
            found = versions.get(canonicalize_name(affected.package.name))
            if found is not None and _affects(affected, found.version):
                faults.append(_fault(advisory, affected, found))
    if not num_advisories:
        raise DatabaseInvalid(f"{database}: no advisory for Python packages")
    return Audit(len(versions), num_advisories, newest, _merged(faults))


@dataclass(frozen=True, slots=True)
class _Installed:
    name: str
    version: str


def _advisories(database: Path) -> Iterator[_Advisory]:
    try:
        with zipfile.ZipFile(database) as archive:
            for name in archive.namelist():
                if name.endswith(".json"):
                    yield msgspec.json.decode(archive.read(name), type=_Advisory)
    except (OSError, zipfile.BadZipFile) as exc:
        raise DatabaseInvalid(f"{database}: {exc}") from exc
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise DatabaseInvalid(f"{database}: {name}: {exc}") from exc


def _affects(affected: _Affected, installed: str) -> bool:
    """Listed by name, or inside of a range."""
    if installed in affected.versions:
        return True
    version = _version(installed)
    if version is None:
        return False
    # "2.13.0+cpu" is a build of the 2.13.0 that advisories name
    version = Version(version.public)
    if any(_version(listed) == version for listed in affected.versions):
        return True
    return any(
        _is_in(one, version) for one in affected.ranges if one.type == "ECOSYSTEM"
    )


def _is_in(one: _Range, version: Version) -> bool:
    """The events in order of their versions; the last one that applies decides."""
    is_in = False
    for at, ends, event in sorted(_bounds(one.events), key=lambda bound: bound[:2]):
        if event.last_affected is not None:
            is_in = is_in and version <= at
        elif version >= at:
            is_in = not ends
    return is_in


def _bounds(events: Iterable[_Event]) -> Iterator[tuple[Version, bool, _Event]]:
    for event in events:
        text = event.introduced or event.fixed or event.last_affected
        # "0" is before everything, pre-releases of 0 too
        version = Version("0.dev0") if event.introduced == "0" else _version(text)
        if version is not None:
            yield version, event.introduced is None, event


def _version(text: str | None) -> Version | None:
    try:
        return Version(text or "")
    except InvalidVersion:
        return None


def _fault(advisory: _Advisory, affected: _Affected, found: _Installed) -> Fault:
    fixes = [event.fixed for one in affected.ranges for event in one.events]
    summary = " ".join((advisory.summary or advisory.details).split())
    return Fault(
        package=found.name,
        version=found.version,
        names=(advisory.id, *advisory.aliases),
        fixed_in=tuple(fix for fix in fixes if fix is not None and _version(fix)),
        summary=summary[:_MAX_SUMMARY_CHARS],
    )


def _merged(faults: Sequence[Fault]) -> Sequence[Fault]:
    """GitHub's and PyPA's advisory of the same fault once."""
    kept: list[Fault] = []
    for fault in sorted(faults, key=lambda one: (one.package.lower(), one.names)):
        if not any(
            one.package == fault.package and set(one.names) & set(fault.names)
            for one in kept
        ):
            kept.append(fault)
    return kept


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("database", type=Path, help="OSV's all.zip of PyPI")
    parser.add_argument("--ignore", default="", help="comma list of advisories")
    options = parser.parse_args(arguments)
    installed = [(one.metadata["Name"], one.version) for one in distributions()]
    try:
        result = audit(options.database, installed)
    except DatabaseInvalid as exc:
        print(f"tools.audit: {exc}", file=sys.stderr)
        return 2
    ignored = set(options.ignore.split(","))
    faults = [fault for fault in result.faults if not ignored & set(fault.names)]
    for fault in faults:
        fixed = f", fixed in {', '.join(fault.fixed_in)}" if fault.fixed_in else ""
        print(f"{fault.package} {fault.version}: {' '.join(fault.names)}{fixed}")
        print(f"    {fault.summary}")
    print(
        f"{result.num_packages} packages, {result.num_advisories} advisories, the "
        f"newest of {result.newest[:10]}: {len(faults) or 'no'} known "
        f"fault{'' if len(faults) == 1 else 's'}"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
