"""What two processes do together: `python watching_ranks.py RANK FOLDER [CASE …]`."""

import json
import math
import sys
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from chainrule.errors import WatchError
from chainrule.watch import processes, sharded_norms, watch

STEPS = 40


def make(width=7):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))


def batch(step, rank):
    generator = torch.Generator().manual_seed(2 * step + rank)
    return torch.randn(6, 4, generator=generator), torch.randint(3, (6,), generator=generator)


def train(model, optimizer, rank, steps=STEPS, bad=None, log=lambda loss: None):
    losses = []
    for step in range(steps):
        x, y = batch(step, rank)
        loss = F.cross_entropy(model(x), y)
        if bad == (step, rank):
            loss = loss * math.nan
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        log(loss)
    return losses


def train_alone(steps, count=2):
    """What one process with both batches would do; its gradient norms at each step."""
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    norms = []
    for step in range(steps):
        optimizer.zero_grad()
        for rank in range(count):
            x, y = batch(step, rank)
            (F.cross_entropy(model(x), y) / count).backward()
        norms.append([float(p.grad.norm()) for p in model.parameters()])
        optimizer.step()
    return norms


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def wrap_ddp():
    return nn.parallel.DistributedDataParallel(make())


def wrap_fsdp():
    from torch.distributed.fsdp import fully_shard

    model = make()
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer)
    return fully_shard(model)


def compare(wrap, rank, folder):
    """Watched and unwatched, what they train to; and the norms that were recorded."""
    found = {}
    steps = 500
    for watched in (False, True):
        model = wrap()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        if watched:
            store = Path(folder) / "run.db"
            with watch(model, optimizer, every=3, store=store) as run:
                losses = train(model, optimizer, rank, steps, log=lambda loss: run.log(loss=loss))
        else:
            losses = train(model, optimizer, rank, steps)
        weights = [whole(p.detach()).tolist() for p in model.parameters()]
        found[watched] = losses, weights
    expected = train_alone(20)
    recorded = [record.grad_norms.tolist() for record in run.steps[:20]]
    ratio = max(
        abs(a / b - 1)
        for one, other in zip(recorded, expected, strict=True)
        for a, b in zip(one, other, strict=True)
    )
    sample = run.samples[-1]
    return {
        "same": found[False] == found[True],
        "ratio": ratio,
        "said": sorted(run._notices._said),
        "steps": len(run.steps),
        "bad": [record.bad_rank for record in run.steps if record.bad_rank is not None],
        "written": (Path(folder) / "run.db").exists(),
        "names": [facts.name for facts in run.facts.parameters],
        "layers": [layer.name for layer in sample.layers],
        "deltas": [layer.delta_norm for layer in sample.layers],
        "updates": sample.update_norms.tolist(),
        "spreads": [each.replica_spread for each in run.samples],
        "shapes": [list(facts.shape) for facts in run.facts.parameters],
    }


def ddp(rank, folder):
    return compare(wrap_ddp, rank, folder)


def fsdp(rank, folder):
    return compare(wrap_fsdp, rank, folder)


def find_bad(wrap, rank):
    model = wrap()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with watch(model, optimizer) as run:
        train(model, optimizer, rank, 12, bad=(6, 1))
    return {
        "finite": [record.finite for record in run.steps],
        "bad": [record.bad_rank for record in run.steps],
        "alarms": [alarm.rule for alarm in run.alarms],
    }


def bad_ddp(rank, folder):
    return find_bad(wrap_ddp, rank)


def bad_fsdp(rank, folder):
    return find_bad(wrap_fsdp, rank)


def skip(rank, folder):
    """Gradients that nobody averages: only one process has a bad one, and both leave it out."""
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with watch(model, optimizer, skip_step_on=["non_finite"]) as run:
        train(model, optimizer, rank, 12, bad=(6, 1))
    return {
        "skipped": [record.skipped for record in run.steps],
        "finite": all(bool(p.isfinite().all()) for p in model.parameters()),
    }


def replicas(rank, folder):
    model = make()
    with torch.no_grad():
        model[0].weight += 0.5 * rank
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with watch(model, optimizer) as run:
        train(model, optimizer, rank, 5)
    return {"spread": run.samples[0].replica_spread}


def norms(rank, folder):
    """`sharded_norms` of tensors with all kinds of placements, and of plain ones."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    torch.manual_seed(0)
    values = [torch.randn(5, 3), torch.randn(1, 4), torch.randn(8), torch.randn(3, 3)]
    spread = [
        distribute_tensor(values[0], mesh, [Shard(0)]),  # parts of three and two rows
        distribute_tensor(values[1], mesh, [Shard(0)]),  # the second part is empty
        distribute_tensor(values[2], mesh, [Replicate()]),
        DTensor.from_local(values[3] / 2, mesh, [Partial()]),
        torch.full((4,), 2.0),
    ]
    return {
        "found": sharded_norms(spread).tolist(),
        "wanted": [float(each.double().norm()) for each in values] + [4.0],
        "none": sharded_norms([]).tolist(),
    }


def absent(rank, folder):
    """Where all must watch, one that does not is found out; nobody hangs."""
    processes.ARRIVAL_SECONDS = 1.0
    model = wrap_fsdp()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    if rank:
        return {}
    try:
        watch(model, optimizer)
    except WatchError as error:
        return {"said": str(error), "hooks": len(optimizer._optimizer_step_pre_hooks)}
    return {}


def fsdp1(rank, folder):
    from torch.distributed.fsdp import FullyShardedDataParallel

    try:
        model = FullyShardedDataParallel(make(), device_id=torch.device("cpu"))
    except Exception as error:
        return {"said": f"skipped: {error}"}
    try:
        watch(model, torch.optim.SGD(model.parameters(), 0.01))
    except WatchError as error:
        return {"said": str(error)}
    return {"said": ""}


CASES = (ddp, fsdp, bad_ddp, bad_fsdp, skip, replicas, norms, absent, fsdp1)

if __name__ == "__main__":
    torch.set_num_threads(1)
    processes._LAST_SECONDS = 120.0  # the other one may be slow to leave what is looked for
    rank, folder, *names = int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
    store = dist.FileStore(str(folder / "rendezvous"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    for case in CASES:
        if names and case.__name__ not in names:
            continue
        own = folder / case.__name__
        own.mkdir(exist_ok=True)
        try:
            result = case(rank, own)
        except Exception:
            result = {"error": traceback.format_exc()}
        dist.barrier()
        (own / f"{rank}.json").write_text(json.dumps(result))
    dist.destroy_process_group()
