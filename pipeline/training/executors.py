"""Parallel execution of tasks: by processes of this machine (joblib's loky), or a Dask or Ray cluster."""

import importlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import joblib

from pipeline.errors import UserError

PACKAGES = {"loky": "joblib", "dask": "distributed", "ray": "ray"}
# Exceptions raised if a worker died, by name: their packages need not be installed.
DEATH = {"BrokenProcessPool", "KilledWorker", "FutureCancelledError", "RayActorError", "WorkerCrashedError"}
DEATHS = 3  # of workers that are tolerated without a finished task in between
Tasks = dict[Any, tuple[Any, ...]]
Run = Callable[[Callable[..., Any], Tasks], Iterator[tuple[Any, Any]]]


@contextmanager
def _dask(jobs: int, address: str | None, data: Any) -> Iterator[Run]:
    """Run tasks with Dask's own futures: joblib's Dask backend waits forever for a task that Dask has abandoned."""
    import distributed

    with ExitStack() as stack:
        cluster = address or stack.enter_context(
            distributed.LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
        )
        client = stack.enter_context(distributed.Client(cluster))

        def run(work: Callable[..., Any], tasks: Tasks) -> Iterator[tuple[Any, Any]]:
            client.wait_for_workers(1)  # all may have died; scatter fails without one
            shared = client.scatter(data, broadcast=True, hash=False)  # sent once to each worker
            futures = {client.submit(work, shared, *words, pure=False): key for key, words in tasks.items()}
            for future in distributed.as_completed(futures):
                yield futures[future], future.result()

        yield run


@contextmanager
def _joblib(name: str, jobs: int, address: str | None, data: Any) -> Iterator[Run]:
    """Run tasks with loky or Ray, through joblib."""
    with ExitStack() as stack:
        options: dict[str, Any] = {"n_jobs": jobs}
        shared = data  # loky memory-maps large arrays itself
        if name == "loky" and (jobs == 1 or not _semaphores()):
            name = "sequential"  # in this process
        elif name == "loky":
            options["inner_max_num_threads"] = joblib.cpu_count()  # as for a single task: rounding depends on it
        else:
            import ray
            from ray.util.joblib import register_ray
            from ray.util.joblib.ray_backend import RayBackend

            ray.init(**({"address": address} if address else {"num_cpus": jobs}))
            stack.callback(ray.shutdown)
            register_ray()
            RayBackend.supports_return_generator = True  # wrongly inherited as False from Python's pools
            shared = ray.put(data)  # stored once in each machine's shared memory
            has = ray.cluster_resources()
            if has.get("GPU"):  # Ray hides GPUs from workers that request none
                workers = int(has["GPU"]) if address else min(jobs, int(has["GPU"]))
                options |= {"n_jobs": workers, "ray_remote_args": {"num_gpus": 1}}
            elif address:
                options["n_jobs"] = int(has["CPU"])
        stack.enter_context(joblib.parallel_config(name, **options))

        def run(work: Callable[..., Any], tasks: Tasks) -> Iterator[tuple[Any, Any]]:
            calls = (joblib.delayed(_call)(work, os.getpid(), key, shared, words) for key, words in tasks.items())
            yield from joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="all")(calls)

        yield run


def _semaphores() -> bool:
    """Return whether this machine can create the semaphores that loky needs; some containers cannot."""
    try:
        room = [multiprocessing.get_context("spawn").Semaphore() for _ in range(32)]
    except (ImportError, OSError) as trouble:
        print(f"one training at a time, since /dev/shm has no room for semaphores ({trouble})", flush=True)
        return False
    return bool(room)


def _call(work: Callable[..., Any], driver: int, key: Any, shared: Any, words: tuple[Any, ...]) -> tuple[Any, Any]:
    """Execute one task in a worker of joblib."""
    if os.getppid() == driver:
        threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    if type(shared).__module__.split(".")[0] == "ray":  # an object reference
        import ray

        shared = ray.get(shared)
    return key, work(shared, *words)


def _end_with(driver: int) -> None:
    """End this process when its parent, the driver, has died, as nothing reads its results."""
    while os.getppid() == driver:
        time.sleep(1)
    os._exit(1)


def results(
    work: Callable[..., Any], data: Any, tasks: Tasks, name: str, jobs: int, address: str | None
) -> Iterator[tuple[Any, Any]]:
    """Call `work(data, *words)` for each of `tasks` (key: words), and yield (key, result) as tasks finish.

    Tasks of a worker that died are repeated by another one.

    Parameters
    ----------
    name : executor, one of PACKAGES.
    jobs : number of parallel tasks.
    address : of a Dask scheduler or Ray cluster, whose size then replaces `jobs`; None starts one on this machine.

    Raises
    ------
    UserError : if the executor is unknown or not installed, the cluster cannot be reached, or workers die repeatedly.
    """
    check(name)
    left, deaths = dict(tasks), 0
    with ExitStack() as stack:
        try:
            cluster = _dask(jobs, address, data) if name == "dask" else _joblib(name, jobs, address, data)
            run = stack.enter_context(cluster)
        except (ValueError, OSError) as trouble:  # raised for a wrong address
            raise UserError(f"EXECUTOR={name} ADDRESS={address or ''}: {trouble}") from None
        while left:
            try:
                for key, result in run(work, dict(left)):
                    del left[key]
                    deaths = 0
                    yield key, result
            except Exception as trouble:
                kinds = {kind.__name__ for kind in type(trouble).__mro__}
                if not DEATH & kinds:
                    raise
                deaths += 1
                if deaths > DEATHS or "KilledWorker" in kinds:  # Dask has already repeated this task
                    raise UserError(f"workers did nothing but die ({trouble}); too little memory?") from None
                print(f"a worker died; what it had under way, of the {len(left)} left, is done again", flush=True)


def check(name: str) -> None:
    """Raise UserError if an executor is unknown or not installed."""
    if name not in PACKAGES:
        raise UserError(f"EXECUTOR={name}: must be one of {', '.join(PACKAGES)}")
    try:
        importlib.import_module(PACKAGES[name])
    except ImportError:
        raise UserError(f"EXECUTOR={name} needs the package {PACKAGES[name]}; install it") from None
