"""The systemd units and the Kubernetes manifest, by the tools and the names that read them."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pytest
import yaml
from msgspec import Meta, Struct

from pals_grid.cli.main import main
from pals_grid.core.errors import InvalidValue
from pals_grid.node.helper.units import Installation, kubernetes_manifest, systemd_units

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.deploy

MOST_EXPOSURE = {"pals-grid-helper.service": 15, "pals-grid-agent.service": 15}
"""systemd's own score times ten; 100 is a service without any hardening."""


@pytest.fixture(params=["nvidia", "amd"])
def units(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    words = ["helper", "units", "--out", str(tmp_path), "--url", "https://grid.example.com"]
    words += ["--vendor", request.param, "--helper-option", "--max-power-w=600"]
    main(words, standalone_mode=False)
    return tmp_path


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    return subprocess.run([program, *words], capture_output=True, text=True, check=False)


def test_systemd_finds_nothing_wrong(units: Path) -> None:
    found = analyze("verify", "--man=no", *sorted(units.glob("*.s*")))
    assert (found.returncode, found.stderr) == (0, "")


def test_a_wrong_unit_would_be_found(units: Path) -> None:
    path = units / "pals-grid-helper.service"
    path.write_text(path.read_text().replace("DevicePolicy=closed", "DevicePolicy=shut"))
    assert "device policy, ignoring: shut" in analyze("verify", "--man=no", path).stderr


@pytest.mark.parametrize("name", MOST_EXPOSURE)
def test_the_services_are_exposed_little(units: Path, name: str) -> None:
    most = str(MOST_EXPOSURE[name])
    found = analyze("security", "--offline=true", f"--threshold={most}", units / name)
    assert found.returncode == 0, found.stdout[-200:]
    low = analyze("security", "--offline=true", "--threshold=5", units / name)
    assert low.returncode != 0  # the threshold is heeded


def test_the_helper_has_one_capability_and_no_network(units: Path) -> None:
    text = (units / "pals-grid-helper.service").read_text()
    for line in (
        "CapabilityBoundingSet=CAP_SYS_ADMIN",
        "NoNewPrivileges=yes",
        "RestrictAddressFamilies=AF_UNIX",
        "IPAddressDeny=any",
        "ProtectSystem=strict",
        "Restart=always",
    ):
        assert line in text.splitlines()
    assert " --max-power-w=600" in text
    assert "@" not in text.replace("@system-service", "").replace("~@", "").replace(" @", "")


def test_the_agent_has_none(units: Path) -> None:
    lines = (units / "pals-grid-agent.service").read_text().splitlines()
    for line in ("CapabilityBoundingSet=", "NoNewPrivileges=yes", "ProtectSystem=strict"):
        assert line in lines
    assert "AmbientCapabilities=" in lines


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bin_dir", "/opt/x; rm -rf /"),
        ("bin_dir", "bin"),
        ("url", "https://x\nUser=root"),
        ("url", "x"),
        ("group", "a b"),
        ("token_file", "/etc/%n\n"),
        ("vendor", "acme"),
        ("agent_options", ("--name=$(id)",)),
        ("helper_options", ("--gpu=a b",)),
    ],
)
def test_what_would_change_the_unit_is_refused(field: str, value: Any) -> None:  # noqa: ANN401 - words or tuples of them
    given: dict[str, Any] = {"bin_dir": "/opt/pals-grid/bin", "url": "https://grid.example.com"}
    with pytest.raises(InvalidValue):
        systemd_units(Installation(**{**given, field: value}))


# What of Kubernetes' API (apps/v1, 1.29) the manifest uses; an unknown or misspelt field fails.


class Strict(Struct, forbid_unknown_fields=True, rename="camel"):
    pass


class Metadata(Strict):
    labels: dict[str, str]
    name: Annotated[str, Meta(pattern=r"^[a-z0-9-]+$")] | None = None
    namespace: str | None = None


class Capabilities(Strict):
    drop: list[str]
    add: list[str] = []


class ContainerSecurity(Strict):
    run_as_user: int
    read_only_root_filesystem: bool
    run_as_group: int | None = None
    run_as_non_root: bool = False
    allow_privilege_escalation: bool | None = None
    privileged: bool = False
    capabilities: Capabilities | None = None


class FieldRef(Strict):
    field_path: str


class ValueFrom(Strict):
    field_ref: FieldRef


class Variable(Strict):
    name: str
    value: str | None = None
    value_from: ValueFrom | None = None


class Exec(Strict):
    command: list[str]


class Probe(Strict):
    exec: Exec
    period_seconds: int
    failure_threshold: int


class Resources(Strict):
    limits: dict[str, str]
    requests: dict[str, str] = {}


class Mount(Strict):
    name: str
    mount_path: Annotated[str, Meta(pattern="^/")]
    read_only: bool = False


class Container(Strict):
    name: str
    image: str
    command: list[str]
    volume_mounts: list[Mount]
    security_context: ContainerSecurity
    resources: Resources
    args: list[str] = []
    env: list[Variable] = []
    restart_policy: str | None = None
    startup_probe: Probe | None = None


class EmptyDir(Strict):
    medium: str
    size_limit: str


class HostPath(Strict):
    path: str
    type: str


class Secret(Strict):
    secret_name: str
    default_mode: int


class Volume(Strict):
    name: str
    empty_dir: EmptyDir | None = None
    host_path: HostPath | None = None
    secret: Secret | None = None


class Toleration(Strict):
    key: str
    operator: str
    effect: str


class SeccompProfile(Strict):
    type: str


class PodSecurity(Strict):
    fs_group: int
    seccomp_profile: SeccompProfile


class PodSpec(Strict):
    node_selector: dict[str, str]
    tolerations: list[Toleration]
    priority_class_name: str
    automount_service_account_token: bool
    enable_service_links: bool
    host_network: bool
    host_pid: bool = msgspec.field(name="hostPID")
    termination_grace_period_seconds: int
    security_context: PodSecurity
    volumes: list[Volume]
    init_containers: list[Container]
    containers: list[Container]


class Template(Strict):
    metadata: Metadata
    spec: PodSpec


class RollingUpdate(Strict):
    max_unavailable: int


class UpdateStrategy(Strict):
    type: str
    rolling_update: RollingUpdate


class Selector(Strict):
    match_labels: dict[str, str]


class DaemonSetSpec(Strict):
    selector: Selector
    update_strategy: UpdateStrategy
    template: Template


class DaemonSet(Strict):
    api_version: str
    kind: str
    metadata: Metadata
    spec: DaemonSetSpec


@pytest.fixture
def daemon_set() -> DaemonSet:
    text = kubernetes_manifest("registry.example.com/pals-grid:1", "https://grid.example.com")
    return msgspec.convert(yaml.safe_load(text), DaemonSet)


def test_the_manifest_has_only_fields_that_there_are(daemon_set: DaemonSet) -> None:
    assert (daemon_set.api_version, daemon_set.kind) == ("apps/v1", "DaemonSet")
    labels = daemon_set.spec.template.metadata.labels
    assert daemon_set.spec.selector.match_labels.items() <= labels.items()


def test_a_misspelt_field_would_be_found() -> None:
    text = kubernetes_manifest("x", "https://x").replace("mountPath", "mountpath")
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(yaml.safe_load(text), DaemonSet)


def test_the_agents_container_has_no_right_and_the_helper_is_its_sidecar(
    daemon_set: DaemonSet,
) -> None:
    spec = daemon_set.spec.template.spec
    (agent,) = spec.containers
    _, helper = spec.init_containers
    assert agent.security_context.run_as_non_root
    assert agent.security_context.allow_privilege_escalation is False
    assert agent.security_context.capabilities == Capabilities(["ALL"])
    assert not agent.security_context.privileged
    assert (helper.restart_policy, helper.security_context.privileged) == ("Always", True)
    assert f"--allow-group={agent.security_context.run_as_group}" in helper.args
    assert spec.security_context.fs_group == agent.security_context.run_as_group  # for the token
    assert not spec.host_network
    assert not spec.host_pid


def test_every_mount_has_its_volume_and_the_socket_is_shared(daemon_set: DaemonSet) -> None:
    spec = daemon_set.spec.template.spec
    volumes = {volume.name for volume in spec.volumes}
    mounts = [m for c in (*spec.containers, *spec.init_containers) for m in c.volume_mounts]
    assert {mount.name for mount in mounts} == volumes
    sockets = {mount.mount_path for mount in mounts if mount.name == "socket"}
    assert sockets == {"/run/pals-grid"}


def test_the_commands_in_the_manifest_exist(daemon_set: DaemonSet) -> None:
    spec = daemon_set.spec.template.spec
    for container in (*spec.containers, spec.init_containers[1]):
        program, *words = container.command
        assert program == "pals-grid"
        command = main
        for word in words:
            command = command.commands[word]  # type: ignore[assignment]
        known = {name for param in command.params for name in param.opts}
        assert {argument.partition("=")[0] for argument in container.args} <= known


def test_the_commands_in_the_units_exist(units: Path) -> None:
    text = "".join(path.read_text() for path in units.glob("*.service"))
    for line in text.splitlines():
        if line.startswith(("ExecStart=", "ExecStopPost=")):
            _, *words = line.split()
            command = main
            while words and not words[0].startswith("-"):
                command = command.commands[words.pop(0)]  # type: ignore[assignment]
            known = {name for param in command.params for name in param.opts}
            used = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert used <= known
