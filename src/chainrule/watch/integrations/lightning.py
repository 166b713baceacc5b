"""A callback for Lightning."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from torch import Tensor

from chainrule.watch.integrations.packages import load
from chainrule.watch.watching import watch

if TYPE_CHECKING:
    from chainrule.watch.run import Run

if find_spec("lightning") is None and find_spec("pytorch_lightning") is not None:  # its older name
    Callback: Any = load("pytorch_lightning").Callback
else:
    Callback = load("lightning.pytorch", install="lightning").Callback


class LightningWatch(Callback):  # type: ignore[misc]
    """Watches `Trainer.fit`: `Trainer(callbacks=[LightningWatch(store="runs/a.db")])`.

    The loss is what `training_step` returns, averaged over accumulated batches. A fit that begins
    at a later step, for example from a checkpoint, goes on with the file at `store`.

    Attributes:
        run: The run, from the start of training on; `None` before.

    Example:
        >>> LightningWatch(every=100).run
    """

    def __init__(self, **settings: Any) -> None:
        """Take the keywords of `watch`."""
        self.run: Run | None = None
        self._settings, self._losses, self._step = settings, list[Tensor](), 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to watch."""
        settings, self._step = dict(self._settings), trainer.global_step
        if settings.get("store") is not None and self._step:
            settings.setdefault("resume", self._step // len(trainer.optimizers))
        self.run = watch(pl_module, list(trainer.optimizers), **settings)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        """Note the loss, once the optimizer has stepped."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor) and loss.numel() == 1:
            parts = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
            self._losses.append(loss.detach() * parts)
        if trainer.global_step != self._step and self._losses and self.run is not None:
            self.run.log(loss=sum(self._losses) / len(self._losses))
            self._losses, self._step = [], trainer.global_step

    def on_train_end(self, *given: Any) -> None:
        """Close the run; also after an error or Ctrl-C, which is then the third argument."""
        if self.run is not None:
            self.run.close(given[2] if len(given) > 2 else None)

    on_exception = on_train_end
