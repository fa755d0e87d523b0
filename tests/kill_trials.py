"""Kills doit, and ``k210 gc`` and ``k210 forget``, at changes of the file system drawn at random.

    python tests/kill_trials.py [--kills 500] [--seed 0]

Every rename, removal, new file and write of a run is a moment (``tests/kill_hook.py``). After a
kill a plain doit must give the bytes that a project gives which nobody disturbed, compute nothing
that had been finished, and leave no litter; no process may outlive its killed parent.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.flip_trials import results
from tests.graph.conftest import DODO, Toy
from tests.graph.processes import descendants, running

HOOK = "from tests import kill_hook\nkill_hook.install()\n"
MOST = 60  # moments of a run, more or less
COMMANDS = (
    ("-m", "doit"), ("-m", "doit"), ("-m", "doit", "-n", "2"),
    ("-m", "doit", "-n", "2", "-P", "thread"),
    ("-m", "doit", "k210", "gc"), ("-m", "doit", "k210", "forget", "one"),
)  # fmt: skip


def _as_it_is(text: str) -> str:
    return text


def _by_entropy(text: str) -> str:
    return text.replace("minmax", "kl")


class Trial:
    """A project that is changed, killed and mended again and again."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.rng = rng
        self.toy = Toy(folder / "project")
        self.toy.write("dodo.py", HOOK + DODO)
        self.calm = Toy(folder / "calm")
        self.calm.env["K210_STORE"] = "off"
        self.counter = folder / "moments"

    def change(self) -> None:
        """Something of a project, the same in both."""
        name, turn = self.rng.choice(("one", "two")), self.rng.randrange(4)
        what = self.rng.choice(("source", "image", "settings", "removed"))
        for toy in (self.toy, self.calm):
            if what == "source":
                toy.write(f"src/{name}.pb", f"graph of {name}, {turn}\n")
            elif what == "image":
                toy.write(f"images/{name}/calibration/1.png", f"calibration {turn}")
            elif what == "settings":
                toy.manifest("one", "two", change=(_as_it_is, _by_entropy)[turn % 2])
            elif what == "removed":
                (toy.root / f"workspace/{name}.kmodel").unlink(missing_ok=True)

    def kill(self) -> str:
        """Start a command that is killed on its way; how it ended."""
        self.counter.write_bytes(b"")
        env = {"K210_KILL_AT": str(self.rng.randint(1, MOST)), "K210_KILL_COUNT": str(self.counter)}
        command = self.rng.choice(COMMANDS)
        process = subprocess.Popen(
            [sys.executable, *command], cwd=self.toy.root, env={**self.toy.env, **env},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        seen: set[int] = set()
        while process.poll() is None:
            seen |= set(descendants(process.pid))
            time.sleep(0.01)
        end = time.monotonic() + 10
        while any(running(pid) for pid in seen) and time.monotonic() < end:
            time.sleep(0.02)
        if any(running(pid) for pid in seen):
            return "orphan"
        return "killed" if self.counter.stat().st_size >= int(env["K210_KILL_AT"]) else "ended"

    def faults(self, finished: list[str], since: int) -> list[str]:
        """What is wrong after the next plain doit."""
        done = self.toy.inside()
        if done.returncode or "Traceback" in done.stdout + done.stderr:
            return [f"failed: {done.stderr[-400:]}"]
        self.calm.inside()
        found = [] if results(self.toy) == results(self.calm) else ["corrupt"]
        again = set(self.toy.did("computed", since)) & set(finished)
        found += [f"recomputed {', '.join(sorted(again))}"] if again else []
        self.toy.inside()  # a sweep begins a run
        root = self.toy.root
        litter = list(root.rglob(".k210-*.tmp"))
        litter += [*(root / ".k210/tmp").glob("*"), *(root / ".k210/store/tmp").glob("*")]
        return found + ([f"litter {[str(p.relative_to(root)) for p in litter]}"] if litter else [])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tally, began = Counter[str](), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder).resolve(), random.Random(args.seed))
        trial.toy.inside()
        while tally["killed"] < args.kills:
            trial.change()
            before = len(trial.toy.history())
            how = trial.kill()
            tally[how] += 1
            finished = trial.toy.did("computed", before)
            for fault in trial.faults(finished, len(trial.toy.history())):
                tally[fault.split()[0].rstrip(":")] += 1
                print(f"kill {tally['killed']}, {how}: {fault}", flush=True)
    print(f"seed {args.seed}: {dict(tally)} in {time.monotonic() - began:.0f} s")
    return int(bool(tally.keys() - {"killed", "ended"}))


if __name__ == "__main__":
    sys.exit(main())
