"""The cluster's files agree with one another, with the pins and with the schemas that Ray and KubeRay publish."""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = {
    canonicalize_name(line.split("==")[0]): Version(line.split("==")[1])
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
}
RAY = str(PINS[canonicalize_name("ray")])
IMAGE = f"registry.example.com/diet-ray:{PROJECT['version']}-ray{RAY}-py311-cpu"
RAY_UP = ["ray-up-aws.yaml", "ray-up-gcp.yaml", "ray-up-onprem.yaml"]
KUBERAY = {"RayJob": "rayjob.yaml", "RayCluster": "raycluster.yaml"}
CRD_DIR = os.environ.get("DIET_RAY_KUBERAY_CRD_DIR")


def load(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text())


def cluster_spec(kind: str) -> dict[str, Any]:
    spec: dict[str, Any] = load(KUBERAY[kind])["spec"]
    cluster: dict[str, Any] = spec["rayClusterSpec"] if kind == "RayJob" else spec
    return cluster


def requirements() -> list[Requirement]:
    """Every requirement of the package and its extras, without its references to its own extras."""
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    return [r for r in map(Requirement, lines) if canonicalize_name(r.name) != canonicalize_name(PROJECT["name"])]


# Pins ---------------------------------------------------------------------------------------------------------------


def test_every_requirement_is_found() -> None:
    assert {"torch", "ray", "pytest", "ruff", "pre-commit"} <= {r.name for r in requirements()}


@pytest.mark.parametrize("requirement", requirements(), ids=lambda r: r.name)
def test_requirement_is_pinned_within_its_range(requirement: Requirement) -> None:
    pin = PINS.get(canonicalize_name(requirement.name))
    assert pin is not None, f"constraints.txt does not pin {requirement.name}"
    assert pin in requirement.specifier


def test_constraints_are_exact_and_public() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), (
        "name==version only; no local version, URL or -e"
    )
    assert len(PINS) == len(lines), "a package is pinned twice"
    assert canonicalize_name(PROJECT["name"]) not in PINS


# One version everywhere ---------------------------------------------------------------------------------------------


def test_dockerfile_starts_from_the_pinned_ray() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    assert re.findall(r"^FROM (.+)$", text, re.M) == [f"rayproject/ray:{RAY}-py311-cpu"]
    assert re.findall(r"ray\.__version__ == '([\d.]+)'", text) == [RAY]
    assert f"-t {IMAGE} " in text


def test_dockerfile_installs_under_the_constraints_and_without_root() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    assert re.findall(r"^USER (.+)$", text, re.M) == ["1000:100"]
    installs = re.findall(r"pip install ([^\n\\]+)", text)
    assert len(installs) == 2
    assert all("-c constraints.txt" in line or "--no-deps" in line for line in installs)


@pytest.mark.parametrize(
    "source", re.findall(r"^COPY --chown=1000:100 (.+)$", (CLUSTER / "Dockerfile").read_text(), re.M)
)
def test_dockerfile_copies_what_exists(source: str) -> None:
    missing = [name for name in source.split()[:-1] if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize("path", sorted(CLUSTER.iterdir()), ids=lambda path: path.name)
def test_no_file_names_another_image_or_ray(path: Path) -> None:
    text = path.read_text()
    assert set(re.findall(r"registry\.example\.com/\S+?(?=[\s`]|$)", text)) <= {IMAGE}
    assert set(re.findall(r"rayproject/ray:\S+?(?=[\s`]|$)", text)) <= {f"rayproject/ray:{RAY}-py311-cpu"}
    assert set(re.findall(r"\b2\.\d\d\.\d+\b", text)) <= {RAY, str(PINS[canonicalize_name("torch")])}


@pytest.mark.parametrize("path", sorted(CLUSTER.glob("*.*")), ids=lambda path: path.name)
def test_readme_explains_every_file_and_placeholder(path: Path) -> None:
    readme = (CLUSTER / "README.md").read_text()
    assert f"`{path.name}`" in readme or path.name == "README.md"
    for placeholder in set(re.findall(r"REPLACE-[\w-]+", path.read_text())):
        assert f"`{placeholder}`" in readme


# ray up -------------------------------------------------------------------------------------------------------------


def ray_schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((files("ray") / "autoscaler" / "ray-schema.json").read_text())
    return schema


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_follows_rays_schema(name: str) -> None:
    config, schema = load(name), ray_schema()
    jsonschema.validate(config, schema)
    with pytest.raises(jsonschema.ValidationError, match="idle_timout"):
        jsonschema.validate({**config, "idle_timout": 1}, schema)


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_passes_rays_own_preparation(name: str) -> None:
    private = pytest.importorskip("ray.autoscaler._private.util", reason="private to Ray; this release has moved it")
    if not (hasattr(private, "prepare_config") and hasattr(private, "validate_config")):
        pytest.skip("private to Ray; this release has renamed it")
    prepared = private.prepare_config(load(name))
    private.validate_config(prepared)
    assert prepared["head_node_type"] in prepared["available_node_types"]
    assert not any("pip install -U" in command for command in prepared["setup_commands"]), "Ray's defaults crept in"


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_runs_our_image_with_tokens_and_shared_storage(name: str) -> None:
    config = load(name)
    docker = config["docker"]
    assert docker["image"] == IMAGE
    assert not {"head_image", "worker_image"} & set(docker)
    assert "--env RAY_AUTH_MODE=token" in docker["run_options"]
    assert "--volume /mnt/diet-ray:/mnt/diet-ray" in docker["run_options"]
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    assert any("mountpoint -q /mnt/diet-ray" in command for command in config["initialization_commands"])


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_keeps_work_and_the_dashboard_off_the_network(name: str) -> None:
    config = load(name)
    (start,) = [c for c in config["head_start_ray_commands"] if c.startswith("ray start")]
    assert {"--head", "--num-cpus=0", "--dashboard-host=127.0.0.1"} <= set(start.split())
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start.split()
    if "available_node_types" in config:
        assert config["available_node_types"][config["head_node_type"]]["resources"] == {"CPU": 0}


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_uses_only_flags_that_ray_start_knows(name: str) -> None:
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    config = load(name)
    for command in config["head_start_ray_commands"] + config["worker_start_ray_commands"]:
        if command.startswith("ray start"):
            assert {flag.split("=")[0] for flag in command.split() if flag.startswith("--")} <= known


# KubeRay ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KUBERAY)
def test_kuberay_header(kind: str) -> None:
    resource = load(KUBERAY[kind])
    assert (resource["apiVersion"], resource["kind"]) == ("ray.io/v1", kind)
    assert re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", resource["metadata"]["name"]), (
        "names of Pods derive from it"
    )


def test_rayjob_runs_distill_and_cleans_up() -> None:
    spec = load("rayjob.yaml")["spec"]
    assert spec["entrypoint"].split()[:2] == ["python", "/home/ray/diet_ray/jobs/distill.py"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0


@pytest.mark.parametrize("kind", KUBERAY)
def test_kuberay_cluster(kind: str) -> None:
    spec = cluster_spec(kind)
    assert spec["rayVersion"] == RAY
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in spec["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("kind", KUBERAY)
def test_kuberay_pods(kind: str) -> None:
    spec = cluster_spec(kind)
    claim = load("storage.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    assert len(groups) == 2
    for pod in (group["template"]["spec"] for group in groups):
        assert pod["restartPolicy"] == "Never"
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert {"name": "shared", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}} in pod["volumes"]
        (container,) = pod["containers"]
        assert container["image"] == IMAGE
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert float(container["resources"]["limits"]["cpu"]).is_integer()
        assert {"name": "shared", "mountPath": "/mnt/diet-ray"} in container["volumeMounts"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_rayjob_and_raycluster_describe_the_same_cluster() -> None:
    job, cluster = cluster_spec("RayJob"), cluster_spec("RayCluster")
    head = job["headGroupSpec"]["template"]["spec"]
    head["volumes"] = [volume for volume in head["volumes"] if volume["name"] != "config"]
    mounts = head["containers"][0]["volumeMounts"]
    assert {"name": "config", "mountPath": "/etc/diet-ray", "readOnly": True} in mounts
    mounts.remove({"name": "config", "mountPath": "/etc/diet-ray", "readOnly": True})
    assert job == cluster


def options_of(job: str) -> set[str]:
    """The options that a job takes: those of the command of its name."""
    import typer

    from diet_ray.cli import app

    command = typer.main.get_command(app).commands[job]  # type: ignore[attr-defined]
    return {option for parameter in command.params for option in parameter.opts if option.startswith("--")}


def test_the_schedule_submits_jobs_that_exist_to_the_standing_cluster() -> None:
    schedule, cluster = load("schedule.yaml"), load("raycluster.yaml")
    assert (schedule["apiVersion"], schedule["kind"]) == ("batch/v1", "CronJob")
    spec = schedule["spec"]
    assert re.fullmatch(r"\d+ \d+ \* \* \*", spec["schedule"])  # once a day
    assert spec["concurrencyPolicy"] == "Forbid"
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["image"] == IMAGE
    env = {one["name"]: one for one in container["env"]}
    name = cluster["metadata"]["name"]
    assert env["RAY_API_SERVER_ADDRESS"]["value"] == f"http://{name}-head-svc:8265"
    assert env["RAY_AUTH_MODE"]["value"] == "token"
    assert env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": name, "key": "auth_token"}
    (script,) = container["args"]
    commands = script.replace("\\\n", " ").strip().splitlines()
    jobs = []
    for command in commands:
        submit, _, job = command.partition(" -- ")
        assert submit == "ray job submit"
        python, path, *arguments = job.split()
        assert (python, Path(path).parent) == ("python", Path("/home/ray/diet_ray/jobs"))
        assert (ROOT / "jobs" / Path(path).name).exists()
        jobs.append((Path(path).stem, {argument for argument in arguments if argument.startswith("--")}))
        assert jobs[-1][1] <= options_of(jobs[-1][0])
    assert [job for job, _ in jobs] == ["ingest", "distill"]
    assert "--append" in jobs[0][1]
    assert "--resume" in jobs[1][1]


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.py")), ids=lambda path: path.name)
def test_each_job_shows_how_it_is_submitted(path: Path) -> None:
    text = path.read_text()
    assert "ray job submit --address http://127.0.0.1:8265 --" in text
    assert f"python /home/ray/diet_ray/jobs/{path.name}" in text
    shown = set(re.findall(r"--[a-z-]+", text)) - {"--address", "--working-dir"}  # those of `ray job submit` itself
    assert shown <= options_of(path.stem)


def test_the_readme_leads_from_daily_files_to_a_leaderboard() -> None:
    import typer

    from diet_ray.cli import app
    from diet_ray.config import LaunchConfig

    readme = (CLUSTER / "README.md").read_text()
    section = readme.split("## The jobs: from daily files to a leaderboard\n")[1].split("\n## ")[0]
    asked, script = re.findall(r"```\n(.*?)```", section, flags=re.S)
    launch = LaunchConfig.model_validate(yaml.safe_load(asked))
    commands: dict[str, Any] = {}
    for line in script.replace("\\\n", " ").splitlines():
        before, job = shlex.split(line)[:5], shlex.split(line)[5:]
        assert before == ["ray", "job", "submit", "--", "python"]
        name = Path(job[0]).stem
        assert job[0] == f"/home/ray/diet_ray/jobs/{name}.py"
        assert (ROOT / "jobs" / f"{name}.py").is_file()
        # Parsed, not run: an option that is unknown or missing is an error.
        command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
        commands[name] = command.make_context(name, job[1:]).params
    assert list(commands) == ["ingest", "distill", "sweep"]
    assert Path(commands["ingest"]["out"]) == launch.log
    assert [Path(memory) for memory in commands["sweep"]["memory"]] == [launch.out]
    cluster, group = launch.cluster, load("raycluster.yaml")["spec"]["workerGroupSpecs"][0]
    have = group["minReplicas"] * int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert cluster.workers * cluster.cpus_per_worker + cluster.scorers * cluster.cpus_per_scorer <= have
    places = {*re.findall(r"/mnt/diet-ray/configs/(\S+)", script)}
    assert places == {"schema.yaml", "distill.yaml", "candidates.yaml"}
    assert all(f"`{place}`" in section for place in places)


def closed(schema: Any) -> Any:
    """The schema with every object that lists its properties closed to others, so that a misspelt key is an error.

    A CRD leaves its objects open: the API server prunes unknown keys in silence.
    """
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(part) for key, part in schema.items()}
    open_on_purpose = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and not open_on_purpose:
        result["additionalProperties"] = False
    return result


def crds(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.yaml")):
        yield from (
            d for d in yaml.safe_load_all(path.read_text()) if d and d.get("kind") == "CustomResourceDefinition"
        )


def crd_schema(folder: Path, kind: str) -> dict[str, Any]:
    (crd,) = [crd for crd in crds(folder) if crd["spec"]["names"]["kind"] == kind]
    (version,) = [version for version in crd["spec"]["versions"] if version["name"] == "v1"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    # A CRD says of metadata only that it is an object: the API server knows the rest.
    schema["properties"].pop("metadata", None)
    schema = closed(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


@pytest.mark.skipif(not CRD_DIR, reason="set DIET_RAY_KUBERAY_CRD_DIR to KubeRay's ray-operator/config/crd/bases")
@pytest.mark.parametrize("kind", KUBERAY)
def test_kuberay_follows_the_operators_crd(kind: str) -> None:
    assert CRD_DIR
    errors = jsonschema.Draft7Validator(crd_schema(Path(CRD_DIR), kind)).iter_errors(load(KUBERAY[kind]))
    assert [f"{'.'.join(map(str, e.absolute_path))}: {e.message}" for e in errors] == []


def test_crd_check_sees_a_misspelt_key(tmp_path: Path) -> None:
    spec = {"type": "object", "properties": {"rayVersion": {"type": "string"}, "labels": {"type": "object"}}}
    v1 = {"name": "v1", "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "metadata": {}}}}}
    crd = {"kind": "CustomResourceDefinition", "spec": {"names": {"kind": "RayCluster"}, "versions": [v1]}}
    (tmp_path / "crd.yaml").write_text(yaml.safe_dump(crd))
    validator = jsonschema.Draft7Validator(crd_schema(tmp_path, "RayCluster"))
    good = {"metadata": {"name": "x"}, "spec": {"rayVersion": "1", "labels": {"any": "thing"}}}
    assert validator.is_valid(good)
    assert not validator.is_valid({**good, "spec": {"rayVerson": "1"}})
