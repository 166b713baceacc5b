"""What the alarms remember of a run: little, and the same amount however long the run is."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from chainrule.diagnosis.symmetry_rules import list_symmetric
from chainrule.watch.records import ABSENT, RunFacts, Sample, StepRecord
from chainrule.watch.standing import Standing, read_standing

WINDOW = 128
"""Steps of which the loss and the total norm are kept."""

NEAR = 32
"""Steps of which every parameter's norm is kept."""

SAMPLES = 16
"""Samples that are kept, apart from the first."""

BLOCK, BLOCKS = 10, 60
"""The loss of older steps is kept as means of so many steps, and so many means."""

START = 20
"""In the first steps all rules are asked at every step."""

TICK = 10
"""Later all rules are asked each so many steps, and at once when a step is unusual."""

AFTER = 12
"""Steps after an unusual one in which the rules are asked at every step."""

FROZEN = -2.0
"""Stands for the norm of a parameter that has no gradient because it asks for none."""

DEAD = 0.9
"""Share of a layer's units that are dead, or have no gradient, at which the layer is in trouble."""

CHECKS = 4
"""So many looks at what is left of older gradients are kept."""

_RATE = 0.05
_ODD = 5.0
_FLIPS = 3
_CHANGES = 4


@dataclass(slots=True)
class Trouble:
    """What a rule has said: when, and when it was last true.

    Attributes:
        said: Step of its alarm; `None` if another trouble explained it when it began.
        last: The last step at which it was true.
    """

    said: int | None
    last: int


@dataclass(frozen=True, slots=True)
class BadInput:
    """What is wrong with what the model read: numbers that are not finite, or nothing but zeros.

    Attributes:
        name: Which input.
        shape: Its shape.
        count: How many of its numbers are infinite or undefined; 0 if all of them are zero.
        rows: In how many entries of its first dimension they are: of a batch, its examples.
    """

    name: str
    shape: tuple[int, ...]
    count: int
    rows: int


class History:
    """What is remembered of a run: the last steps, means of older ones, and some samples.

    The memory does not grow with the run. Give it every record, then ask
    `chainrule.watch.rules.find_alarms`.

    Attributes:
        facts: What was known before the first step.
        step: Number of the last step; 0 before the first.
        count: How many steps were added.
        record: The last step.
        samples: The last samples, the newest at the end, without their flows.
        first_sample: The first sample.
        symmetric: Weights whose units are copies of each other, and the share of copies, as the
            first flow had it; `None` if no sample had a flow.
        guessing: Loss of guessing without a look at the input, where the first flow knew it.
        first_loss: The first finite losses, up to three.
        peak_rate: The largest learning rate so far.
        last_sampled: Number of steps since the last sample with layers, counted in steps added.
        troubles: What the rules have said, by their name.
        jumps: Counts of the last steps whose loss was unusual.
        standing: How the parameters stand: what asks for gradients, and who moves it.
        unfrozen: Which parameters began to ask for gradients in mid-run.
        leftovers: Steps that were looked at, and whether they kept the gradients of the one before.
        bad_input: What the model read that was not finite, and the last step at which it did.
        sound_input: The last step at which what it read was seen to be neither that nor zero.
        blank_inputs: The last steps at which all that the model read was zero, and its shape.
        copies: Counts of the last steps at which the loss jumped because a copy of the weights that
            makes the targets was made anew.
        has_players: Whether several losses are trained against each other, or in turns.
        due: Whether the rules should be asked now: most steps are usual, and are not.
        wants_sample: Whether the next step should be sampled, because this one is unusual.

    Example:
        >>> import numpy as np
        >>> from chainrule.watch.records import ParameterFacts
        >>> weight = ParameterFacts(name="0.weight", layer="0", kind="Linear", shape=(3, 2))
        >>> history = History(
        ...     RunFacts(name="a", model="Sequential", parameters=(weight,), optimizers=())
        ... )
        >>> history.add(StepRecord(step=1, seconds=0.0, grad_norms=np.ones(1), total_norm=1.0))
        >>> history.step
        1
    """

    def __init__(self, facts: RunFacts) -> None:
        parameters = facts.parameters
        self.facts = facts
        self.sizes = np.array([max(1, math.prod(each.shape)) for each in parameters], float)
        self.is_weight = np.array([len(each.shape) >= 2 for each in parameters], bool)
        self.standing = read_standing(facts)
        self.is_trained, self.is_held = self.standing.asked, self.standing.held
        self.unfrozen = np.zeros(len(parameters), bool)
        self._ever_asked = self.standing.asked.copy()
        self.leftovers: deque[tuple[int, bool]] = deque(maxlen=CHECKS)
        self.has_players = False
        self.bad_input: tuple[int, BadInput] | None = None
        self.sound_input = 0
        self.blank_inputs: deque[tuple[int, tuple[int, ...]]] = deque(maxlen=CHECKS)
        self.copies: deque[int] = deque(maxlen=8)
        self._had = np.zeros(len(parameters), bool)
        self._zero = np.zeros(len(parameters), bool)
        self._flips = np.zeros(len(parameters), int)
        self._idle_units: dict[int, float] = {}
        self.step = 0
        self.count = 0
        self.record: StepRecord | None = None
        self.samples: deque[Sample] = deque(maxlen=SAMPLES)
        self.first_sample: Sample | None = None
        self.symmetric: tuple[tuple[str, float], ...] | None = None
        self.guessing: float | None = None
        self.first_loss: list[float] = []
        self.peak_rate = 0.0
        self.last_sampled: int | None = None
        self.troubles: dict[str, Trouble] = {}
        self.due = False
        self.wants_sample = False
        # Each row stands twice, so that the last rows are one piece of memory wherever they begin.
        self._near: NDArray[np.float64] = np.full((2 * NEAR, len(parameters)), ABSENT)
        self._recent: NDArray[np.float64] = np.full((3, 2 * WINDOW), np.nan)
        self._skips: deque[str] = deque(maxlen=WINDOW)
        self._blocks: deque[float] = deque(maxlen=BLOCKS)
        self._block_sum, self._block_count = 0.0, 0
        self._first_block: float | None = None
        self._best_block = math.inf
        self._mid, self._spread = 0.0, 0.0
        self._loss_mid, self._loss_spread = 0.0, 0.0
        self._watchful = START
        self._asked = 0
        self.jumps: deque[int] = deque(maxlen=8)

    def add(self, record: StepRecord | Sample) -> None:
        """Take one record in. A sample may come before or after its step.

        Raises:
            ValueError: If a step's norms are not as many as the run has parameters.
        """
        if isinstance(record, Sample):
            self._add_sample(record)
            return
        norms = record.grad_norms
        if len(norms) != len(self.sizes):
            raise ValueError(
                f"a step must have one norm for each of the {len(self.sizes)} parameters of the "
                f"run; step {record.step} has {len(norms)}"
            )
        total = record.total_norm if record.clipped_from is None else record.clipped_from
        loss = math.nan if record.loss is None else record.loss
        row = self.count % NEAR
        frozen = (norms <= 0.0) & ~self.standing.asked
        self._near[row] = self._near[row + NEAR] = np.where(frozen, FROZEN, norms)
        row = self.count % WINDOW
        rate = max(record.rates) if record.rates else math.nan
        self._recent[:, row] = self._recent[:, row + WINDOW] = (total, loss, rate)
        self.count += 1
        self.step = record.step
        self.record = record
        self._skips.append(record.skipped)
        self.peak_rate = max(self.peak_rate, rate)
        self.wants_sample = False
        jumped = self._follow_loss(loss, record)
        odd = self._follow_total(total) or jumped
        odd = self._follow_zeros(norms) or odd
        if jumped:
            self.jumps.append(self.count)
        if record.skipped or record.bad_rank is not None:
            odd = True
        if odd:
            self._watchful = AFTER
        self.due = odd or self._watchful > 0 or self.count % TICK == 0 or self.due
        if self._watchful > 0:
            self._watchful -= 1
        self._asked = max(0, self._asked - 1)
        if odd and self.count > 1 and self._asked < 3 * AFTER:
            self.wants_sample = True
            self._asked += AFTER

    def stand(self, standing: Standing) -> None:
        """Take in how the parameters stand now."""
        self.unfrozen |= standing.asked & ~self._ever_asked
        self._ever_asked |= standing.asked
        lost = len(standing.strays) > len(self.standing.strays)
        self.due = self.due or lost or standing.unused > self.standing.unused
        self.standing = standing
        self.is_trained, self.is_held = standing.asked, standing.held

    def note_leftover(self, step: int, is_left: bool) -> None:
        """Take in whether a step kept the gradients of the one before."""
        self.leftovers.append((step, is_left))
        self.due = self.due or is_left

    def note_input(self, bad: BadInput) -> None:
        """Take in what was wrong with what the model read at the last step."""
        if bad.count:
            self.bad_input = self.step, bad
        else:
            self.blank_inputs.append((self.step, bad.shape))
        self.due = True

    def note_copy(self, count: int) -> None:
        """Take in that the loss jumped at a step because its targets come from a newer copy.

        Args:
            count: Which of the steps that were added.
        """
        self.copies.append(count)
        if count in self.jumps:
            self.jumps.remove(count)

    def note_idle_units(self, shares: Mapping[int, float]) -> None:
        """Take in, by parameter, the share of units whose gradient is exactly zero.

        Where that became most of a layer, the next step is worth a sample.
        """
        for at, share in shares.items():
            if share >= DEAD > self._idle_units.get(at, 0.0):
                self.wants_sample = True
            self._idle_units[at] = share

    def _follow_zeros(self, norms: NDArray[np.float64]) -> bool:
        """Return whether the gradient of a weight has become exactly zero."""
        zero = (norms == 0.0) & self.is_weight & self.is_trained & self.is_held
        fresh = zero & ~self._zero & self._had & (self._flips < _FLIPS)
        self._flips += fresh
        self._zero = zero
        self._had |= norms > 0.0
        return bool(fresh.any())

    def _follow_total(self, total: float) -> bool:
        """Return whether the total norm is unusual, and follow its logarithm."""
        if not 0.0 < total < math.inf:
            return True
        value = math.log(total)
        if self.count <= 1:
            self._mid = value
            return False
        distance = value - self._mid
        odd = abs(distance) > _ODD * self._spread + 1.0
        # A window of 20 steps, and at the start as many steps as there are.
        rate = max(_RATE, 1.0 / self.count)
        self._mid += rate * distance
        self._spread += rate * (abs(distance) - self._spread)
        return odd

    def _follow_loss(self, loss: float, record: StepRecord) -> bool:
        """Return whether the loss is unusual, and follow it."""
        if not math.isfinite(loss):
            return record.loss is not None
        self._block_sum += loss
        self._block_count += 1
        if self._block_count == BLOCK:
            mean = self._block_sum / BLOCK
            self._blocks.append(mean)
            if self._first_block is None:
                self._first_block = mean
            self._best_block = min(self._best_block, mean)
            self._block_sum, self._block_count = 0.0, 0
        if len(self.first_loss) < 3:
            if not self.first_loss:
                self._loss_mid = loss
            self.first_loss.append(loss)
            return False
        distance = loss - self._loss_mid
        odd = abs(distance) > _ODD * self._loss_spread + abs(self._loss_mid)
        rate = max(_RATE, 1.0 / self.count)
        self._loss_mid += rate * distance
        self._loss_spread += rate * (abs(distance) - self._loss_spread)
        return odd

    def _add_sample(self, sample: Sample) -> None:
        if sample.flow is not None:
            if self.symmetric is None:
                self.symmetric = tuple(
                    (each.parameter, float(share)) for each, share in list_symmetric(sample.flow)
                )
                facts = sample.flow.loss_facts
                self.guessing = None if facts is None else facts.guessing
            sample = replace(sample, flow=None)
        if self.first_sample is None:
            self.first_sample = sample
        elif self.samples and _has_died(sample, self.samples[-1]):
            self.wants_sample = True  # another one tells whether it lasts
        self.samples.append(sample)
        if sample.layers:
            self.last_sampled = self.count
        self.due = True

    def ask(self) -> bool:
        """Return whether the rules are due, and take note that they are asked now."""
        due, self.due = self.due, False
        return due

    def get_norms(self, steps: int) -> NDArray[np.float64]:
        """Return every parameter's gradient norm in the last steps, [steps, parameters].

        There are fewer rows while the run is young, and never more than `NEAR`.
        """
        steps = min(steps, NEAR, self.count)
        end = (self.count - 1) % NEAR + 1 + NEAR
        return self._near[end - steps : end]

    def _get(self, row: int, steps: int) -> NDArray[np.float64]:
        steps = min(steps, WINDOW, self.count)
        end = (self.count - 1) % WINDOW + 1 + WINDOW
        return self._recent[row, end - steps : end]

    def get_totals(self, steps: int = WINDOW) -> NDArray[np.float64]:
        """Return the total norm before clipping in the last steps, the newest at the end."""
        return self._get(0, steps)

    def get_losses(self, steps: int = WINDOW) -> NDArray[np.float64]:
        """Return the loss in the last steps; undefined where none was logged."""
        return self._get(1, steps)

    def get_rates(self, steps: int = WINDOW) -> NDArray[np.float64]:
        """Return the largest learning rate of each of the last steps; undefined if unknown."""
        return self._get(2, steps)

    def get_skips(self, steps: int = WINDOW) -> list[str]:
        """Return why the optimizer did not step in the last steps; "" where it did."""
        return list(self._skips)[-steps:]

    def get_blocks(self) -> NDArray[np.float64]:
        """Return means of the loss over ten steps each, the newest at the end."""
        return np.array(self._blocks)

    @property
    def first_block(self) -> float | None:
        """Mean of the first ten losses; `None` before there are so many."""
        return self._first_block

    @property
    def best_block(self) -> float:
        """The least mean of ten losses so far; infinite before there is one."""
        return self._best_block

    @property
    def start_loss(self) -> float | None:
        """Median of the first three finite losses; `None` if none was logged."""
        return sorted(self.first_loss)[len(self.first_loss) // 2] if self.first_loss else None

    @property
    def has_turns(self) -> bool:
        """Whether parts of the model are trained in turns, so that there is more than one loss."""
        away = self.get_norms(NEAR) < 0.0
        changes = (away[1:] != away[:-1]).sum(0)
        return self.has_players or bool((changes >= _CHANGES).any())

    @property
    def has_one_loss(self) -> bool:
        """Whether the loss of a step can be compared with that of an early one."""
        return not self.has_turns and not self.copies

    def get_current_rates(self) -> NDArray[np.float64]:
        """Return the learning rate of each parameter in the last step; undefined if unknown."""
        rates = () if self.record is None else self.record.rates
        groups = self.standing.groups
        table = np.append(np.asarray(rates, float), math.nan)
        return table[np.where((groups >= 0) & (groups < len(rates)), groups, -1)]

    @property
    def had_gradient(self) -> NDArray[np.bool_]:
        """Which parameters have ever had a gradient that was not zero."""
        return self._had

    @property
    def has_loss(self) -> bool:
        """Whether the last step has a loss."""
        return self.record is not None and self.record.loss is not None


def _has_died(sample: Sample, before: Sample) -> bool:
    """Return whether most units of a layer are dead that were not in the sample before."""
    alive = {each.name for each in before.layers if (each.dead_units or 0.0) < DEAD}
    return any(each.name in alive and (each.dead_units or 0.0) >= DEAD for each in sample.layers)


def measure_outlier(values: NDArray[np.float64], value: float) -> tuple[float, float]:
    """Return how unusual a value is, and the median it is compared with.

    Args:
        values: Earlier values; those that are not finite are ignored.
        value: The value.

    Returns:
        Its distance from the median ÷ 1.4826 × the median distance from the median, which for
        normally distributed values is their standard deviation (Rousseeuw & Croux 1993), and the
        median. The distance is 0 if there are no earlier values.

    Example:
        >>> measure_outlier(np.array([1.0, 2.0, 3.0]), 2.0)
        (0.0, 2.0)
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, math.nan
    middle = float(np.median(known))
    spread = 1.4826 * float(np.median(np.abs(known - middle)))
    distance = value - middle
    if spread <= 0.0:
        return (0.0 if distance == 0.0 else math.copysign(math.inf, distance)), middle
    return distance / spread, middle
