"""The files of `deploy/` fit the server: their options exist, and their times fit each other."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from memgpt_jax.studies.commands.serve import parsed

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE)).splitlines()
ENTRYPOINT = json.loads(next(line for line in INSTRUCTIONS if line.startswith("ENTRYPOINT")).split(maxsplit=1)[1])


def kubernetes() -> dict[str, dict]:
    return {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))}


def compose() -> dict:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def pod() -> dict:
    return kubernetes()["Deployment"]["spec"]["template"]["spec"]


def served_by(arguments: list[str]) -> list[str]:
    assert ENTRYPOINT[:2] == ["memgpt-jax", "serve"]
    return ENTRYPOINT[2:] + arguments


@pytest.mark.parametrize(
    "arguments", [compose()["services"]["server"]["command"], pod()["containers"][0]["args"]], ids=["compose", "pod"]
)
def test_the_options_exist(arguments):
    options = parsed(served_by(arguments))
    assert options.key_file is not None, "a server that other machines reach needs keys"
    assert (options.host, options.port, options.sessions) == ("0.0.0.0", 8000, "/data/sessions")


def test_there_is_time_to_drain():
    [container], grace = pod()["containers"], pod()["terminationGracePeriodSeconds"]
    wait = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert wait + parsed(served_by(container["args"])).drain_seconds < grace
    server = compose()["services"]["server"]
    assert parsed(served_by(server["command"])).drain_seconds < int(server["stop_grace_period"].removesuffix("s"))


def test_the_image_and_its_pods_have_no_rights():
    users = [line.split()[1] for line in INSTRUCTIONS if line.startswith("USER")]
    assert users == ["10001:0"] and any(line.startswith("HEALTHCHECK") for line in INSTRUCTIONS)
    assert not re.search(r":latest\b", DOCKERFILE)
    assert (
        pod()["securityContext"]["runAsNonRoot"] and pod()["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
    )
    assert all(":" in each["image"] and ":latest" not in each["image"] for each in compose()["services"].values())


def test_what_the_image_copies_exists():
    copied = [shlex.split(line)[1:-1] for line in INSTRUCTIONS if line.startswith("COPY") and "--from" not in line]
    missing = [path for paths in copied for path in paths if not (DEPLOY.parent / path).exists()]
    assert copied and not missing


def test_nginx_finds_servers_that_are_added():
    """Their name is asked for again, which nginx can since 1.27.3."""
    content = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    assert re.search(r"server server:8000 resolve;", content) and "resolver " in content and "zone " in content
    version = re.match(r"nginx:(\d+)\.(\d+)", compose()["services"]["nginx"]["image"])
    assert version and tuple(map(int, version.groups())) >= (1, 28)
