"""Call a running bot as scenario files say, and judge what comes of it.

    python -m tools.evaluate scenarios/*.toml
    python -m tools.evaluate scenarios --repeat 5 --json result.json

Each scenario is a real call: to the FastAGI port, with audio both ways; what the bot
said and did is taken from the call's record on the HTTP port.  The addresses are those
of the settings (ULTRAVOX_AGI_PORT, ULTRAVOX_PORT, ...) unless given.  What the files
may hold is told in `tools/scenario.py`.

Exit status: 0 every scenario passed, 1 one did not, 2 a file is wrong, 3 the bot cannot
be called.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import uvloop

import config
from tools.caller.say_items import BadItem, Item
from tools.live_stack import (
    LiveStack,
    StackAddress,
    StackUnusable,
    open_stack,
    stack_address,
)
from tools.scenario import Scenario, ScenarioInvalid, caller_items, load_scenario
from tools.scenario_judge import Judgement, judge


@dataclass(frozen=True, slots=True)
class Prepared:
    """A scenario, checked, with everything that will be said."""

    path: Path
    scenario: Scenario
    items: Sequence[Item]


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    options = _parser().parse_args(arguments)
    try:
        prepared = prepare(options.scenarios)
        address = _address(options)
    except ScenarioInvalid as exc:
        for problem in exc.problems:
            print(problem, file=sys.stderr)
        return 2
    results: Results = []
    reasons: list[str] = []
    try:
        results = uvloop.run(_run(prepared, address, options))
    except* StackUnusable as group:
        reasons = [str(exc) for exc in group.exceptions]
    if reasons:
        print(f"evaluate: {reasons[0]}", file=sys.stderr)
        return 3
    num_failed = sum(bool(one.problems) for _, runs in results for one in runs)
    num_calls = sum(len(runs) for _, runs in results)
    print(f"{num_calls - num_failed} of {num_calls} calls as wanted")
    if options.json is not None:
        options.json.write_text(json.dumps(_as_json(results), indent=1) + "\n")
    return 1 if num_failed else 0


def prepare(paths: Sequence[Path]) -> list[Prepared]:
    """Read every file, or every file of a folder.

    Raises:
        ScenarioInvalid: with the mistakes of all of them.
    """
    prepared, problems = [], []
    files = [
        file
        for path in paths
        for file in (sorted(path.glob("*.toml")) if path.is_dir() else [path])
    ]
    if not files:
        problems.append("no scenario files there")
    for file in files:
        try:
            scenario = load_scenario(file)
            prepared.append(
                Prepared(file, scenario, caller_items(scenario, file.parent))
            )
        except ScenarioInvalid as exc:
            problems += exc.problems
        except BadItem as exc:
            problems.append(f"{file}: {exc}")
    if problems:
        raise ScenarioInvalid(problems)
    return prepared


Results = list[tuple[Prepared, list[Judgement]]]


async def _run(
    prepared: Sequence[Prepared], address: StackAddress, options: argparse.Namespace
) -> Results:
    lines = asyncio.Semaphore(options.parallel)
    async with open_stack(address) as stack:

        async def one(what: Prepared) -> Judgement:
            async with lines:
                return await _call(stack, what, with_delays=not options.no_delays)

        results: Results = []
        async with asyncio.TaskGroup() as tasks:
            calls = [
                (what, [tasks.create_task(one(what)) for _ in range(options.repeat)])
                for what in prepared
            ]
            for what, running in calls:
                judged = [await task for task in running]
                results.append((what, judged))
                for judgement in judged:
                    _show(what, judgement, is_verbose=options.verbose)
    return results


async def _call(stack: LiveStack, what: Prepared, *, with_delays: bool) -> Judgement:
    scenario = what.scenario
    report, record = await stack.call(
        scenario.script,
        what.items,
        variables=scenario.variables,
        linger_s=scenario.linger_s,
        longest_s=scenario.longest_s,
    )
    return judge(scenario, report, record, with_delays=with_delays)


def _show(what: Prepared, judgement: Judgement, *, is_verbose: bool) -> None:
    verdict = "FAIL" if judgement.problems else "ok"
    print(f"{verdict:<5} {what.path.name}: {what.scenario.title}", flush=True)
    if judgement.problems or is_verbose:
        for exchange in judgement.exchanges:
            delay = exchange.response_ms
            told = "no answer" if delay is None else f"{delay} ms"
            heard = f" (heard: {exchange.heard_as})" if exchange.heard_as else ""
            print(f"        caller  {exchange.said}{heard}")
            print(f"        bot     {exchange.reply or '-'}  [{told}]")
        actions = ", ".join(judgement.actions) or "none"
        print(f"        ended   {judgement.status or '?'}; actions: {actions}")
    for problem in judgement.problems:
        print(f"     -> {problem}")


def _as_json(results: Results) -> list[dict[str, object]]:
    return [
        {
            "file": str(what.path),
            "title": what.scenario.title,
            "passed": sum(not one.problems for one in runs),
            "calls": [asdict(one) for one in runs],
        }
        for what, runs in results
    ]


def _address(options: argparse.Namespace) -> StackAddress:
    """From the arguments, else from the settings.

    Raises:
        ScenarioInvalid: neither makes sense.
    """
    try:
        settings = config.load()
    except config.ConfigError as exc:
        raise ScenarioInvalid(exc.problems) from exc
    address = stack_address(settings)
    if options.agi:
        host, _, text = options.agi.rpartition(":")
        if not host or not text.isdecimal():
            raise ScenarioInvalid(["--agi: HOST:PORT is wanted"])
        address = replace(address, agi_host=host.strip("[]"), agi_port=int(text))
    return replace(
        address,
        http_url=options.http or address.http_url,
        api_key=options.key or address.api_key,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("scenarios", type=Path, nargs="+", help="files, or folders of them")
    add("--agi", default="", metavar="HOST:PORT", help="the bot's FastAGI port")
    add("--http", default="", metavar="URL", help="its HTTP port, for the records")
    add("--key", default="", help="API key, where it asks for one")
    add("--repeat", type=int, default=1, help="calls of each scenario")
    add("--parallel", type=int, default=1, help="calls at once")
    add("--json", type=Path, help="file for the whole result")
    add(
        "--no-delays",
        action="store_true",
        help="judge what is said and done, not how fast: for a machine that is busy",
    )
    add("--verbose", action="store_true", help="show what was said in every call")
    return parser


if __name__ == "__main__":
    sys.exit(main())
