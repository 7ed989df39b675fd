"""Measures the CPU time per request of the client's process, compared with Tornado's clients.

```sh
python examples/tornado/bench.py                # the table
python examples/tornado/bench.py --profile readback
```

Four clients run in one process, on one IOLoop, against one server (`bench_server.py`, a process of
its own whose time is not counted): this package by readback and by ``await fetch``, Tornado's curl
client and its simple client. In each round every client sends the same number of requests, 50 at a
time, to the same URL, in an order that changes from round to round. Ratios compare clients within
one round, since the machine's other load changes between rounds. The simple client never reuses a
connection, so its time includes connecting.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import datetime
import gc
import os
import platform
import pstats
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Awaitable, Callable, Dict, List, NamedTuple

import pycurl
import tornado
from tornado.curl_httpclient import CurlAsyncHTTPClient
from tornado.simple_httpclient import SimpleAsyncHTTPClient

sys.path.insert(0, str(Path(__file__).resolve().parent))

from httpstream import HTTPStream, Response  # noqa: E402
from httpstream._ffi import library  # noqa: E402

CONCURRENCY = 50
#: The target: this many times as fast as the curl client.
AIM = 5


class Cost(NamedTuple):
    """Microseconds per request."""

    user: float
    system: float
    wall: float

    @property
    def cpu(self) -> float:
        return self.user + self.system


class Work:
    """A number of requests to send, and the count of responses."""

    def __init__(self, url: str, requests: int) -> None:
        self.url = url
        self.requests = requests
        self.to_send = requests
        self.answered = 0

    def take(self) -> bool:
        self.to_send -= 1
        return self.to_send >= 0

    def see(self, code: int, body: bytes) -> None:
        if code != 200 or not body:
            raise RuntimeError(f"the server answered {code} with {len(body)} bytes")
        self.answered += 1


async def by_readback(stream: HTTPStream, work: Work) -> None:
    over = asyncio.get_running_loop().create_future()

    def read(response: Response):
        work.see(response.code, response.body)
        if work.take():
            return work.url
        if work.answered == work.requests:
            over.set_result(None)
        return None

    for _ in range(CONCURRENCY):
        work.take()
        stream.add_request(work.url, read)
    await over


async def by_fetch(fetch: Callable[[str], "asyncio.Future"], work: Work) -> None:
    async def worker() -> None:
        while work.take():
            response = await fetch(work.url)
            work.see(response.code, response.body)

    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))


async def measure(run: Callable[[Work], Awaitable[None]], url: str, requests: int) -> Cost:
    gc.collect()
    work = Work(url, requests)
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    await run(work)
    after, ended = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    if work.answered != requests:
        raise RuntimeError(f"only {work.answered} of {requests} requests were answered")
    per_request = 1e6 / requests
    return Cost(
        (after.ru_utime - before.ru_utime) * per_request,
        (after.ru_stime - before.ru_stime) * per_request,
        (ended - started) * per_request,
    )


def machine() -> str:
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in open("/proc/cpuinfo")
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} CPUs, {cpu}"


def table(costs: Dict[str, List[Cost]]) -> str:
    curl = costs["Tornado's curl client"]
    lines = [
        "| client | CPU, us/request (min–max) | user | system | wall, us/request "
        "| CPU, curl = 1 (min–max of rounds) |",
        "|---|---|---|---|---|---|",
    ]
    for name, rounds in costs.items():
        cpu = [cost.cpu for cost in rounds]
        ratios = [cost.cpu / of_curl.cpu for cost, of_curl in zip(rounds, curl)]
        median = statistics.median
        lines.append(
            f"| {name} | {median(cpu):.1f} ({min(cpu):.1f}–{max(cpu):.1f}) "
            f"| {median(c.user for c in rounds):.1f} | {median(c.system for c in rounds):.1f} "
            f"| {median(c.wall for c in rounds):.1f} "
            f"| {median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f}) |"
        )
    return "\n".join(lines)


async def main(options: argparse.Namespace, url: str) -> None:
    stream = HTTPStream(max_connections_per_origin=CONCURRENCY, max_idle_per_origin=CONCURRENCY)
    curl = CurlAsyncHTTPClient(force_instance=True, max_clients=CONCURRENCY)
    simple = SimpleAsyncHTTPClient(force_instance=True, max_clients=CONCURRENCY)
    clients: Dict[str, Callable[[Work], Awaitable[None]]] = {
        "httpstream, readback": lambda work: by_readback(stream, work),
        "httpstream, await fetch": lambda work: by_fetch(stream.fetch, work),
        "Tornado's curl client": lambda work: by_fetch(curl.fetch, work),
        "Tornado's simple client": lambda work: by_fetch(simple.fetch, work),
    }
    if options.profile:
        run = next(run for name, run in clients.items() if options.profile in name)
        await measure(run, url, 1000)
        with cProfile.Profile() as profile:
            await measure(run, url, options.requests)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return
    if options.only:
        run = next(run for name, run in clients.items() if options.only in name)
        for _ in range(options.rounds):
            print(await measure(run, url, options.requests))
        return
    costs: Dict[str, List[Cost]] = {name: [] for name in clients}
    for run in clients.values():
        await measure(run, url, 1000)
    names = list(clients)
    for round_number in range(options.rounds):
        turn = round_number % len(names)
        for name in names[turn:] + names[:turn]:
            # Connections that are used once keep ports occupied for a while, so fewer are made.
            requests = options.requests // 10 if "simple" in name else options.requests
            costs[name].append(await measure(clients[name], url, requests))
    print(table(costs))
    versions = (
        f"Python {platform.python_version()}, Tornado {tornado.version}, "
        f"{' '.join(pycurl.version.split()[:2])}, httpstream {library.version().decode()}"
    )
    print(
        f"\n{datetime.date.today()}, {versions}; {machine()}; "
        f"{options.rounds} rounds of {options.requests} requests, {CONCURRENCY} at once"
    )
    aim = statistics.median(
        a.cpu / b.cpu for a, b in zip(costs[names[0]], costs["Tornado's curl client"])
    )
    print(f"By readback: 1/{1 / aim:.1f} of the curl client's CPU time (the target: 1/{AIM}).")
    stream.close()
    curl.close()
    simple.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="(default 9)")
    parser.add_argument(
        "--requests",
        type=int,
        default=5000,
        help="per client and round (default 5000; a tenth of it for the simple client)",
    )
    parser.add_argument(
        "--profile", metavar="NAME", help="profile one client: readback, fetch, curl or simple"
    )
    parser.add_argument("--only", metavar="NAME", help="measure one client")
    arguments = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("bench_server.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        asyncio.run(main(arguments, f"http://127.0.0.1:{server.stdout.readline().strip()}/poll"))
    finally:
        server.stdin.close()
        server.wait(10)
