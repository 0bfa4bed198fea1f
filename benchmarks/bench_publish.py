"""A bundle of 600 MB goes to S3, killed ten times at random moments, beside a reader.

    python benchmarks/bench_publish.py

The S3 server is moto's, in a process of its own on this machine; requests pass a proxy that counts
them. First one version is published without a kill, which gives the rate. Then a second one: its
process is killed with SIGKILL at ten moments drawn at random over the bytes that are still to be
sent, and begun again each time, while a reader pulls whatever is published, over and over, and
verifies every byte. At the end a byte of an object is flipped, and a pull has to find it.

Writes benchmarks/results/publish.md.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from result import save, stamp

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from counting_proxy import CountingProxy, Request, counting_proxy  # noqa: E402
from s3_server import S3Server, s3_server  # noqa: E402
from slant.artifacts import load  # noqa: E402
from slant.errors import ArtifactError  # noqa: E402
from slant.progress import SilentProgress  # noqa: E402
from slant.publish.pull import pull_bundle  # noqa: E402
from slant.publish.release import Release  # noqa: E402
from slant.publish.s3_store import PART_BYTES  # noqa: E402
from tiny_release import write_release  # noqa: E402

TO = "s3://models/bench"


def start(release: Release, proxy: CountingProxy) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, TESTS / "publish_worker.py", release.folder, TO, str(PART_BYTES)],
        env={**os.environ, "AWS_ENDPOINT_URL": proxy.endpoint},
    )


def run(release: Release, proxy: CountingProxy) -> float:
    started = time.monotonic()
    if start(release, proxy).wait() != 0:
        sys.exit("publishing failed")
    return time.monotonic() - started


def run_and_kill(release: Release, proxy: CountingProxy, num_parts: int, delay_s: float) -> bool:
    """Kill the process a moment after it began its n-th part; False if it came to the end."""
    process: subprocess.Popen[bytes] | None = None
    ready, seen = threading.Event(), 0

    def kill() -> None:
        ready.wait()
        assert process is not None
        process.send_signal(signal.SIGKILL)

    def before(request: Request) -> None:
        nonlocal seen
        if request.part:
            seen += 1
            if seen == num_parts:
                threading.Timer(delay_s, kill).start()

    proxy.before = before
    process = start(release, proxy)
    ready.set()
    code = process.wait()
    proxy.before = lambda request: None
    proxy.settle()
    return code == -signal.SIGKILL


class Reader(threading.Thread):
    """Pulls into one folder and verifies it, until told to stop; notes every version."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.versions: list[str] = []
        self.failure: BaseException | None = None
        self._folder = folder
        self._done = threading.Event()

    def run(self) -> None:
        try:
            while not self._done.is_set():
                pulled = pull_bundle(TO, self._folder, progress=SilentProgress())
                load(self._folder, "export").verify()
                self.versions.append(pulled.version)
                self._done.wait(0.2)
        except BaseException as error:
            self.failure = error

    def stop(self) -> None:
        self._done.set()
        self.join()


def flip_a_byte(server: S3Server, release: Release) -> str:
    key = f"bench/versions/{release.version}/causal-lm/model.safetensors"
    content = bytearray(server.get(f"models/{key}"))
    content[len(content) // 3] ^= 1
    server.put(f"models/{key}", bytes(content))
    return key


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=600)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=17)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    weights_bytes = arguments.megabytes * 1_000_000 // 2
    with tempfile.TemporaryDirectory() as name, s3_server() as server:
        root = Path(name)
        server.put("models", b"")
        old = write_release(root / "old", seed=0, weights_bytes=weights_bytes)
        new = write_release(root / "new", seed=1, weights_bytes=weights_bytes)
        with counting_proxy(server.endpoint) as proxy:
            whole_s = run(old, proxy)
            num_parts = len(proxy.parts())
            proxy.requests.clear()
            reader = Reader(root / "read")
            reader.start()
            kills = 0
            while kills < arguments.kills:
                left = num_parts - len(set(proxy.parts()))
                # Parts that are under way when the process dies still arrive.
                share = max(1, left // (2 * (arguments.kills - kills)))
                delay_s = chance.random() * whole_s / num_parts  # up to one part later
                if not run_and_kill(new, proxy, chance.randint(1, share), delay_s):
                    break
                kills += 1
            last_s = run(new, proxy)
            time.sleep(5)
            reader.stop()
            sent, different = len(proxy.parts()), len(set(proxy.parts()))
        if reader.failure is not None:
            raise reader.failure
        pulled_s = -time.monotonic()
        pulled = pull_bundle(TO, root / "pulled", progress=SilentProgress())
        pulled_s += time.monotonic()
        assert pulled.version == new.version
        same = all(
            (pulled.folder / file).read_bytes() == new.path(file).read_bytes() for file in new.files
        )
        key = flip_a_byte(server, new)
        try:
            pull_bundle(TO, root / "damaged", progress=SilentProgress())
            found = "was not found"
        except ArtifactError as error:
            found = "was found: `" + error.message.partition("/versions/")[2] + "`"
    old_reads = reader.versions.count(old.version)
    order = reader.versions == [old.version] * old_reads + [new.version] * (
        len(reader.versions) - old_reads
    )
    save("publish", [
        "# Publishing",
        "",
        " ".join((__doc__ or "").partition("\n\n    python")[0].split())
        + " "
        + " ".join((__doc__ or "").split("\n\n")[2].split()),
        "",
        f"    python benchmarks/bench_publish.py --megabytes {arguments.megabytes} "
        f"--kills {arguments.kills}",
        "",
        f"{stamp()};",
        f"{new.num_bytes / 1e6:,.0f} MB in {num_parts} parts of {PART_BYTES >> 20} MiB.",
        "",
        "| | |",
        "|---|---|",
        f"| published without a kill | {whole_s:.1f} s, {old.num_bytes / whole_s / 1e6:.0f} MB/s, "
        "start of the process included |",
        f"| killed | {kills} times |",
        f"| parts sent, all attempts together | {sent}, of {different} different ones |",
        f"| last attempt | {last_s:.1f} s |",
        f"| what was pulled is what was published, byte for byte | {'yes' if same else 'NO'} |",
        f"| pulled by the reader meanwhile, each verified | {old_reads} times the old version, "
        f"then {len(reader.versions) - old_reads} times the new one |",
        f"| a mixture, or the old version after the new one | {'never' if order else 'SEEN'} |",
        f"| pull, verified while it is written | {pulled_s:.1f} s, "
        f"{new.num_bytes / pulled_s / 1e6:.0f} MB/s |",
        f"| one flipped byte in {Path(key).parent.name}/{Path(key).name} | {found} |",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
