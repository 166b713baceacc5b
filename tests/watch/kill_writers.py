"""Writes a run in processes that are killed at random moments, and checks what they left.

Run as a program: the file, how many kills, and a seed. Nothing of torch is loaded: a fork is cheap.
"""

import os
import random
import signal
import sys
import time
import types
from pathlib import Path

package = types.ModuleType("chainrule")
package.__path__ = [str(Path(__file__).parents[2] / "src/chainrule")]
sys.modules.setdefault("chainrule", package)
sys.path.insert(0, str(Path(__file__).parents[1]))

from chainrule.watch import store  # noqa: E402
from chainrule.watch.reading import RunReader  # noqa: E402
from chainrule.watch.store import RunWriter  # noqa: E402
from made_runs import make_facts, make_noisy_sample, make_noisy_steps  # noqa: E402

TENSORS = 30
RECORDS = list(make_noisy_steps(400, TENSORS))


def write_until_killed(path: Path, out: int) -> None:
    """Go on with the run; after each flush say on a pipe up to which step."""
    store._BLOCK_STEPS = (16, 64)  # rows are packed together often
    writer = RunWriter.open(path, make_facts(TENSORS), resume=True)
    if os.fork() == 0:  # like a data loader's worker: it lives on, and must not keep the lock
        os.close(out)
        time.sleep(3)
        os._exit(0)
    step = writer.last_step
    while True:
        step += 1
        record = RECORDS[step % len(RECORDS)]
        values = {name: getattr(record, name) for name in type(record).__dataclass_fields__}
        writer.write(type(record)(**values | {"step": step}))
        if step % 5 == 0:
            writer.write(make_noisy_sample(step, TENSORS, 8))
        if step % 7 == 0:
            writer.flush()
            os.write(out, b"%d\n" % step)


def kill_one(path: Path, moment: float) -> int:
    """Return the last step that a killed writer said to be flushed; 0 if it said none."""
    read, out = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        write_until_killed(path, out)
    os.close(out)
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with open(read, "rb") as said:
        lines = said.read().split(b"\n")[:-1]
    return int(lines[-1]) if lines else 0


def main() -> None:
    """Kill, look, go on."""
    path, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    moments = random.Random(seed)
    flushed = 0
    for number in range(kills):
        moment = moments.random() * (0.05 if number < kills // 3 else 0.6)
        flushed = max(flushed, kill_one(path, moment))
        if not path.exists():  # killed before it was there: then nothing was flushed
            assert flushed == 0
            continue
        reader = RunReader(path)
        steps = [each.step for each in reader.steps()]
        samples = [each.step for each in reader.samples()]
        assert steps == list(range(1, len(steps) + 1)), "steps are missing"
        assert len(steps) >= flushed, f"{flushed} were flushed, {len(steps)} are there"
        assert samples == list(range(5, len(steps) + 1, 5))[: len(samples)]
        assert len(samples) >= flushed // 5
        assert reader.check() == ""
        assert not reader.live
        assert not reader.ended
    with RunWriter.open(path, make_facts(TENSORS), resume=True) as writer:
        assert writer.last_step >= flushed
    assert RunReader(path).ended
    print(kills, "kills", flushed, "steps flushed")


main()
