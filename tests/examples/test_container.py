"""The files of examples/container: each is what its tool expects, and they agree with each other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from linepool.cli import main
from linepool.settings import FIELDS, parse_setting
from tests.conftest import Launch
from tests.process.test_exporter import HTTP, get, until_page
from tests.servers import ENVIRONMENT, ROOT

CONTAINER = ROOT / "examples" / "container"
DOCKERFILE = (CONTAINER / "Dockerfile").read_text()
KUBERNETES = CONTAINER / "kubernetes"
AUTOSCALING = CONTAINER / "autoscaling"
OBJECTS = sorted(file.name for file in KUBERNETES.iterdir() if file.name != "kustomization.yaml")


def load(file: Path) -> Any:
    """Return what a YAML file says."""
    return yaml.safe_load(file.read_text())


def tool(*words: str | Path) -> None:
    """Run a program of this Python's environment; it must find no fault."""
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def deployment() -> Any:
    """Give the Deployment."""
    return load(KUBERNETES / "deployment.yaml")


@pytest.fixture(scope="module")
def container(deployment: Any) -> Any:
    """Give the container of its pods."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return container


@pytest.fixture(scope="module")
def service() -> Any:
    """Give the service of the compose file."""
    (service,) = load(CONTAINER / "compose.yaml")["services"].values()
    return service


# -- each file by itself


def test_the_dockerfile_has_no_faults():
    tool("hadolint", CONTAINER / "Dockerfile")


def test_the_compose_file_follows_the_specification():
    schema = ("--builtin-schema", "vendor.compose-spec")
    tool(sys.executable, "-m", "check_jsonschema", *schema, CONTAINER / "compose.yaml")


@pytest.mark.parametrize("name", OBJECTS)
def test_kubernetes_knows_each_object_and_all_its_fields(name):
    kubernetes_validate.validate(load(KUBERNETES / name), "1.37", strict=True)


def test_the_kustomization_lists_all_objects():
    assert sorted(load(KUBERNETES / "kustomization.yaml")["resources"]) == OBJECTS


# -- together


def test_what_the_image_copies_is_there_and_not_ignored():
    ignore = (CONTAINER / "Dockerfile.dockerignore").read_text().split("\n")
    copies = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    sources = [source for copy in copies for source in copy.split()]

    assert "linepool" in sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignore


def test_a_stop_leaves_more_time_than_the_server_may_take(deployment, container, service):
    pod = deployment["spec"]["template"]["spec"]
    *_, script = container["lifecycle"]["preStop"]["exec"]["command"]
    drain, sleep = (step.split() for step in script.split(";"))
    before = int(sleep[1])
    assert drain[:3] == ["linepool", "drain", "--after"]
    assert float(drain[3]) > before + 5  # it is not to begin before the stop does
    assert main([*drain[1:], "--control", "/none"]) == 1  # 2: an option is wrong
    (timeout,) = [float(env["value"]) for env in container["env"] if "GRACEFUL" in env["name"]]
    assert pod["terminationGracePeriodSeconds"] > before + timeout

    stop = float(service["stop_grace_period"].removesuffix("s"))
    assert stop > float(service["environment"]["LINEPOOL_GRACEFUL_TIMEOUT"])


def test_every_variable_is_a_setting_with_a_valid_value(container, service):
    variables = {env["name"]: env["value"] for env in container["env"]} | service["environment"]
    variables |= dict(re.findall(r"(LINEPOOL_(?!PURE)\w+)=(\S+)", DOCKERFILE))

    assert len(variables) >= 3
    for variable, value in variables.items():
        name = variable.removeprefix("LINEPOOL_").lower()
        assert name in FIELDS
        parse_setting(name, value, variable)


def test_a_health_check_ends_before_its_probe_does(service):
    assert "--timeout=3s" in DOCKERFILE
    assert service["healthcheck"]["timeout"] == "3s"
    command = service["healthcheck"]["test"][1:]
    assert command == ["linepool", "health"]  # which waits for 2 s
    assert main([*command[1:], "--control", "/none"]) == 1  # 2: an option is wrong


def test_the_probes_ask_what_the_exporter_answers_where_it_does(container, launch: Launch):
    (bind,) = [env["value"] for env in container["env"] if env["name"] == "LINEPOOL_HTTP"]
    (port,) = [one["containerPort"] for one in container["ports"] if one["name"] == "http"]
    assert bind == f"0.0.0.0:{port}"
    server = launch("workshop.py", "--workers", "1", *HTTP)
    for kind in "startup", "readiness", "liveness":
        probe = container[f"{kind}Probe"]
        assert probe["httpGet"]["port"] == "http"
        assert probe["timeoutSeconds"] > 2
        until_page(server, probe["httpGet"]["path"], lambda page: page.status == 200)
        pod = {"Host": f"10.1.2.3:{port}"}  # as the kubelet names it
        assert get(server, probe["httpGet"]["path"], headers=pod).status == 200


def test_the_autoscaler_scales_the_deployment_by_what_the_adapter_makes(
    deployment, launch: Launch, tmp_path: Path
):
    scaler = load(AUTOSCALING / "autoscaler.yaml")
    kubernetes_validate.validate(scaler, "1.37", strict=True)
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    (metric,) = scaler["spec"]["metrics"]
    (rule,) = load(AUTOSCALING / "adapter.yaml")["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]

    server = launch("workshop.py", "--workers", "1", *HTTP)
    page = until_page(server, "/metrics", lambda page: "worker_seconds" in page.text)
    query = rule["metricsQuery"]
    for name in re.findall(r"linepool_\w+", query):
        assert f"\n{name}" in page.text
    query = query.replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'pod="a"')
    busy = "linepool_worker_seconds_total{state='busy',pod='a'}"
    (tmp_path / "rules.yml").write_text(
        yaml.dump({"groups": [{"name": "a", "rules": [{"record": "ratio", "expr": query}]}]})
    )
    series = [
        {"series": busy, "values": "0+30x10"},  # of 8 workers, 2 are busy
        {"series": "linepool_workers_max{pod='a'}", "values": "8x10"},
    ]
    expected = [{"labels": '{pod="a"}', "value": 0.25}]
    checked = {"expr": query, "eval_time": "2m", "exp_samples": expected}
    test = {"interval": "15s", "input_series": series, "promql_expr_test": [checked]}
    (tmp_path / "test.yml").write_text(yaml.dump({"rule_files": ["rules.yml"], "tests": [test]}))
    tool("promtool", "test", "rules", tmp_path / "test.yml")


def test_port_and_user_are_the_same_everywhere(deployment, container, service):
    port = load(KUBERNETES / "service.yaml")["spec"]["ports"][0]
    (named,) = [one for one in container["ports"] if one["name"] == port["targetPort"]]
    assert service["ports"] == ["127.0.0.1:7000:7000"]
    assert named["containerPort"] == port["port"] == 7000
    assert "EXPOSE 7000\n" in DOCKERFILE
    assert "LINEPOOL_BIND=0.0.0.0:7000 " in DOCKERFILE

    context = deployment["spec"]["template"]["spec"]["securityContext"]
    assert {context[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {10001}
    assert "USER 10001:10001\n" in DOCKERFILE


def test_service_and_budget_select_the_pods_of_the_deployment(deployment):
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    budget = load(KUBERNETES / "disruption-budget.yaml")

    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert load(KUBERNETES / "service.yaml")["spec"]["selector"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
