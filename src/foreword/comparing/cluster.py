"""Runs on a Ray cluster: every worker keeps its backbone loaded, run folders travel through fsspec.

A worker trains in a folder of its own machine and copies what came of it to the shared folder, the
figures last, so that a run is there whole or not at all. What starts the cluster's runs copies them
from there. A worker that dies is replaced, and its run begins again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from foreword.common.progress import Silent
from foreword.common.remote import open_remote
from foreword.common.run_files import METRICS, is_finished
from foreword.comparing.cells import RUNS, Place, digest_in, distinct
from foreword.comparing.executing import Failure, Loaded, Watcher, attempt, by_backbone, reason_of
from foreword.errors import UserError, argument
from foreword.extensions import load_plugin, loaded_plugins

SCHEME, LOCAL, AUTO = "ray://", "local", "auto"
TRIES = 3
"""How often a run begins whose worker dies."""
_POLL = 0.5


@dataclass(frozen=True)
class Cluster:
    """Where runs go.

    Attributes:
        address: `ray://local` for a cluster of this machine's own, `ray://auto` for the one that
            this machine is part of, `ray://HOST:PORT` for another's.
        shared: folder that all machines reach, as fsspec writes it (a path, s3://…, gs://…); the
            comparison's own folder if not given.
        workers: processes, each with a core, or a GPU where the cluster has some; None: as many as
            there are of these.
    """

    address: str
    shared: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if not self.address.startswith(SCHEME) or self.address == SCHEME:
            raise UserError(
                f"{argument('--on')}: {self.address!r} is no cluster; give ray://local, ray://auto "
                "or ray://HOST:PORT"
            )


class Ended(Exception):
    """A run that a search gave up, by what it had reached."""


class Reports:
    """What runs have reached, between workers and a search; an actor of one thread."""

    def __init__(self) -> None:
        self.new: list[tuple[int, dict[str, float]]] = []
        self.given_up: set[int] = set()

    def report(self, number: int, entry: dict[str, float]) -> bool:
        """From a worker; whether its run is given up."""
        self.new.append((number, entry))
        return number in self.given_up

    def take(self) -> list[tuple[int, dict[str, float]]]:
        """To the search, what is new."""
        taken, self.new = self.new, []
        return taken

    def give_up(self, number: int) -> None:
        """From the search: end that run at its next evaluation."""
        self.given_up.add(number)


class Worker:
    """An actor: a process with a backbone that its runs share."""

    def __init__(
        self, device: str | None, trust_remote_code: bool, plugins: Sequence[str] = ()
    ) -> None:
        import torch

        for file in plugins:
            load_plugin(file)

        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
        self.loaded = Loaded(device, trust_remote_code=trust_remote_code)

    def run(self, place: Place, target: str, number: int, reports: Any) -> str | None:
        """Run a cell, and copy its folder to the target.

        Returns:
            The reason where it failed.

        Raises:
            Ended: the search gave it up.
        """

        def watch(entry: Mapping[str, float]) -> None:
            import ray

            if ray.get(reports.report.remote(number, dict(entry))):
                raise Ended

        with tempfile.TemporaryDirectory(prefix="foreword-") as folder:
            own = replace(place, folder=Path(folder) / place.folder.name)
            failure = attempt(own, self.loaded, Silent(), None if reports is None else watch)
            if failure is not None:
                return failure.reason
            send(own.folder, target)
        return None


def send(folder: Path, target: str) -> None:
    """Copy a run folder to a place that fsspec knows; the figures come last."""
    fs, root = open_remote(target, argument("--shared"))
    inside = sorted(file for file in folder.rglob("*") if file.is_file())
    for file in sorted(inside, key=lambda file: file == folder / METRICS):
        there = f"{root}/{file.relative_to(folder).as_posix()}"
        fs.makedirs(there.rpartition("/")[0], exist_ok=True)
        fs.put_file(str(file), there)


def fetch(target: str, folder: Path) -> bool:
    """Copy a finished run folder from such a place; whether there was one."""
    fs, root = open_remote(target, argument("--shared"))
    if not fs.exists(f"{root}/{METRICS}"):
        return False
    if is_finished(folder):
        return True
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for there in fs.find(root):
            file = partial / str(there)[len(root.rstrip("/")) + 1 :]
            file.parent.mkdir(parents=True, exist_ok=True)
            fs.get_file(there, str(file))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def _names(target: str) -> dict[str, list[str]]:
    """The folders of such a place, by what follows from a run's content in their names."""
    fs, root = open_remote(target, argument("--shared"))
    names: dict[str, list[str]] = {}
    for folder in fs.ls(root, detail=False) if fs.exists(root) else ():
        name = str(folder).rstrip("/").rpartition("/")[2]
        names.setdefault(digest_in(name), []).append(name)
    return names


@dataclass
class Crew:
    """The workers of a cluster, and what each of them runs."""

    ray: Any
    make: Any
    count: int
    target: str
    reports: Any = None
    idle: list[Any] = field(default_factory=list)
    running: dict[Any, tuple[Any, Place, int, int]] = field(default_factory=dict)

    @property
    def free(self) -> bool:
        """Whether a worker has nothing to do."""
        return len(self.running) < self.count

    def begin(self, place: Place, number: int = 0, tries: int = 1) -> None:
        """Give a run to a worker."""
        worker = self.idle.pop() if self.idle else self.make()
        target = f"{self.target}/{place.folder.name}"
        reference = worker.run.remote(place, target, number, self.reports)
        self.running[reference] = worker, place, number, tries

    def ended(self) -> Iterator[tuple[Place, int, Failure | None, bool]]:
        """Runs that have ended by now: place, number, why they failed, and whether they were given
        up. A run whose worker died begins again."""
        if not self.running:
            return
        done, _ = self.ray.wait(list(self.running), num_returns=1, timeout=_POLL)
        for reference in done:
            worker, place, number, tries = self.running.pop(reference)
            try:
                reason = self.ray.get(reference)
            except self.ray.exceptions.RayTaskError as error:
                self.idle.append(worker)
                if isinstance(error.cause, Ended):
                    yield place, number, None, True
                    continue
                reason = f"{type(error.cause).__name__}: {error.cause}"
            except self.ray.exceptions.RayError as error:
                if tries < TRIES:
                    self.begin(place, number, tries + 1)
                    continue
                first = str(error).strip().splitlines()[0]
                reason = f"its worker died {tries} times: {first}"
            else:
                self.idle.append(worker)
                reason = self._fetched(place) if reason is None else reason
            yield place, number, None if reason is None else Failure(place, reason), False

    def _fetched(self, place: Place) -> str | None:
        """Copy a run's folder here; why that could not be done."""
        try:
            if fetch(f"{self.target}/{place.folder.name}", place.folder):
                return None
        except Exception as error:
            return f"its folder cannot be copied from {self.target}: {reason_of(error)}"
        return (
            f"its folder is not in {self.target}, which workers and this machine must both reach; "
            f"name such a place with {argument('--shared')}"
        )

    def give_up(self, number: int) -> None:
        """End a run at its next evaluation."""
        self.reports.give_up.remote(number)


@contextmanager
def crew_of(
    cluster: Cluster,
    out: Path,
    *,
    runs: int,
    device: str | None,
    trust_remote_code: bool = False,
    watched: bool = False,
) -> Iterator[Crew]:
    """The workers of a cluster while a comparison or a search lasts.

    Args:
        cluster: where they are.
        out: the folder of the comparison; below `cluster.shared`, if that is given, the same names.
        runs: how many there will be at most.
        device: "cpu", "cuda" or "mps"; the best that a worker has if not given.
        trust_remote_code: run code that comes with a backbone.
        watched: whether what the runs reach is to be seen while they go on.

    Raises:
        UserError: Ray is not installed, or there is no such cluster.
    """
    ray = _ray()
    own = not ray.is_initialized()
    _connect(ray, cluster)
    try:
        have = ray.cluster_resources()
        on_gpus = device != "cpu" and have.get("GPU", 0) >= 1
        most = int(have.get("GPU" if on_gpus else "CPU", 1))
        count = max(1, min(cluster.workers or most, most, runs))
        actor = ray.remote(num_cpus=1, num_gpus=1 if on_gpus else 0)(Worker)
        target = f"{(cluster.shared or str(out.resolve())).rstrip('/')}/{RUNS}"
        reports = ray.remote(num_cpus=0)(Reports).remote() if watched else None

        def make() -> Any:
            return actor.remote(device, trust_remote_code, loaded_plugins())

        yield Crew(ray, make, count, target, reports)
    finally:
        if own:
            ray.shutdown()


def execute_on(
    cluster: Cluster,
    places: Sequence[Place],
    out: Path,
    *,
    watcher: Watcher,
    device: str | None,
    trust_remote_code: bool = False,
) -> list[Failure]:
    """Run every cell that is not finished, here or in the shared folder, on a cluster.

    Raises:
        UserError: Ray is not installed, or there is no such cluster.
        Stopped: Ctrl-C or SIGTERM; what is finished stays, and the same command goes on.
    """
    from foreword.training.signals import stop_on_signals

    waiting = by_backbone([place for place in distinct(places) if place.state != "finished"])
    if cluster.shared is not None:
        target = f"{cluster.shared.rstrip('/')}/{RUNS}"
        there = _names(target)
        waiting = [
            place
            for place in waiting
            if not any(
                fetch(f"{target}/{name}", place.folder)
                for name in there.get(digest_in(place.folder.name), ())
            )
        ]
    if not waiting:
        return []
    failures = []
    with (
        crew_of(
            cluster, out, runs=len(waiting), device=device, trust_remote_code=trust_remote_code
        ) as crew,
        stop_on_signals() as stop,
    ):
        while waiting or crew.running:
            stop.check()
            while waiting and crew.free:
                place = waiting.pop(0)
                watcher.began(place)
                crew.begin(place)
            for place, _, failure, _ in crew.ended():
                failures += [failure] if failure is not None else []
                watcher.ended(place, failure)
    return failures


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")  # a busy machine takes its time
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "a cluster needs Ray, which is not installed: pip install 'foreword[cluster]'"
        ) from error
    return ray


def _connect(ray: Any, cluster: Cluster) -> None:
    if ray.is_initialized():
        return
    where = cluster.address.removeprefix(SCHEME)
    quiet = {"log_to_driver": False, "include_dashboard": False}
    try:
        if where == LOCAL:
            ray.init(address="local", num_cpus=cluster.workers, **quiet)
        elif where == AUTO:
            ray.init(address=AUTO, log_to_driver=False)
        else:
            ray.init(address=cluster.address, log_to_driver=False)
    except Exception as error:  # Ray raises bare ones, too
        first = str(error).strip().splitlines()[0]
        raise UserError(f"{argument('--on')}: {cluster.address}: no cluster: {first}") from error
