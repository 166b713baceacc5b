"""`watch` for what Hugging Face Accelerate has prepared."""

from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

from torch import Tensor

from chainrule.watch.integrations.packages import load
from chainrule.watch.watching import watch

if TYPE_CHECKING:
    from chainrule.watch.run import Run


def watch_accelerator(accelerator: Any, model: Any, optimizer: Any, **settings: Any) -> "Run":
    """Watch a model that an `Accelerator` has prepared.

    Call it after `accelerator.prepare` and, if you call it, `accelerator.init_trackers`. What is
    given to `accelerator.log` is then kept in the run too (its numbers, above all `loss`), and
    `accelerator.end_training` closes the run.

    Args:
        accelerator: The `accelerate.Accelerator`.
        model: What `prepare` returned for the model.
        optimizer: What it returned for the optimizer, or a list for several.
        **settings: Keywords of `watch`.

    Returns:
        The run.

    Raises:
        PackageError: If accelerate is not installed.
        WatchError: If there is nothing to watch.

    Example:
        >>> watch_accelerator.__name__
        'watch_accelerator'
    """
    base: Any = load("accelerate.tracking").GeneralTracker
    run = watch(model, optimizer, **settings)

    class Tracker(base):  # type: ignore[misc]
        name = "chainrule"
        requires_logging_directory = False
        tracker = run

        def log(self, values: Mapping[str, Any], step: int | None = None, **_: Any) -> None:
            is_number = (Real, Tensor)
            run.log(**{name: each for name, each in values.items() if isinstance(each, is_number)})

        def finish(self) -> None:
            run.close()

    accelerator.trackers.append(Tracker())
    return run
