"""A run in MLflow, by the client library (extra ``mlflow``).

A run that was stopped or killed is set to RUNNING again and goes on. MLflow keeps every value it is
sent, two for one step too; that of one step, name and time it keeps once, so a batch may be sent
again when its answer was lost.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from slant.track.failures import Refused
from slant.track.figures import Table
from slant.track.worker import Point

__all__ = ["MlflowRun"]

_METRICS_PER_REQUEST = 1000
_PARAMETERS_PER_REQUEST = 100
_PARAMETER_CHARACTERS = 500
_FOLDER = "report"
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_NOT_ALLOWED = re.compile(r"[^\w.\- /:]")
_NEVER = ("BAD_REQUEST", "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")


@final
class MlflowRun:
    """See ``slant.track.worker.TrackedRun``. ``where`` is the run's page on the server."""

    def __init__(self) -> None:
        self._client: Any = None
        self._run_id: str | None = None

    def open(self, target: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, str]:
        """Go on with a run or make one; parameters are sent once, when it is made."""
        # The queue does what MLflow's own retries do, and does not hold up the end of a run.
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(max(1, round(target["answer_s"])))
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(target["uri"])
        experiment = self._experiment(target["experiment"])
        known = self._known(run["id"])
        if known is None:
            known = self._client.create_run(experiment, run_name=run["name"])
        elif run["goes_on"]:
            self._client.update_run(known.info.run_id, status="RUNNING")
        self._run_id = str(known.info.run_id)
        if not known.data.params:
            # Should this fail, the run's id must not be lost: it is tried again when the run is
            # opened again.
            with suppress(MlflowException):
                self._log_parameters(run["config"])
        page = f"/#/experiments/{known.info.experiment_id}/runs/{self._run_id}"
        on_a_server = target["uri"].startswith("http")
        return {
            "id": self._run_id,
            "where": target["uri"] + page if on_a_server else f"run {self._run_id}",
        }

    def log(self, points: Sequence[Point]) -> None:
        """Send values in requests of at most 1,000, MLflow's limit."""
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        metrics = [
            Metric(_NOT_ALLOWED.sub("_", name), value, round(time_s * 1000), step)
            for step, time_s, values in points
            for name, value in values.items()
        ]
        try:
            for first in range(0, len(metrics), _METRICS_PER_REQUEST):
                part = metrics[first : first + _METRICS_PER_REQUEST]
                self._client.log_batch(self._run_id, metrics=part)
        except MlflowException as error:
            if error.error_code in _NEVER:
                raise Refused(f"refuses what it is sent ({error.error_code})") from error
            raise

    def report(self, report: Mapping[str, Any]) -> None:
        """Metrics, the tables as CSV, and the page, under ``report/`` of the run's artifacts."""
        self.log([(report["step"], report["time_s"], report["metrics"])])
        for table in map(Table.from_json, report["tables"]):
            self._client.log_text(self._run_id, table.as_csv(), f"{_FOLDER}/{table.name}.csv")
        if Path(report["html"]).is_file():
            self._client.log_artifact(self._run_id, report["html"], _FOLDER)

    def end(self, status: str | None) -> None:
        """FINISHED, FAILED or KILLED (what was stopped can be resumed)."""
        if status is not None:
            self._client.set_terminated(self._run_id, _STATUS[status])

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _known(self, run_id: str | None) -> Any | None:
        """The run, if the server still has it."""
        from mlflow.exceptions import MlflowException

        if run_id is None:
            return None
        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return run if run.info.lifecycle_stage == "active" else None

    def _log_parameters(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [
            Param(_NOT_ALLOWED.sub("_", name), str(value)[:_PARAMETER_CHARACTERS])
            for name, value in _flat(config)
        ]
        for first in range(0, len(params), _PARAMETERS_PER_REQUEST):
            part = params[first : first + _PARAMETERS_PER_REQUEST]
            self._client.log_batch(self._run_id, params=part)


def _flat(config: Mapping[str, Any], head: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested settings under dotted names."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{head}{name}.")
        else:
            yield f"{head}{name}", value
