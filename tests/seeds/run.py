"""Does a campaign keep its rules, whatever fails, whoever is killed, and however often? Plays campaigns from seeds.

`make check-seeds` calls this. Each seed draws a fleet, a campaign of one to three stages, faults of hosts and of calls, and
moments at which processes are killed, stalled and overtaken; it is played in virtual time (`campaign`) against awsim in the same
process (`world`), and judged by the rule checker (`patchwave.campaign.audit`) from awsim's journal and the ledger. Besides, each
campaign has to end, and a host that nothing was done to has to be patched.

A seed is played in a process of its own, forked from one that has made a world before: so it plays the same alone as among
others. `make check-seeds SEED=1234` plays that one and tells its story. The last line is `N seeds, N runs with faults, N broken
rules`; the exit status is 1 when a rule was broken.

A proof that cannot fail proves nothing: `python -m tests.seeds.run --sabotage all` puts the bugs of `sabotage` in, one after
the other, and says for each how many seeds it took to find it.
"""

from __future__ import annotations

import argparse
import os
import pickle
import select
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

WORKERS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What came of one seed.

    Attributes:
        rough: something went wrong in it on purpose.
    """

    seed: int
    broken: tuple[str, ...]
    rough: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def played(seed: int, *, tell: Callable[[str], None] = lambda _: None, calm: bool = False, sabotage: str = "") -> Verdict:
    """Play one seed in this process."""
    from tests.seeds.campaign import NoEnd, SeededCampaign
    from tests.seeds.sabotage import SABOTAGE

    began = time.process_time()
    if sabotage:
        SABOTAGE[sabotage]()
    try:
        campaign = SeededCampaign(seed=seed, tell=tell, calm=calm)
    except Exception:  # noqa: BLE001 - whatever it is, the seed is the news
        return Verdict(seed=seed, broken=(f"no campaign: {traceback.format_exc(limit=-3)}",))
    try:
        campaign.play()
        broken = campaign.judge()
    except NoEnd as problem:
        broken = [f"end: {problem}", *campaign.judge()]
    except Exception:  # noqa: BLE001 - whatever it is, the seed is the news
        broken = [f"tripped: {traceback.format_exc(limit=-4)}"]
    return Verdict(
        seed=seed, broken=tuple(broken), rough=campaign.rough, counts=campaign.counted(), seconds=time.process_time() - began
    )


def warm_up() -> None:
    """Load what is loaded once; every seed is forked from here."""
    from tests.seeds.campaign import SeededCampaign

    SeededCampaign(seed=0, calm=True).play()


def all_of(seeds: list[int], *, workers: int, sabotage: str = "", calm: bool = False) -> Iterator[Verdict]:
    """Verdicts as they come, each from a process of its own."""
    waiting = list(reversed(seeds))
    running: dict[int, tuple[int, int, bytearray]] = {}  # by pipe
    try:
        yield from _all_of(waiting, running, workers=workers, sabotage=sabotage, calm=calm)
    finally:
        for pipe, (_, child, _) in running.items():
            os.close(pipe)
            os.waitpid(child, 0)


def _all_of(
    waiting: list[int], running: dict[int, tuple[int, int, bytearray]], *, workers: int, sabotage: str, calm: bool
) -> Iterator[Verdict]:
    while waiting or running:
        while waiting and len(running) < workers:
            seed = waiting.pop()
            pipe, child = _forked(lambda seed=seed: played(seed, sabotage=sabotage, calm=calm))  # type: ignore[misc]
            running[pipe] = (seed, child, bytearray())
        for pipe in select.select(list(running), [], [])[0]:
            seed, child, said = running[pipe]
            chunk = os.read(pipe, 1 << 16)
            said += chunk
            if chunk:
                continue
            os.close(pipe)
            os.waitpid(child, 0)
            del running[pipe]
            yield pickle.loads(said) if said else Verdict(seed=seed, broken=("its process died",))


def _forked(work: Callable[[], Verdict]) -> tuple[int, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return reading, child
    status = 1
    try:
        os.close(reading)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(work(), pipe)
        status = 0
    finally:
        os._exit(status)


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="how many (1000)")
    parser.add_argument("--first", type=int, default=1, metavar="N", help="the first of them (1)")
    parser.add_argument("--seed", type=int, metavar="N", help="play this one only, and tell its story")
    parser.add_argument("--workers", type=int, default=WORKERS, metavar="N", help=f"processes at once ({WORKERS})")
    parser.add_argument("--calm", action="store_true", help="no faults and no kills")
    parser.add_argument("--sabotage", default="", metavar="NAME", help="put a bug in, to see whether seeds find it")
    options = parser.parse_args()
    os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"  # thousands of images, loaded for each world: a third of the time
    warm_up()
    if options.sabotage == "all":
        return _prove(list(range(options.first, options.first + options.seeds)), workers=options.workers)
    if options.seed is not None:
        verdict = played(options.seed, tell=print, calm=options.calm, sabotage=options.sabotage)
        _tell(verdict)
        return _last_line([verdict])
    began = time.monotonic()
    verdicts = []
    seeds = list(range(options.first, options.first + options.seeds))
    for verdict in all_of(seeds, workers=options.workers, sabotage=options.sabotage, calm=options.calm):
        verdicts.append(verdict)
        if verdict.broken:
            _tell(verdict)
    counts = sum((verdict.counts for verdict in verdicts), Counter[str]())
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    slowest = max(verdicts, key=lambda one: one.seconds)
    print(
        f"took {time.monotonic() - began:.0f} s; {sum(one.seconds for one in verdicts) / len(verdicts):.2f} s of a core a seed, "
        f"at most {slowest.seconds:.1f} s (seed {slowest.seed})"
    )
    return _last_line(verdicts)


def _prove(seeds: list[int], *, workers: int) -> int:
    """Whether each bug is found; 1 if one is not."""
    from tests.seeds.sabotage import SABOTAGE

    missed = 0
    for name in SABOTAGE:
        for tried, verdict in enumerate(all_of(seeds, workers=workers, sabotage=name), start=1):
            if verdict.broken:
                print(f"{name}: found after {tried} seeds: seed {verdict.seed}: {verdict.broken[0][:200]}", flush=True)
                break
        else:
            missed += 1
            print(f"{name}: NOT FOUND in {len(seeds)} seeds", flush=True)
    print(f"{len(SABOTAGE)} bugs, {missed} not found")
    return 1 if missed else 0


def _tell(verdict: Verdict) -> None:
    for one in verdict.broken:
        print(f"seed {verdict.seed}: {one}")
    if verdict.broken:
        print(f"seed {verdict.seed}: make check-seeds SEED={verdict.seed} tells its story", flush=True)


def _last_line(verdicts: list[Verdict]) -> int:
    broken = sum(len(one.broken) for one in verdicts)
    print(f"{len(verdicts)} seeds, {sum(one.rough for one in verdicts)} runs with faults, {broken} broken rules")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
