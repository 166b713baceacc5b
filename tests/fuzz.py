"""Random search (`make fuzz`): the property tests again and again, each round with a new seed.

The ordinary run draws the same examples every time. Here every round draws others: Hypothesis by
its seed, tests marked `fuzz` by `FUZZ_SEED`. A round that fails is printed with the seed that
brings it back; the search goes on, and ends with exit code 1.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run_round(seed: int, options: list[str]) -> bool:
    """Run the property tests once; return whether they passed."""
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header"),
        *("-m", "hypothesis or fuzz", f"--hypothesis-seed={seed}", *options),
    ]
    environment = {**os.environ, "HYPOTHESIS_PROFILE": "fuzz", "FUZZ_SEED": str(seed)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    print(f"seed {seed}: {lines[-1] if lines else done.stderr[-500:]}", flush=True)
    if done.returncode:
        print(done.stdout[-20_000:], done.stderr[-2_000:], flush=True)
    return done.returncode == 0


def main() -> int:
    """Search for the given time; return 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="how long to search")
    parser.add_argument("--seed", type=int, help="a single round with this seed")
    options, rest = parser.parse_known_args()
    if options.seed is not None:
        return int(not run_round(options.seed, rest))
    end = time.monotonic() + 60 * options.minutes
    rounds = failures = 0
    while time.monotonic() < end:
        rounds += 1
        failures += not run_round(random.SystemRandom().randrange(2**31), rest)
    print(f"{rounds} rounds, {failures} with a find")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
