"""A registered model on an MLflow server, and the files of its versions (extra ``mlflow``)."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, final

from slant.errors import ArtifactError, UsageError
from slant.publish.release import Release
from slant.storage import BLOCK_BYTES, check_url, patiently
from slant.track.failures import explain

__all__ = [
    "FOLDER",
    "VERSION_TAG",
    "MlflowAddress",
    "MlflowFiles",
    "RegisteredModel",
    "mlflow_address",
]

FOLDER = "bundle"
"""Where a run keeps the files of a release."""
VERSION_TAG = "slant.version"
_ADDRESS = re.compile(r"mlflow\+(?P<uri>https?://[^/?#]+(?:/[^/?#]+)*)/(?P<name>[\w.-]+)/?")
_MODELS = re.compile(r"models:/(?P<name>[\w.-]+)")
_ENVIRONMENT = {
    # Patience is ours: what was carried out but not answered must not be repeated blindly.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_REFUSED = ("CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED", "UNAUTHENTICATED", 401, 403)
_NEVER = (
    "BAD_REQUEST",
    "ENDPOINT_NOT_FOUND",
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    400,
    404,
    413,
)

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class MlflowAddress:
    """A registered model: the server's address and the model's name."""

    uri: str
    name: str

    @property
    def shown(self) -> str:
        """The server's address without a password: MLflow's own variable may hold one."""
        return re.sub(r"//[^/]*@", "//", self.uri)


def mlflow_address(target: str) -> MlflowAddress:
    """The server and the model that a target names.

    Raises:
        UsageError: it is malformed, holds credentials, names no server, or the library is missing.
    """
    if find_spec("mlflow") is None:
        raise UsageError(
            f"{target}: the package mlflow is not installed", hint="pip install 'slant[mlflow]'"
        )
    check_url(target)
    if "@" in target:
        raise UsageError(
            f"{target.partition(':')[0]}:…@…: is no registered model",
            hint="Aliases are set with --alias, and named with --version to pull. Credentials "
            "belong into the environment (MLFLOW_TRACKING_USERNAME, …).",
        )
    if match := _ADDRESS.fullmatch(target):
        return MlflowAddress(match["uri"], match["name"])
    if match := _MODELS.fullmatch(target):
        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        if not uri.startswith(("http://", "https://")):
            raise UsageError(
                f"{target}: MLFLOW_TRACKING_URI names no server",
                hint="Set it to the server's address, or write mlflow+http://host:port/"
                f"{match['name']}.",
            )
        return MlflowAddress(uri.rstrip("/"), match["name"])
    raise UsageError(
        f"{target}: is no registered model",
        hint="Write mlflow+http://host:port/model, or models:/model with MLFLOW_TRACKING_URI set.",
    )


@final
class RegisteredModel:
    """One model; requests are sent again while the server is away.

    Methods raise StorageError, or InputError if ``writes`` is not set, when the server does not
    answer or refuses.
    """

    def __init__(self, address: MlflowAddress, *, writes: bool = True) -> None:
        with _environment():
            from mlflow.tracking import MlflowClient

            self._client = MlflowClient(address.uri, address.uri)
        self._address = address
        self._writes = writes

    def ask(self, request: Callable[[], _Result]) -> _Result:
        """The answer to a request that may be sent more than once."""
        place = f"mlflow at {self._address.shown}"
        with _environment():
            return patiently(partial(_translated, request), place, writes=self._writes)

    def page(self, number: str | None) -> str:
        """Address of the page of a version, or of the model."""
        page = f"{self._address.shown}/#/models/{self._address.name}"
        return page if number is None else f"{page}/versions/{number}"

    def registered(self, version: str) -> tuple[str, str] | None:
        """MLflow's number of a release's version and its run; None if it is not registered."""
        wanted = f"name = '{self._address.name}' AND tags.`{VERSION_TAG}` = '{version}'"
        found = self.ask(lambda: self._client.search_model_versions(wanted))
        pairs = ((str(item.version), str(item.run_id)) for item in found)
        return min(pairs, key=lambda pair: int(pair[0]), default=None)

    def check_run(self, run: str, number: str) -> None:
        """Refuse a version whose run somebody deleted: nothing that is sent could mend it.

        Raises:
            ArtifactError: it is so.
        """
        from mlflow.exceptions import MlflowException

        def is_there() -> bool:
            try:
                return bool(self._client.get_run(run).info.lifecycle_stage == "active")
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return False

        if not self.ask(is_there):
            raise ArtifactError(
                f"{self.page(number)}: its run {run} was deleted",
                hint=f"Restore it (mlflow runs restore --run-id {run}), or delete this version "
                "of the model, and publish again.",
            )

    def run(self, version: str) -> str | None:
        """Id of the run that holds a release's files, or some of them."""
        experiment = self.ask(lambda: self._client.get_experiment_by_name(self._address.name))
        if experiment is None:
            return None
        found = self.ask(
            lambda: self._client.search_runs(
                [experiment.experiment_id],
                f"tags.`{VERSION_TAG}` = '{version}'",
                order_by=["attributes.start_time ASC"],
                max_results=1,
            )
        )
        return str(found[0].info.run_id) if found else None

    def start_run(self, version: str) -> str:
        """Make a run for a release's files; returns its id."""

        def request() -> str:
            experiment = self._client.get_experiment_by_name(self._address.name)
            experiment_id = (
                experiment.experiment_id
                if experiment is not None
                else self._client.create_experiment(self._address.name)
            )
            run = self._client.create_run(
                experiment_id, run_name=version, tags={VERSION_TAG: version}
            )
            return str(run.info.run_id)

        return self.ask(request)

    def files(self, run: str) -> dict[str, int]:
        """Sizes in bytes of the files that a run holds of a bundle, by name."""
        return {
            item.path.removeprefix(f"{FOLDER}/"): int(item.file_size or 0)
            for item in self._walk(run, FOLDER)
        }

    def _walk(self, run: str, folder: str) -> Iterator[Any]:
        for item in self.ask(lambda: self._client.list_artifacts(run, folder)):
            if item.is_dir:
                yield from self._walk(run, item.path)
            else:
                yield item

    def send(self, run: str, release: Release, name: str) -> None:
        """Store one file of a release in a run."""
        folder = str(PurePosixPath(FOLDER, name).parent)
        self.ask(lambda: self._client.log_artifact(run, str(release.path(name)), folder))

    def finish(self, run: str) -> None:
        """Say that all files are there."""
        self.ask(lambda: self._client.set_terminated(run, "FINISHED"))

    def fetch(self, run: str, name: str, folder: str) -> Path:
        """Fetch a file of a run's bundle into a folder; returns where it lies there."""
        path = f"{FOLDER}/{name}"
        return Path(self.ask(lambda: self._client.download_artifacts(run, path, folder)))

    def register(self, version: str, run: str, tags: Mapping[str, str]) -> str:
        """Make a run's bundle a version of the model; returns MLflow's number of it."""
        from mlflow.exceptions import MlflowException

        name = self._address.name

        def make_model() -> None:
            try:
                self._client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise

        def make_version() -> str:
            # An attempt whose answer was lost may have made it.
            if (made_before := self.registered(version)) is not None:
                return made_before[0]
            source = f"{self._client.get_run(run).info.artifact_uri}/{FOLDER}"
            made = self._client.create_model_version(name, source, run, tags=dict(tags))
            return str(made.version)

        self.ask(make_model)
        return self.ask(make_version)

    def find(self, wanted: str | None) -> tuple[str, str]:
        """Number and run of a release.

        Args:
            wanted: a version, an alias or MLflow's number; None: the one registered last.

        Raises:
            UsageError: there is none.
        """
        name = self._address.name
        found = self.ask(lambda: self._client.search_model_versions(f"name = '{name}'"))
        released = {str(item.version): item for item in found if VERSION_TAG in item.tags}
        if wanted is None:
            number = max(released, key=int, default=None)
        else:
            named = {item.tags[VERSION_TAG]: number for number, item in released.items()}
            number = {**named, **{number: number for number in released}}.get(wanted)
            number = number or self._aliased(wanted)
        if number is None or number not in released:
            known = ", ".join(item.tags[VERSION_TAG] for item in list(released.values())[:5])
            raise UsageError(
                f"{self.page(None)}: has no version {wanted or 'that slant published'!r}",
                hint=f"There are: {known}." if known else "Look at the address.",
            )
        return number, str(released[number].run_id)

    def _aliased(self, alias: str) -> str | None:
        """Number of the version that an alias points at."""
        from mlflow.exceptions import MlflowException

        def request() -> str | None:
            try:
                found = self._client.get_model_version_by_alias(self._address.name, alias)
            except MlflowException as error:
                if error.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
                    return None
                raise
            return str(found.version)

        return self.ask(request)

    def set_alias(self, alias: str, number: str) -> None:
        """Let an alias point at a version; one step on the server."""
        self.ask(lambda: self._client.set_registered_model_alias(self._address.name, alias, number))


@final
class MlflowFiles:
    """The files of one release in a registry; see ``stores.Source``.

    A file is fetched whole into a temporary folder: MLflow gives no parts of one.
    """

    def __init__(self, address: MlflowAddress, wanted: str | None) -> None:
        self._model = RegisteredModel(address, writes=False)
        self._number, self._run = self._model.find(wanted)
        self._sizes = self._model.files(self._run)

    def place(self, name: str) -> str:
        """See Source."""
        return f"{self._model.page(self._number)}/{name}"

    def read(self, name: str) -> bytes | None:
        """See Source."""
        if name not in self._sizes:
            return None
        return b"".join(self.blocks(name, 0, self._sizes[name]))

    def blocks(self, name: str, start: int, num_bytes: int) -> Iterator[bytes]:
        """See Source."""
        if self._sizes.get(name) != num_bytes:
            raise ArtifactError(
                f"{self.place(name)}: has {self._sizes.get(name, 0)} bytes instead of {num_bytes}",
                hint="Publish the bundle again: what is missing is sent.",
            )
        with (
            tempfile.TemporaryDirectory() as folder,
            self._model.fetch(self._run, name, folder).open("rb") as file,
        ):
            file.seek(start)
            while block := file.read(BLOCK_BYTES):
                yield block


def _translated(request: Callable[[], _Result]) -> _Result:
    """Refusals of the server, in the exceptions that ``patiently`` knows as lasting."""
    try:
        return request()
    except Exception as error:  # MLflow's own, and those of the library under it
        response = getattr(error, "response", None)
        code = getattr(error, "error_code", getattr(response, "status_code", None))
        if code in _REFUSED:
            raise PermissionError(code) from error
        if code in _NEVER:
            raise ValueError(str(getattr(error, "message", error))) from error
        if code is not None:  # its message may hold the address with all that is in it
            raise ConnectionError(explain(error)) from error
        raise


@contextmanager
def _environment() -> Iterator[None]:
    """MLflow's client is set up by variables; those that are set already win."""
    added = {name: value for name, value in _ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(added)
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.WARNING)  # it tells of waiting, and we do that
    try:
        yield
    finally:
        logger.setLevel(level)
        for name in added:
            os.environ.pop(name, None)
