"""The steps of the pages in docs/howto: files and commands as they are shown, with other places and ports."""

from __future__ import annotations

import getpass
import grp
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from ruamel.yaml import YAML

from linepool import cli
from linepool.settings import FIELDS, parse_setting
from linepool.testing import Peer
from tests.certificates import Authority
from tests.conftest import Launch
from tests.examples.test_container import AUTOSCALING, KUBERNETES, load, tool
from tests.examples.test_docs import blocks
from tests.examples.test_howto import PAGES, code_of
from tests.haproxy import Haproxy, free_port
from tests.servers import ENVIRONMENT, EXAMPLES, ROOT, TIMEOUT, ServerProcess

VENV = "/srv/sums/venv/bin/linepool"
COMMENT = re.compile(r"^# (\S+)$", re.MULTILINE)


def shell(script: str, directory: Path, **environment: str) -> str:
    """Run lines of a page in a directory; they must succeed. Return what they print."""
    done = subprocess.run(
        ["sh", "-ec", script],
        cwd=directory,
        env={**ENVIRONMENT, "PATH": f"{ENVIRONMENT['PATH']}:/usr/sbin", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def here(text: str, **places: str) -> str:
    """Return a text with other words: for this user, this directory, this server."""
    for name, place in places.items():
        assert name in text
        text = text.replace(name, place)
    return text


def settings_of(text: str) -> dict[str, Any]:
    """Return what a file of settings says; all of it is valid."""
    found = tomllib.loads(text)
    for name, value in found.items():
        parse_setting(name, value, "page")
    return found


@pytest.mark.parametrize("page", PAGES)
def test_files_of_settings_have_valid_settings(page):
    files = [text for text in blocks(PAGES[page], "toml") if text.startswith("# linepool.toml")]
    maps = [yaml.safe_load(text) for text in blocks(PAGES[page], "yaml") if "ConfigMap" in text]
    files += [one["data"]["linepool.toml"] for one in maps]
    assert all(settings_of(text) for text in files)


# -- where it runs


def test_systemd_finds_no_fault_in_the_units_and_the_drop_in(tmp_path, monkeypatch, capsys):
    (tmp_path / "sums.py").touch()
    monkeypatch.chdir(tmp_path)
    lines = "".join(blocks(PAGES["systemd"], "sh")).splitlines()
    orders = [shlex.split(line) for line in lines if line.startswith("venv/bin/linepool unit")]
    assert len(orders) == 3
    for order in orders:  # the service with its own socket, then the two with systemd's
        assert cli.main([*order[1:-2], "--user", "daemon"]) == 0
        (tmp_path / Path(order[-1]).name).write_text(capsys.readouterr().out)
    drop_in = code_of("systemd", "ini", "[Service]")
    (found,) = COMMENT.findall(drop_in)
    place = tmp_path / Path(found).relative_to("/etc/systemd/system")
    place.parent.mkdir()
    place.write_text(drop_in)

    words = ["systemd-analyze", "verify", "--man=no", "./sums.service", "./sums.socket"]
    verified = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    variables = dict(re.findall(r"LINEPOOL_(\w+)=(\S+)", drop_in))
    assert len(variables) == 2
    for name, value in variables.items():
        parse_setting(name.lower(), value, "drop-in")


def test_a_container_of_the_page_has_no_faults_and_time_to_stop(tmp_path):
    (tmp_path / "Dockerfile").write_text(code_of("docker", "dockerfile", "FROM"))
    tool("hadolint", tmp_path / "Dockerfile")
    words = shlex.split(code_of("docker", "sh", "--stop-timeout"))
    assert float(words[words.index("--stop-timeout") + 1]) > FIELDS["graceful_timeout"].default
    assert words[-1] == code_of("docker", "dockerfile", "FROM").split()[1]


def test_kubernetes_knows_what_its_page_shows():
    kustomization, config_map, mounts = map(yaml.safe_load, blocks(PAGES["kubernetes"], "yaml"))
    own = load(KUBERNETES / "kustomization.yaml")
    assert kustomization["resources"] == own["resources"]
    assert [one["name"] for one in kustomization["images"]] == ["sums"]
    kubernetes_validate.validate(config_map, "1.37", strict=True)
    deployment = load(KUBERNETES / "deployment.yaml")
    pod = deployment["spec"]["template"]["spec"]
    pod["volumes"] += mounts["volumes"]
    pod["containers"][0]["volumeMounts"] += mounts["volumeMounts"]
    kubernetes_validate.validate(deployment, "1.37", strict=True)
    assert mounts["volumes"][0]["configMap"]["name"] == config_map["metadata"]["name"]
    files = re.findall(r"examples/\S+\.yaml", PAGES["kubernetes"])
    assert {ROOT / name for name in files} == set(AUTOSCALING.iterdir())


def test_haproxy_knows_clients_and_servers_know_theirs_as_the_page_has_them(
    launch: Launch, tmp_path: Path
):
    port, ports = free_port(), {}
    for name in "one", "two":
        agent = free_port()
        options = ("--workers", "1", "--proxy-from", "127.0.0.1", "--agent", f"127.0.0.1:{agent}")
        ports[name] = (launch("proxied.py", *options), agent)
    text = code_of("haproxy", "", "listen sums")
    text = text[text.index("listen sums") :].replace("bind :7000", f"bind 127.0.0.1:{port}")
    for name, host in ("one", "10.0.0.1"), ("two", "10.0.0.2"):
        server, agent = ports[name]
        text = re.sub(
            rf"{host}:7000(.*) agent-port 7081", rf"{server.address}\1 agent-port {agent}", text
        )
    text = re.sub(r"inter \ds", "inter 100", text)

    with Haproxy(tmp_path, text) as proxy:
        for name in ports:
            proxy.until(name, lambda row: row["last_agt"] and row["status"] == "UP")
        with Peer(f"127.0.0.1:{port}") as peer:
            client = f"127.0.0.1:{peer.socket.getsockname()[1]}"
            assert peer.ask("WHO").split()[0] == client
        ports["one"][0].order("DRAIN 3600")
        proxy.until("one", lambda row: row["status"].startswith("DRAIN"))


# -- deploys


def test_a_release_is_deployed_and_rolled_back_on_an_open_connection(
    launch: Launch, tmp_path: Path
):
    for number in 1, 2:
        release = tmp_path / "releases" / str(number)
        release.mkdir(parents=True)
        code = f"import linepool\n@linepool.handler\ndef release() -> int:\n    return {number}\n"
        (release / "app.py").write_text(code)
    current = tmp_path / "current"
    current.symlink_to("releases/1")
    server = launch(
        *("app.py", "--workers", "1"),
        command=("-P", "-m", "linepool", "run", "--chdir", str(current)),
    )
    scripts = [text for text in blocks(PAGES["zero-downtime"], "sh") if "mv -T" in text]
    assert len(scripts) == 2

    with server.connect() as peer:
        found = [peer.ask("RELEASE")]
        for script in scripts:
            lines = here(script, **{"/srv/sums": str(tmp_path)})
            assert "generation" in shell(lines, tmp_path, LINEPOOL_CONTROL=server.control)
            found.append(peer.ask("RELEASE"))
    assert found == ["1", "2", "1"]


def test_the_hook_of_certbot_renews_a_certificate_under_open_connections(
    launch: Launch, tmp_path: Path
):
    authority, lineage, etc = Authority(tmp_path), tmp_path / "live", tmp_path / "etc"
    lineage.mkdir()
    etc.mkdir()
    owner = f"owner {getpass.getuser()}"
    places = {"/etc/linepool": str(etc), "owner sums": owner, VENV: "linepool"}

    def renew() -> None:
        pem = authority.certificate("server", "DNS:localhost").read_bytes()
        (lineage / "fullchain.pem").write_bytes(pem[: pem.index(b"-----BEGIN PRIVATE")])
        (lineage / "privkey.pem").write_bytes((tmp_path / "server.key").read_bytes())

    hook = here(code_of("tls", "sh", "RENEWED_LINEAGE/"), **places)
    control, nowhere = "/run/sums/control.sock", str(tmp_path / "nowhere")
    renew()
    shell(here(hook, **{control: nowhere}), tmp_path, RENEWED_LINEAGE=str(lineage))
    config = code_of("tls", "toml", "tls_cert").replace("0.0.0.0:7443", "127.0.0.1:0")
    (tmp_path / "linepool.toml").write_text(here(config, **{"/etc/linepool": str(etc)}))
    server = launch("encrypted.py", "--workers", "1", bind=())

    with encrypted(server, authority) as old:
        first = serial(old)
        renew()
        script = here(hook, **{control: server.control})
        assert "generation 2" in shell(script, tmp_path, RENEWED_LINEAGE=str(lineage))
        with encrypted(server, authority) as new:
            assert serial(new) != first
        assert serial(old) == first
    assert (etc / "server.key").stat().st_mode & 0o777 == 0o400


def encrypted(server: ServerProcess, authority: Authority) -> ssl.SSLSocket:
    """Return a connection with TLS."""
    context = ssl.create_default_context(cafile=str(authority.path))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    with Peer(server.address) as peer:
        return context.wrap_socket(peer.socket.dup(), server_hostname="localhost")


def serial(client: ssl.SSLSocket) -> object:
    """Ask something; return the number of the server's certificate."""
    client.sendall(b"ADD 2 3\n")
    assert client.recv(10).split() == [b"5"]
    return (client.getpeercert() or {})["serialNumber"]


def test_a_certificate_of_ones_own_is_taken(tmp_path):
    shutil.copy(EXAMPLES / "sums.py", tmp_path)
    script, _, rest = code_of("tls", "sh", "-keyout server.key").partition("linepool run sums.py")
    options = rest.partition("&")[0]
    assert "127.0.0.1:7000" in shell(f"{script}\nlinepool check sums.py {options}", tmp_path)


def test_a_client_with_a_certificate_of_the_page_is_served_and_others_are_not(
    launch: Launch, tmp_path: Path
):
    shell(code_of("tls", "sh", "-keyout server.key").partition("linepool")[0], tmp_path)
    shell(code_of("tls", "sh", "-keyout ca.key"), tmp_path)
    options = shlex.split(code_of("tls", "sh", "--tls-ca clients.pem"))[3:]
    server = launch("encrypted.py", "--workers", "1", *options)
    call = code_of("tls", "sh", "--tls-cert shop.pem")
    call = here(call, **{"localhost:7000": f"localhost:{server.port}"})
    assert shell(call, tmp_path) == "5\n"
    shell(f"! {call.replace('--tls-cert shop.pem --tls-key shop.key', '')}", tmp_path)
    server.wait_for("why='peer did not return a certificate'")


# -- what is seen


def test_logrotate_rotates_both_logs_as_the_page_has_it(launch: Launch, tmp_path: Path):
    logs = tmp_path / "logs"
    logs.mkdir(mode=0o750)
    config = code_of("logging", "toml", "access_log")
    (tmp_path / "linepool.toml").write_text(here(config, **{"/var/log/sums": str(logs)}))
    server = launch("workshop.py", "--workers", "1", bind=("unix:socket",))

    def add() -> None:
        with Peer(f"unix:{tmp_path}/socket") as peer:
            assert peer.ask("ADD 2 3") == "5"

    add()
    user = f"su {getpass.getuser()} {grp.getgrgid(os.getgid()).gr_name}"
    control = {"/run/sums/control.sock": server.control, VENV: "linepool"}
    rules = code_of("logging", "", "postrotate")
    rules = here(rules, **{"/var/log/sums": str(logs), "su sums sums": user}, **control)
    (tmp_path / "rules").write_text(rules)
    (tmp_path / "rules").chmod(0o644)

    shell("logrotate --force --state state rules", tmp_path)
    add()
    assert '"event": "file opened anew"' in (logs / "sums.log").read_text().partition("\n")[0]
    assert server.stop() == 0
    for name, word in ("access.log", '"command": "ADD"'), ("sums.log", '"event": "starting'):
        assert word in (logs / f"{name}.1").read_text()
    assert '"command": "ADD"' in (logs / "access.log").read_text()
    assert "stopping" in (logs / "sums.log").read_text()


def test_the_lines_of_a_server_arrive_at_syslog_as_json(launch: Launch, tmp_path: Path):
    config = code_of("logging", "toml", "SysLogHandler")
    (tmp_path / "log.toml").write_text(here(config, **{"/dev/log": f"{tmp_path}/syslog"}))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(f"{tmp_path}/syslog")
        syslog.settimeout(TIMEOUT)
        launch("workshop.py", "--workers", "1", "--log-config", "log.toml", ready=False)
        message = ""
        while not message.startswith("starting "):
            line = syslog.recv(65536).rstrip(b"\0")
            message = json.loads(line.partition(b">")[2])["message"]


def test_prometheus_takes_the_configuration_and_the_alert_of_the_page(tmp_path):
    for name in "alerts.yml", "alerts_test.yml":
        shutil.copy(EXAMPLES / "prometheus" / name, tmp_path)
    for text in blocks(PAGES["prometheus"], "yaml"):
        (tmp_path / re.findall(r"^# ([\w.]+)", text)[0]).write_text(text)
    (script,) = (text for text in blocks(PAGES["prometheus"], "sh") if "promtool" in text)
    commands = script.partition("cd /etc/prometheus && ")[2].partition("\n")[0]
    shell(f"{commands} && promtool check rules sums_alerts.yml", tmp_path)


def test_every_pipeline_of_the_collector_is_complete():
    config = yaml.safe_load(code_of("opentelemetry", "yaml", "receivers"))
    pipelines = config["service"]["pipelines"]
    assert sorted(pipelines) == ["metrics", "traces"]
    for pipeline in pipelines.values():
        assert pipeline == {
            "receivers": [*config["receivers"]],
            "exporters": [*config["exporters"]],
        }


# -- development


def test_the_tests_of_the_page_pass(tmp_path):
    code = "".join(blocks(PAGES["testing"], "python"))
    (tmp_path / "test_sums.py").write_text(code, encoding="utf-8")
    command = f"{sys.executable} -m pytest -q -W error -p no:cacheprovider"
    assert "3 passed" in shell(command, tmp_path)


def test_the_workflows_of_the_page_follow_their_schemas():
    texts = blocks(PAGES["testing"], "yaml")
    for text, name in zip(texts, ["github-workflows", "gitlab-ci"], strict=True):
        schema = get_builtin_schema(f"vendor.{name}")
        jsonschema.validate(YAML(typ="safe").load(text), schema)  # YAML 1.2: "on" is a text
