"""What is kept of a training run, as plain frozen records; no torch, no files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from chainrule.flow.gradient_flow import GradientFlow

ABSENT = -1.0
"""Stands for a norm where there was nothing to measure: no gradient at this step, no update."""

NO_MODULE = "No module of the model ran in this step."
"""`Sample.missing` where the model itself was not called."""

BAD_GRADIENT = "non-finite gradient"
"""`StepRecord.skipped` of a step that `skip_step_on` left out."""

Norms = NDArray[np.float64]
"""One number per parameter, in the order of `RunFacts.parameters`; `ABSENT` where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterFacts:
    """One parameter tensor of the watched model.

    Attributes:
        name: Its name in `model.named_parameters()`.
        layer: Name of the module that holds it; "" for the model itself.
        kind: Class name of that module, for example "Linear".
        shape: Its shape; of a sharded parameter, the whole one.
        dtype: For example "float32".
        trained: Whether it asked for a gradient when the run began.
        optimizer: Position of the optimizer that holds it; `None` if no optimizer does.
        group: Position of its group in that optimizer; `None` if no optimizer holds it.

    Example:
        >>> ParameterFacts(name="0.weight", layer="0", kind="Linear", shape=(3, 2)).trained
        True
    """

    name: str
    layer: str
    kind: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    trained: bool = True
    optimizer: int | None = 0
    group: int | None = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerFacts:
    """One watched optimizer.

    Attributes:
        kind: Its class name, for example "AdamW".
        groups: Per group its settings that are numbers or flags, for example `{"lr": 0.1}`.

    Example:
        >>> OptimizerFacts(kind="SGD", groups=({"lr": 0.1},)).groups[0]["lr"]
        0.1
    """

    kind: str
    groups: tuple[Mapping[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What is known of a run before its first step.

    Attributes:
        name: The run's name: its file without the ending.
        model: Class name of the model.
        parameters: Every parameter, in registration order, a shared one once.
        optimizers: The optimizers, in the order in which they were given.
        every: A whole sample is taken each so many steps.
        created: When it began, in seconds since 1970.
        device: For example "cpu" or "cuda:0".
        world_size: Number of processes that train together.
        torch_version: The PyTorch that trains.
        chainrule_version: The chainrule that watches.

    Example:
        >>> RunFacts(name="a", model="Sequential", parameters=(), optimizers=()).every
        50
    """

    name: str
    model: str
    parameters: tuple[ParameterFacts, ...]
    optimizers: tuple[OptimizerFacts, ...]
    every: int = 50
    created: float = 0.0
    device: str = "cpu"
    world_size: int = 1
    torch_version: str = ""
    chainrule_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One optimizer step, as every step is kept.

    Attributes:
        step: Its number, from 1.
        seconds: Time since the run began.
        grad_norms: ‖gradient‖ of each parameter as the optimizer used it: accumulated, unscaled,
            averaged over the processes. Of a parameter that no optimizer holds, ‖.grad‖.
        total_norm: ‖all gradients that an optimizer holds together‖; infinite or undefined where
            one of them is.
        clipped_from: The total norm before clipping, where clipping was seen.
        loss: What `run.log(loss=…)` gave for this step.
        scalars: Other numbers that were logged.
        rates: The learning rate of each group, optimizer by optimizer.
        scale: What the loss was multiplied with (mixed precision); `None` without.
        skipped: Whether the optimizer did not step, and why: "" or, for example, "gradient scaler".
        bad_rank: The process in which a gradient was not finite; `None` if it was in none.

    Example:
        >>> import numpy as np
        >>> StepRecord(step=1, seconds=0.1, grad_norms=np.ones(2), total_norm=1.4).finite
        True
    """

    step: int
    seconds: float
    grad_norms: Norms
    total_norm: float
    clipped_from: float | None = None
    loss: float | None = None
    scalars: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    rates: tuple[float, ...] = ()
    scale: float | None = None
    skipped: str = ""
    bad_rank: int | None = None

    @property
    def finite(self) -> bool:
        """Whether every gradient of the step was finite."""
        return bool(np.isfinite(self.total_norm))


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSample:
    """One module's output in one sampled step.

    Attributes:
        name: The module's name.
        kind: Its class name.
        mean: Mean of the output.
        std: Standard deviation of the output.
        delta_norm: ‖∂𝓛/∂output‖ of the last backward pass before the step; `None` if none came.
        saturation: Share of values where a bounded activation is flat; `None` for other modules.
        dead_units: Share of units of a rectifier that are zero for every example; `None` else.
        zero_share: Share of zeros in ∂𝓛/∂output.
        subnormal_share: Share of subnormal numbers in ∂𝓛/∂output.
        non_finite: Number of infinite or undefined values of the output.

    Example:
        >>> LayerSample(name="1", kind="ReLU", mean=0.4, std=0.6, dead_units=0.25).dead_units
        0.25
    """

    name: str
    kind: str
    mean: float
    std: float
    delta_norm: float | None = None
    saturation: float | None = None
    dead_units: float | None = None
    zero_share: float | None = None
    subnormal_share: float | None = None
    non_finite: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sampled step: what costs more than every step may cost.

    Attributes:
        step: The step's number.
        weight_norms: ‖W‖ of each parameter before the step.
        update_norms: ‖ΔW‖ of each parameter, measured as W after − W before.
        layers: The modules' outputs, in forward order; empty where they could not be measured.
        missing: Why `layers` is empty; "" if it is not.
        flow: The whole measurement of this step, where one was taken.
        replaced: Names of parameters of the model that are not the tensors they were when the run
            began.
        replica_spread: Largest relative difference of a weight's norm between the processes;
            `None` if there is one process, or it was not compared.

    Example:
        >>> import numpy as np
        >>> Sample(step=1, weight_norms=np.ones(1), update_norms=np.full(1, 0.1)).ratios
        array([0.1])
    """

    step: int
    weight_norms: Norms
    update_norms: Norms
    layers: tuple[LayerSample, ...] = ()
    missing: str = ""
    flow: "GradientFlow | None" = None
    replaced: tuple[str, ...] = ()
    replica_spread: float | None = None

    @property
    def ratios(self) -> Norms:
        """‖ΔW‖ ÷ ‖W‖ of each parameter; `ABSENT` where there was no update or W is zero."""
        known = (self.update_norms >= 0) & (self.weight_norms > 0)
        return np.where(known, self.update_norms / np.where(known, self.weight_norms, 1), ABSENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One measured number behind an alarm.

    Attributes:
        name: What it is, for example "‖gradient‖ of 0.weight".
        value: What was measured.
        bound: What it was compared with; `None` if with nothing.
        step: The step it was measured at.

    Example:
        >>> Evidence(name="loss", value=9.1, bound=2.3, step=4).value
        9.1
    """

    name: str
    value: float
    bound: float | None = None
    step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One trouble of a run, said once.

    Attributes:
        step: The step at which it was seen.
        rule: Name of the rule that found it, for example "rate_too_high".
        kind: The trouble in two or three words, for example "learning rate too high".
        layer: Where; "" if it is nowhere in particular.
        value: The number that went out of its bound.
        bound: The bound.
        summary: What happened, in one sentence.
        cause: Why, in one sentence.
        action: What to do, in one sentence.
        evidence: Measured numbers behind it.

    Example:
        >>> alarm = Alarm(step=9, rule="spike", kind="spike", value=80.0, bound=8.0,
        ...     summary="The loss jumped.", cause="One batch.", action="Clip gradients.")
        >>> alarm.layer
        ''
    """

    step: int
    rule: str
    kind: str
    value: float
    bound: float
    summary: str
    cause: str
    action: str
    layer: str = ""
    evidence: tuple[Evidence, ...] = ()


Record = StepRecord | Sample | Alarm
"""What a run is made of."""
