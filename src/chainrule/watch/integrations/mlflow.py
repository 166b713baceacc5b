"""A sink for MLflow."""

from chainrule.errors import WatchError
from chainrule.watch.integrations.packages import load
from chainrule.watch.records import Alarm, Record, RunFacts
from chainrule.watch.sinks import describe_alarm, read_metrics


class MlflowSink:
    """Sends a run to MLflow: `with mlflow.start_run(): watch(..., sinks=[MlflowSink()])`.

    Metrics are sent by MLflow's own thread, so that training does not wait for a server. An alarm
    is a tag, "chainrule.alarm" with its step and rule.

    Example:
        >>> MlflowSink.__name__
        'MlflowSink'
    """

    def __init__(self, run_id: str | None = None) -> None:
        """Take the id of an MLflow run; that of the run that is active if not given.

        Raises:
            WatchError: If there is none.
        """
        self._mlflow = load("mlflow")
        active = self._mlflow.active_run()
        if run_id is None and active is None:
            raise WatchError("There is no active MLflow run. Call mlflow.start_run() first.")
        self._run_id = active.info.run_id if run_id is None else run_id

    def __call__(self, record: Record, facts: RunFacts) -> None:
        """Log a record."""
        if isinstance(record, Alarm):
            name = f"chainrule.alarm.{record.step}.{record.rule}"
            text = describe_alarm(record)[:5000]  # the longest tag that stores take
            self._mlflow.MlflowClient().set_tag(self._run_id, name, text)
        elif metrics := read_metrics(record, facts):
            self._mlflow.log_metrics(
                metrics, step=record.step, synchronous=False, run_id=self._run_id
            )

    def close(self) -> None:
        """Wait until everything is sent; the MLflow run stays open."""
        self._mlflow.flush_async_logging()
