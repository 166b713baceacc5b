"""A callback for the `Trainer` of Hugging Face transformers."""

from typing import TYPE_CHECKING, Any

from chainrule.watch.integrations.packages import load
from chainrule.watch.watching import watch

if TYPE_CHECKING:
    from chainrule.watch.run import Run

TrainerCallback: Any = load("transformers").TrainerCallback

_LOGGED = ("loss", "eval_loss")


class TrainerWatch(TrainerCallback):  # type: ignore[misc]
    """Watches `Trainer.train`: `Trainer(..., callbacks=[TrainerWatch(store="runs/a.db")])`.

    The loss is the one that the trainer logs. With `TrainingArguments(logging_steps=1)` it is there
    for every step, and the alarms about it come as soon as they can. Training that goes on from a
    checkpoint goes on with the file at `store`.

    Attributes:
        run: The run, from the start of training on; `None` before.

    Example:
        >>> TrainerWatch(every=100).run
    """

    def __init__(self, **settings: Any) -> None:
        """Take the keywords of `watch`."""
        self.run: Run | None = None
        self._settings = settings

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *, model: Any, optimizer: Any, **_: Any
    ) -> None:
        """Begin to watch."""
        settings = dict(self._settings)
        if settings.get("store") is not None and state.global_step:
            settings.setdefault("resume", state.global_step)
        if self.run is not None:
            self.run.close()  # training before ended with an error, which nobody says to callbacks
        self.run = watch(model, optimizer, **settings)

    def on_log(self, args: Any, state: Any, control: Any, *, logs: Any = None, **_: Any) -> None:
        """Note the loss."""
        if self.run is not None:
            self.run.log(**{name: logs[name] for name in _LOGGED if name in (logs or {})})

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Close the run."""
        if self.run is not None:
            self.run.close()
