"""`watch` in trainers of other packages, and sinks that send its records to their loggers.

None of these packages is loaded before a name of this one is asked for, and only the one it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chainrule.watch.integrations.accelerate import watch_accelerator
    from chainrule.watch.integrations.lightning import LightningWatch
    from chainrule.watch.integrations.mlflow import MlflowSink
    from chainrule.watch.integrations.tensorboard import TensorBoardSink
    from chainrule.watch.integrations.trackio import TrackioSink
    from chainrule.watch.integrations.transformers import TrainerWatch
    from chainrule.watch.integrations.wandb import WandbSink

__all__ = [
    "LightningWatch",
    "MlflowSink",
    "TensorBoardSink",
    "TrackioSink",
    "TrainerWatch",
    "WandbSink",
    "watch_accelerator",
]

_HOMES = {
    "LightningWatch": "lightning",
    "MlflowSink": "mlflow",
    "TensorBoardSink": "tensorboard",
    "TrackioSink": "trackio",
    "TrainerWatch": "transformers",
    "WandbSink": "wandb",
    "watch_accelerator": "accelerate",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a public name when it is first asked for (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
