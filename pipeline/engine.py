"""Many tasks at a time by one of joblib's backends: processes of this machine (loky), or a Dask or Ray cluster."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import joblib

from pipeline.command import Refusal

BACKENDS = ("loky", "dask", "ray")
# What loky, Dask and Ray raise where a worker died; their packages need not be installed to tell.
DEATH = {"BrokenProcessPool", "KilledWorker", "RayActorError", "WorkerCrashedError", "ObjectLostError"}
DEATHS = 3  # of workers that a run bears without a single task finished in between


@contextmanager
def _parallel(name: str, jobs: int, address: str | None, data: Any) -> Iterator[tuple[joblib.Parallel, Any]]:
    """Parallel over the backend, and what to give its tasks in the place of `data`, which travels once a machine."""
    with ExitStack() as stack:
        options: dict[str, Any] = {"n_jobs": jobs}
        shared = data
        if name == "loky" and jobs == 1:
            name = "sequential"  # in this very process
        elif name == "loky":
            # It maps large arrays into its processes' memory by itself. As many threads as a lone task has: another
            # number rounds otherwise.
            options["inner_max_num_threads"] = joblib.cpu_count()
        elif name == "dask":
            import distributed

            cluster = address or stack.enter_context(
                distributed.LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
            )
            stack.enter_context(distributed.Client(cluster))
            options = {"n_jobs": -1, "scatter": [data]}
        else:
            import ray
            from ray.util.joblib import register_ray
            from ray.util.joblib.ray_backend import RayBackend

            ray.init(**({"address": address} if address else {"num_cpus": jobs}))
            stack.callback(ray.shutdown)
            register_ray()
            RayBackend.supports_return_generator = True  # it inherits the "no" of Python's own pools
            shared = ray.put(data)
            has = ray.cluster_resources()
            if has.get("GPU"):  # Ray hides them from workers that ask for none
                workers = int(has["GPU"]) if address else min(jobs, int(has["GPU"]))
                options |= {"n_jobs": workers, "ray_remote_args": {"num_gpus": 1}}
            elif address:
                options["n_jobs"] = int(has["CPU"])
        stack.enter_context(joblib.parallel_config(name, **options))
        yield joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="all"), shared


def _call(work: Callable[..., Any], key: Any, shared: Any, words: tuple[Any, ...]) -> tuple[Any, Any]:
    """What a worker does."""
    if type(shared).__module__.split(".")[0] == "ray":  # a reference
        import ray

        shared = ray.get(shared)
    return key, work(shared, *words)


def results(
    work: Callable[..., Any], data: Any, tasks: dict[Any, tuple[Any, ...]], name: str, jobs: int, address: str | None
) -> Iterator[tuple[Any, Any]]:
    """Call `work(data, *words)` for each of `tasks` (key: words), and yield (key, result) as they are finished.

    What a worker had under way when it died is done again by another.

    Parameters
    ----------
    name : one of BACKENDS. jobs : how many at a time. address : of the Dask scheduler or the Ray cluster, whose size
        then decides instead of `jobs`; None starts one on this machine.

    Raises
    ------
    Refusal : for an unknown backend, one that is not installed, or where workers do nothing but die.
    """
    if name not in BACKENDS:
        raise Refusal(f"BACKEND={name}: must be one of {', '.join(BACKENDS)}")
    package = {"dask": "distributed", "ray": "ray"}.get(name, "joblib")
    try:
        importlib.import_module(package)
    except ImportError:
        raise Refusal(f"BACKEND={name} needs the package {package}; install it") from None
    left, deaths = dict(tasks), 0
    with _parallel(name, jobs, address, data) as (parallel, shared):
        while left:
            try:
                for key, result in parallel(
                    joblib.delayed(_call)(work, key, shared, words) for key, words in list(left.items())
                ):
                    del left[key]
                    deaths = 0
                    yield key, result
            except Exception as trouble:
                if not DEATH & {kind.__name__ for kind in type(trouble).__mro__}:
                    raise
                deaths += 1
                if deaths > DEATHS:
                    raise Refusal(f"workers died {deaths} times in a row ({trouble}); too little memory?") from None
                print(f"a worker died; what it had under way, of the {len(left)} left, is done again", flush=True)
