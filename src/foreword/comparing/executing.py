"""Runs what is not there yet: in this process, or in several beside each other."""

from __future__ import annotations

import ctypes
import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from foreword.common import files
from foreword.common.memory import advice, of_machine, ran_out
from foreword.common.progress import Progress, Silent
from foreword.common.run_files import holds_run, is_finished
from foreword.comparing.cells import Place, distinct
from foreword.comparing.costs import Cost, add_cost
from foreword.comparing.words import write_words
from foreword.errors import ForewordError, RunError, argument
from foreword.extensions import load_plugin, loaded_plugins
from foreword.recipe import BackboneSpec, Recipe

if TYPE_CHECKING:
    import psutil

    from foreword.backbone import Backbone

_log = logging.getLogger(__name__)
MEMORY_A_PROCESS = 3 * 2**30
"""Bytes that a process of its own is taken to need, with a backbone of ordinary size."""


@dataclass(frozen=True)
class Failure:
    """A run that failed, and why."""

    place: Place
    reason: str


class Watcher(Protocol):
    """What is told of the runs as they go."""

    def planned(self, places: Sequence[Place]) -> None:
        """All runs there are to be, before the first begins."""

    def began(self, place: Place) -> None:
        """A run begins, or goes on."""

    def ended(self, place: Place, failure: Failure | None) -> None:
        """A run has ended."""


class Loaded:
    """Backbones that several runs share, loaded when one first needs them.

    Args:
        device: "cpu", "cuda" or "mps"; the best there is if not given.
        trust_remote_code: run code that comes with a backbone.
    """

    def __init__(self, device: str | None = None, *, trust_remote_code: bool = False) -> None:
        self.device, self.trust_remote_code = device, trust_remote_code
        self._backbones: dict[str, Backbone] = {}

    def run(
        self,
        recipe: Recipe,
        folder: Path,
        progress: Progress,
        *,
        watch: Callable[[Mapping[str, float]], None] | None = None,
    ) -> None:
        """Run a recipe in a folder, or go on with the run in it; `watch` sees each evaluation.

        Raises:
            ForewordError: the run failed, or was stopped.
        """
        from foreword.runs import train

        backbone = self._backbone(recipe.loads)
        with kept_cost(folder):
            train(
                recipe,
                out=folder,
                resume=True,  # or begins, also where a kill left nothing but a half-written recipe
                device=self.device,
                backbone=backbone,
                progress=progress,
                trust_remote_code=self.trust_remote_code,
                watch=watch,
            )
        write_words(folder, backbone)

    def _backbone(self, spec: BackboneSpec) -> Backbone:
        from foreword.backbone import load_backbone
        from foreword.runs.run import recipe_device

        key = _loaded_as(spec)
        if key not in self._backbones:
            self._backbones.clear()  # one at a time is in memory; `by_backbone` orders runs so
            self._backbones[key] = load_backbone(
                spec.name,
                revision=spec.revision,
                dtype=spec.dtype,
                device=recipe_device(spec, self.device, None),
                bos=spec.bos,
                attention=None if spec.attention == "auto" else spec.attention,
                quantization=spec.quantization,
                device_map=spec.device_map,
                trust_remote_code=self.trust_remote_code,
            )
        return self._backbones[key]


def _loaded_as(spec: BackboneSpec) -> str:
    """What is equal where one loaded backbone serves."""
    return spec.model_copy(update={"bos": "auto"}).model_dump_json()


def by_backbone(places: Sequence[Place]) -> list[Place]:
    """Runs of one backbone together, so that it is loaded once; else in their order."""
    together: dict[str, list[Place]] = {}
    for place in places:
        together.setdefault(_loaded_as(place.cell.recipe.loads), []).append(place)
    return [place for members in together.values() for place in members]


def _give_back() -> None:
    """Return freed memory to the system, so that it counts again when it is taken."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _resident(process: psutil.Process) -> int:
    info = process.memory_info()
    return int(info.rss - getattr(info, "shared", 0))


@contextmanager
def measured_cost() -> Iterator[Cost]:
    """Seconds of a block, and the most memory that it took beyond what was there before.

    On a GPU torch counts the bytes; elsewhere the process's resident memory is looked at twenty
    times a second, after what earlier runs have freed is given back (by glibc; other C libraries
    keep it, and then a second run seems to take less than it does). Pages of files are left out
    where the system tells them apart (Linux): it may drop them at any time.
    """
    import psutil
    import torch

    cost, process, ended = Cost(), psutil.Process(), threading.Event()
    _give_back()
    before = _resident(process)
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()

    def watch() -> None:
        while not ended.wait(0.05):
            cost.peak_bytes = max(cost.peak_bytes, _resident(process) - before)

    watcher = threading.Thread(target=watch, daemon=True)
    if not cuda:
        watcher.start()
    started = time.monotonic()
    try:
        yield cost
    finally:
        ended.set()
        cost.seconds = time.monotonic() - started
        if cuda:
            cost.peak_bytes = torch.cuda.max_memory_allocated() - before


@contextmanager
def kept_cost(folder: Path) -> Iterator[None]:
    """Keep what a block takes in a run's folder, also where the run fails or is stopped. A run that
    is finished before, or that another command has, keeps the cost that is there."""
    finished = is_finished(folder)
    try:
        with measured_cost() as cost:
            yield
    except files.Occupied:
        raise
    except BaseException:
        with suppress(OSError):  # the run's own end is what counts
            _keep(folder, cost, finished)
        raise
    _keep(folder, cost, finished)


def _keep(folder: Path, cost: Cost, finished: bool) -> None:
    if not finished and holds_run(folder):
        add_cost(folder, cost)


def execute(
    places: Sequence[Place],
    *,
    watcher: Watcher,
    loaded: Loaded,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Failure]:
    """Run every cell that is not finished; a run that fails does not keep the others from running.

    Args:
        places: cells and their folders.
        watcher: told of every run.
        loaded: loads backbones.
        workers: processes beside each other; None: as many as pay on this machine.
        progress: told about the stages of a run, where one process runs them all.

    Raises:
        Stopped: Ctrl-C or SIGTERM; what is finished stays, and the same command goes on.
    """
    waiting = by_backbone([place for place in distinct(places) if place.state != "finished"])
    count = processes_that_pay(len(waiting), loaded.device) if workers is None else workers
    if min(count, len(waiting)) > 1:
        return _beside(waiting, watcher, loaded, count)
    failures = []
    for place in waiting:
        watcher.began(place)
        failure = attempt(place, loaded, progress or Silent())
        failures += [failure] if failure is not None else []
        watcher.ended(place, failure)
    return failures


def processes_that_pay(runs: int, device: str | None) -> int:
    """How many processes to run side by side: one a core of a CPU, as far as memory allows.

    Operations of a small model are too short to be dealt out over threads, so that processes of one
    thread each do more in the same time. A GPU is left to one process.
    """
    import torch

    on_cpu = device == "cpu" or (device is None and not torch.cuda.is_available())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    fitting = of_machine().free // MEMORY_A_PROCESS
    return max(1, min(cores or 1, fitting, runs)) if on_cpu and runs > 2 else 1


def attempt(
    place: Place,
    loaded: Loaded,
    progress: Progress,
    watch: Callable[[Mapping[str, float]], None] | None = None,
) -> Failure | None:
    """Run a cell; why it failed, if it did, whatever the error.

    Raises:
        Stopped: Ctrl-C or SIGTERM.
        Exception: what `watch` raised.
    """
    from foreword.runs import Stopped

    own: list[Exception] = []

    def watching(entry: Mapping[str, float]) -> None:
        assert watch is not None
        try:
            watch(entry)
        except Exception as error:
            own.append(error)
            raise

    try:
        watched = None if watch is None else watching
        loaded.run(place.cell.recipe, place.folder, progress, watch=watched)
    except Stopped:
        raise
    except Exception as error:
        if error in own:
            raise
        return Failure(place, reason_of(error))
    return None


def reason_of(error: Exception) -> str:
    """What a report says of an error: of one that is not foreword's its kind, too."""
    if ran_out(error):
        return advice(error)
    if isinstance(error, ForewordError):
        return str(error)
    if not isinstance(error, OSError):  # perhaps a mistake of ours: where it was is not lost
        _log.error("a run failed", exc_info=error)
    return f"{type(error).__name__}: {error}"


LAST_STEP = 30.0
"""Seconds that a worker whose parent was killed may take to keep what its run has."""
_worker: Loaded | None = None


def _begin_worker(
    device: str | None, trust_remote_code: bool, threads: int, plugins: Sequence[str]
) -> None:
    import torch

    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent passes Ctrl-C on as SIGTERM
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(threads)
    for file in plugins:
        load_plugin(file)
    _worker = Loaded(device, trust_remote_code=trust_remote_code)


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    """Where the parent was killed, stop as by SIGTERM, so that its run can go on elsewhere."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST_STEP)
    os._exit(1)


def _in_worker(place: Place) -> str | None:
    """Run one cell in a worker; the reason where it failed, or was stopped."""
    from foreword.runs import Stopped

    assert _worker is not None
    try:
        failure = attempt(place, _worker, Silent())
    except Stopped as stopped:
        return str(stopped)
    return None if failure is None else failure.reason


def _beside(
    places: Sequence[Place], watcher: Watcher, loaded: Loaded, workers: int
) -> list[Failure]:
    """Several processes of their own, each with its backbone."""
    from foreword.training.signals import stop_on_signals

    threads = max(1, (os.cpu_count() or 1) // workers)
    failures = []
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_worker,
        initargs=(loaded.device, loaded.trust_remote_code, threads, loaded_plugins()),
    )
    queue, running = list(places), dict[Future[str | None], Place]()
    with stop_on_signals() as stop:
        try:
            while queue or running:
                stop.check()
                while queue and len(running) < workers:
                    place = queue.pop(0)
                    watcher.began(place)
                    running[pool.submit(_in_worker, place)] = place
                done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    place = running.pop(future)
                    reason = _outcome(future)
                    failure = None if reason is None else Failure(place, reason)
                    failures += [failure] if failure is not None else []
                    watcher.ended(place, failure)
        except BrokenProcessPool as error:
            raise RunError(
                f"one of {workers} processes beside each other ended by itself, perhaps for want "
                f"of memory; give fewer ({argument('--workers')}); the same command goes on"
            ) from error
        except BaseException:  # also a watcher's: nothing runs on that nobody waits for
            _stop(pool)
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return failures


def _outcome(future: Future[str | None]) -> str | None:
    """Why a worker's run failed, if it did."""
    try:
        return future.result()
    except BrokenProcessPool:
        raise
    except Exception as error:
        return reason_of(error)


def _stop(pool: ProcessPoolExecutor) -> None:
    """Ask the workers to stop; each keeps what its run has written."""
    for process in list((pool._processes or {}).values()):
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGTERM)
