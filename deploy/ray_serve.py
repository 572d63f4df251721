"""Replicas of a server under Ray Serve, on one machine or many. Needs `pip install 'memgpt-jax[serve,ray]'`.

    serve run deploy.ray_serve:replicas model=runs/stdlib sessions=/data/sessions num_replicas=2

`model` and the other arguments are the options of `memgpt-jax serve`, with `_` for `-` and flags as `inspector=`. Keys
come from `keys=FILE` or from the environment variable MEMGPT_API_KEYS of the replicas. The header `x-session-id` of a
request chooses its replica by consistent hashing. `sessions` is a folder or a bucket that all replicas share: each
continues every document.
"""

from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig

from memgpt_jax.serving.app import create_app
from memgpt_jax.studies.commands.serve import open_service, parsed

ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"


def replicas(options: dict[str, str]) -> Application:
    """The application.

    Args:
        options: `model`; `num_replicas` (1); `num_cpus` and `num_gpus` of a replica (1 and 0); all others are options
            of `memgpt-jax serve`.

    Raises `ValueError` without `sessions`, as a document would exist on one replica alone.
    """
    rest = dict(options)
    if "model" not in rest or "sessions" not in rest:
        raise ValueError("give model=FOLDER and sessions=FOLDER_OR_BUCKET")
    number = int(rest.pop("num_replicas", 1))
    resources = {name: float(rest.pop(name, default)) for name, default in (("num_cpus", 1), ("num_gpus", 0))}
    argv = [rest.pop("model"), "--host", "0.0.0.0"]  # other machines reach it: it asks for keys, or `without_keys=`
    for name, value in rest.items():
        argv += [f"--{name.replace('_', '-')}", *([] if value == "" else [value])]
    arguments = parsed(argv)
    server = serve.deployment(
        name="memgpt",
        num_replicas=number,
        ray_actor_options=resources,
        max_ongoing_requests=arguments.slots + arguments.queue_requests,
        graceful_shutdown_timeout_s=arguments.drain_seconds,
        health_check_period_s=10,
        request_router_config=RequestRouterConfig(request_router_class=ROUTER),
    )(serve.ingress(lambda: create_app(open_service(arguments)))(Replica))
    return server.bind()


class Replica:
    """One process with the model."""
