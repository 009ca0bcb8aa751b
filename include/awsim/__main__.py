"""`python -m awsim [--world FILE] [--port N] [--speed X] [--seed S] [--host H]`: start the simulated AWS.

`python -m awsim record --region R --out FILE` writes a world file from a real account instead.
"""

import argparse
import gc
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from awsim.server import PortTaken, Server, Simulator
from awsim.world_file import WorldFileError


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 after SIGTERM or SIGINT, 2 when it could not start."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["record"]:
        from awsim import record  # boto3 is needed for nothing else

        return record.main(given[1:])
    options = _parser().parse_args(given)
    try:
        simulator = Simulator(world=options.world, speed=options.speed, seed=options.seed, base=options.base)
        server = Server(simulator, host=options.host, port=options.port)
    except (WorldFileError, PortTaken) as refused:
        print(refused, file=sys.stderr)
        return 2

    def stop(*_: object) -> None:
        threading.Thread(target=server.stop, daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    gc.freeze()  # the world is there to stay: no collection needs to look at it
    hosts = len(simulator.world.all_hosts())
    print(f"awsim ready: {server.url} ({hosts} hosts, speed {options.speed:g}, seed {options.seed})", flush=True)
    server.serve()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m awsim",
        description="A simulated AWS for patch campaigns, on top of moto.",
        epilog="python -m awsim record --help: write a world file from a real account.",
    )
    parser.add_argument("--world", type=Path, help="world file (YAML); without it the AWS is empty")
    parser.add_argument("--port", type=_port, default=5005, help="default %(default)s; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default %(default)s")
    parser.add_argument(
        "--speed", type=_speed, default=1.0, help="virtual seconds a real second; default %(default)s, 0 stops the clock"
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed and same calls, same world; default %(default)s")
    parser.add_argument("--base", type=_moment, help="virtual start, ISO 8601, in UTC unless it says otherwise; default now")
    return parser


def _moment(text: str) -> float:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no moment; write one as 2026-01-05T08:00:00Z") from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port; 0 takes a free one, 65535 is the highest")
    return int(text)


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = -1
    if not 0 <= speed < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not a speed; 0 stops the clock, 1 is real time, 60 makes an hour a minute")
    return speed


if __name__ == "__main__":
    sys.exit(main())
