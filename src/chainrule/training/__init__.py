"""Real training: one specified network, or many learning rates at once."""

from chainrule.training.trainability import (
    Trainability,
    measure_trainability,
)
from chainrule.training.training import (
    BUDGET,
    CHANCE_LOSS,
    CLASSES,
    DEFAULT_RATES,
    FEATURES,
    MAX_BATCH,
    MAX_STEPS,
    TRAINED,
    Optimizer,
    TrainingRecord,
    check_installed,
    check_optimizer,
    check_rate,
    count_examples,
    estimate_cost,
    load_digits,
    measure_chance,
    train,
)
from chainrule.training.trial import try_training

__all__ = [
    "BUDGET",
    "CHANCE_LOSS",
    "CLASSES",
    "DEFAULT_RATES",
    "FEATURES",
    "MAX_BATCH",
    "MAX_STEPS",
    "TRAINED",
    "Optimizer",
    "Trainability",
    "TrainingRecord",
    "check_installed",
    "check_optimizer",
    "check_rate",
    "count_examples",
    "estimate_cost",
    "load_digits",
    "measure_chance",
    "measure_trainability",
    "train",
    "try_training",
]
