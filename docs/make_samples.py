"""Measure the samples of the page “Your model” anew, as anybody would measure a model.

Run it from the root of the repository: `.venv/bin/python docs/make_samples.py`. Of the files that a
measurement names, only the name is kept, so that it is the same on every machine.
"""

from dataclasses import replace

import torch

from chainrule.app.samples import SAMPLES
from chainrule.cli.target import load_target
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.records import get_file_name
from chainrule.measure.inspection import inspect
from chainrule.measure.non_finite import add_origin
from chainrule.training.trial import try_training


def measure(name: str) -> GradientFlow:
    """Return what `chainrule inspect --try` measures of a sample."""
    model, compute_loss, optimizer = load_target(f"examples/samples/{name}.py:build")
    flow = add_origin(inspect(model, compute_loss, optimizer), model, compute_loss)
    flow = replace(flow, trial=try_training(model, compute_loss, optimizer))
    if flow.origin is None:
        return flow
    return replace(flow, origin=replace(flow.origin, file=get_file_name(flow.origin.file)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, sample in SAMPLES.items():
        measure(name).save(sample.path)
        print(f"{sample.path.name}: {sample.path.stat().st_size:,} bytes")
