"""Hosts on one machine, each a network namespace, joined by cables that are slow and long; needs root and Linux.

`tc netem` is not in every kernel: each host has a TAP device instead, whose frames this process carries to the others,
late, and no more bits a second than a cable has.
"""

import ctypes
import fcntl
import heapq
import os
import select
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PREFIX = "nvfp4-test-"
_NEWNET = 0x40000000
_SETIFF, _TAP, _NO_HEADER = 0x400454CA, 0x0002, 0x1000
_LONGEST_QUEUE = 1.0
"""Seconds of frames that wait for a cable; more are lost, as in any switch."""


@dataclass
class Cable:
    """The end of a host's cable in this process: bits a second, seconds on the way, and whether it is plugged in."""

    tap: int
    rate: float
    delay: float
    plugged: bool = True
    free: float = 0.0
    carried: int = 0


@dataclass
class Network:
    """Hosts by name, the first with the address 10.77.0.1."""

    cables: dict[str, Cable]
    _stop: threading.Event = field(default_factory=threading.Event)

    def address(self, host: str) -> str:
        return f"10.77.0.{list(self.cables).index(host) + 1}"

    def command(self, host: str, *command: object) -> list[str]:
        """A command as it is run on a host."""
        return ["ip", "netns", "exec", PREFIX + host, *map(str, command)]

    def carry(self) -> None:
        """Be the switch, until `stop`."""
        waiting: list[tuple[float, int, int, bytes]] = []
        by_tap, known, count = {cable.tap: cable for cable in self.cables.values()}, dict[bytes, int](), 0
        while not self._stop.is_set():
            now = time.monotonic()
            until = min(waiting[0][0] - now, 0.1) if waiting else 0.1
            for tap in select.select(list(by_tap), [], [], max(until, 0.0))[0]:
                frame, cable = os.read(tap, 1 << 16), by_tap[tap]
                known[frame[6:12]] = tap
                now = time.monotonic()
                if not cable.plugged or cable.free - now > _LONGEST_QUEUE:
                    continue
                cable.free = max(cable.free, now) + 8 * len(frame) / cable.rate
                cable.carried += len(frame)
                there = known.get(frame[:6])
                for other in [there] if there is not None else [one for one in by_tap if one != tap]:
                    count += 1
                    heapq.heappush(waiting, (cable.free + cable.delay, count, other, frame))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, tap, frame = heapq.heappop(waiting)
                if by_tap[tap].plugged:
                    os.write(tap, frame)

    def stop(self) -> None:
        self._stop.set()


def missing() -> str:
    """What keeps this machine from having such hosts, "" when nothing does."""
    if os.geteuid() or not Path("/dev/net/tun").exists():
        return "it needs root and /dev/net/tun"
    made = subprocess.run(["ip", "netns", "add", f"{PREFIX}try"], capture_output=True, check=False)
    if made.returncode:
        return f"network namespaces can not be made: {made.stderr.decode().strip()}"
    subprocess.run(["ip", "netns", "del", f"{PREFIX}try"], check=True)
    return ""


@contextmanager
def network(names: Sequence[str], rate: float, delay: float) -> Iterator[Network]:
    """Hosts of these names, each with a cable of `rate` bits a second and `delay` seconds one way."""
    with ExitStack() as stack:
        cables = {}
        for number, name in enumerate(names, 1):
            subprocess.run(["ip", "netns", "add", PREFIX + name], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "del", PREFIX + name], check=True)
            tap = _tap_in(PREFIX + name)
            stack.callback(os.close, tap)
            cables[name] = Cable(tap, rate, delay)
            for command in (f"addr add 10.77.0.{number}/24 dev wire", "link set wire up", "link set lo up"):
                subprocess.run(["ip", "-n", PREFIX + name, *command.split()], check=True)
        made = Network(cables)
        thread = threading.Thread(target=made.carry, name="switch")
        thread.start()
        try:
            yield made
        finally:
            made.stop()
            thread.join()


def _tap_in(namespace: str) -> int:
    """A TAP device called `wire` in a namespace; a thread of its own goes there, and ends."""
    found: list[int] = []

    def make() -> None:
        with Path(f"/run/netns/{namespace}").open("rb") as there:
            if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), _NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tap, _SETIFF, struct.pack("16sH22x", b"wire", _TAP | _NO_HEADER))
        found.append(tap)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return found[0]
