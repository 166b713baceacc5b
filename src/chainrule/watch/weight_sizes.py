"""The sizes of weights in a sampled step, how far they moved, and whether processes agree."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from chainrule.watch.gradients import Lagged, Values, is_spread, sharded_norms
from chainrule.watch.processes import Processes
from chainrule.watch.records import ABSENT, Sample
from chainrule.watch.sampling import LayerSampler, is_sampled
from chainrule.watch.steps import Step


class WeightSizes:
    """Makes a sample of a step: ‖W‖, ‖ΔW‖ and what the modules put out.

    Attributes:
        is_last: Whether the run ends, so that other processes may not get here any more.
    """

    def __init__(
        self, parameters: Sequence[Tensor], processes: Processes, sampler: LayerSampler, every: int
    ) -> None:
        """Prepare.

        Args:
            parameters: All parameters of the run.
            processes: The processes that train together.
            sampler: Knows why nothing was noted of the modules, where nothing was.
            every: A sample is taken each so many steps.
        """
        self.is_last = False
        self._parameters = parameters
        self._processes = processes
        self._sampler = sampler
        self._every = every
        self._is_spread = any(map(is_spread, parameters))
        self._frozen: Values | None = None
        self._compares = True

    def make_sample(self, step: Step) -> Sample:
        """Read the numbers of a sampled step."""
        count = len(self._parameters)
        sizes, updates = np.full(count, ABSENT), np.full(count, ABSENT)
        for meter in step.meters:
            meter.write(sizes, updates)
        frozen = np.flatnonzero(sizes < 0)
        sizes[frozen] = self._measure_frozen()[frozen]
        layers = () if step.layers is None else step.layers()
        return Sample(
            step=step.number,
            weight_norms=sizes,
            update_norms=updates,
            layers=layers,
            missing="" if layers else self._sampler.missing or self._sampler.reason,
            flow=step.flow,
            replaced=() if step.standing is None else step.standing.strays,
            replica_spread=self._compare_replicas(step.number, sizes),
        )

    def _compare_replicas(self, number: int, sizes: Values) -> float | None:
        # Samples after an unusual step are taken by the first process alone.
        if self._processes.size < 2 or self._is_spread or not is_sampled(number, self._every):
            return None
        spread = self._processes.compare(number, sizes, wait=self._compares)
        self._compares = spread is not None
        return spread

    def _measure_frozen(self) -> Values:
        """Return ‖W‖ of parameters as it was when first asked: those that nobody moves."""
        if self._frozen is None:
            if self._is_spread and self.is_last:  # the others may not get here
                return np.full(len(self._parameters), ABSENT)
            with torch.no_grad():
                norms = sharded_norms(self._parameters)
            self._frozen = Lagged(norms).read()
        return self._frozen
