"""Several replicas of `foreword serve` behind Ray Serve, all with the prompts of one folder.

    pip install 'foreword[serve]' 'ray[serve]'
    serve run --app-dir launch ray_serve:app config=/srv/foreword.yaml replicas=2

`config` is a file of settings as `foreword serve --config` takes it, and lies where every replica
reads it, as the folder that its `prompts` names does; `refresh` in it says how often that folder is
looked at. `host`, `port` and `drain` are Ray Serve's own. Prompts are added and removed in the
folder: a request to `/v1/prompts` reaches one replica alone.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ray import serve
from ray.serve import Application

from foreword.serving.http.app import make_app
from foreword.serving.http.server import load, prepare
from foreword.serving.spec import read_spec


class Options(BaseModel):
    """What stands behind the name of the application.

    Attributes:
        config: file of settings.
        replicas: how many servers there are, each with the backbone.
        cpus: of each, for where Ray puts it.
        gpus: of each.
        requests: that a replica answers or lets wait at the same time; more wait at Ray Serve.
    """

    config: Path
    replicas: int = 1
    cpus: float = 1
    gpus: float = 0
    requests: int = 256


@serve.deployment
@serve.ingress()
class Foreword:
    """One replica: a backbone, its prompts, and an engine that answers their requests together."""

    def __init__(self, config: str) -> None:
        spec = read_spec(Path(config), {})
        self.served = prepare(spec, load(spec))

    def __serve_build_asgi_app__(self) -> Any:
        """The addresses of `foreword serve`."""
        return make_app(self.served)

    def check_health(self) -> None:
        """Let Ray Serve replace a replica whose engine answers no more."""
        if not self.served.engine.healthy:
            raise RuntimeError("the engine answers no more")


def app(options: Options) -> Application:
    """The application; its arguments are those of `serve run`."""
    deployment = Foreword.options(
        num_replicas=options.replicas,
        max_ongoing_requests=options.requests,
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        health_check_period_s=2,
    )
    bound: Application = deployment.bind(str(options.config.resolve()))
    return bound
