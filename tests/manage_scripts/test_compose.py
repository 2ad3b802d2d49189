"""What operators start is what the documentation says, without root, without a secret in the file."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.manage_scripts.compose_file import ROOT, command_of, services

NOTIFICATION = "python notification_project/manage.py"
EMAIL = "python email_project/manage.py"
ONCE = {
    "notification_migrate": f"{NOTIFICATION} migrate",
    "email_migrate": f"{EMAIL} migrate",
    "create_topics": f"{NOTIFICATION} create_topics",
}
WORKERS = {
    "notification_relay_outbox": f"{NOTIFICATION} relay_outbox",
    "consume_status": f"{NOTIFICATION} consume_status",
    "reconcile_notifications": f"{NOTIFICATION} reconcile_notifications",
    "consume_events": f"{EMAIL} consume_events",
    "retry_emails": f"{EMAIL} retry_emails",
    "email_relay_outbox": f"{EMAIL} relay_outbox",
}
WEB = {
    "notification_api": "granian --interface wsgi notification_project.wsgi:application",
    "email_api": "granian --interface wsgi email_project.wsgi:application",
}
PROJECTS = ("notification_project", "email_project")
READING = r'(?:environment\.\w+|env\.str|environ\.get|text)\(\s*"([A-Z_]+)"'


def project_of(service: str) -> str:
    return "email_project" if "email_project" in " ".join(command_of(service)) else "notification_project"


def environment_example() -> str:
    return (ROOT / ".env.example").read_text()


def compose(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs whichever Docker Compose is installed, on a copy of the file, with no variable but what .env there holds."""
    if standalone := shutil.which("docker-compose"):
        program = [standalone]
    elif docker := shutil.which("docker"):
        program = [docker, "compose"]
    else:
        pytest.skip("neither docker-compose nor docker is installed")
    shutil.copy(ROOT / "docker-compose.yml", folder)
    return subprocess.run(
        [*program, *arguments], cwd=folder, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )


def make_env_file(folder: Path) -> Path:
    """Runs the command that .env.example gives its readers."""
    shutil.copy(ROOT / ".env.example", folder)
    (command,) = re.findall(r"^#   (\(umask .+)$", environment_example(), re.MULTILINE)
    subprocess.run(["sh", "-c", command], cwd=folder, check=True)
    return folder / ".env"


@pytest.mark.parametrize(("service", "command"), [*ONCE.items(), *WORKERS.items()])
def test_a_process_has_a_service_with_exactly_its_command(service: str, command: str) -> None:
    assert command_of(service) == command.split()


@pytest.mark.parametrize(("service", "command"), WEB.items())
def test_a_web_service_is_granian_open_to_its_container(service: str, command: str) -> None:
    words = command_of(service)
    assert " ".join(words).startswith(f"{command} --host 0.0.0.0 --port 8000 --workers 2 --blocking-threads 1 ")
    assert "--respawn-failed-workers" in words
    assert "--no-access-log" in words


@pytest.mark.parametrize("service", [*WORKERS, *WEB])
def test_a_long_running_service_is_checked_restarted_and_given_time_to_stop(service: str) -> None:
    definition = services()[service]
    assert definition["healthcheck"]["test"][0] == "CMD"
    assert definition["restart"] == "unless-stopped"
    assert definition["stop_grace_period"] == "40s"
    assert definition["init"] is True


@pytest.mark.parametrize("service", WORKERS)
def test_a_worker_is_healthy_by_the_file_that_it_touches(service: str) -> None:
    definition = services()[service]
    assert definition["healthcheck"]["test"] == ["CMD", "python", "-m", "shared_events.runtime.liveness"]
    assert definition["environment"]["LIVENESS_FILE"].startswith("/tmp/")
    assert "/tmp" in definition["tmpfs"]


@pytest.mark.parametrize("service", WORKERS)
def test_a_worker_starts_after_its_schema_and_the_topics(service: str) -> None:
    migrate = f"{project_of(service).removesuffix('_project')}_migrate"
    done = {"condition": "service_completed_successfully"}
    assert services()[service]["depends_on"] == {migrate: done, "create_topics": done}


@pytest.mark.parametrize("service", WEB)
def test_an_api_starts_without_redis_and_kafka(service: str) -> None:
    assert set(services()[service]["depends_on"]) == {f"{project_of(service).removesuffix('_project')}_migrate"}


@pytest.mark.parametrize("service", [*ONCE, *WORKERS, *WEB])
def test_a_process_of_the_project_can_neither_gain_rights_nor_change_its_files(service: str) -> None:
    definition = services()[service]
    assert definition["read_only"] is True
    assert definition["cap_drop"] == ["ALL"]
    assert definition["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in definition
    assert definition["build"] == {"context": ".", "dockerfile": f"{project_of(service)}/Dockerfile"}


@pytest.mark.parametrize("project", PROJECTS)
def test_an_image_runs_without_root_what_compose_runs(project: str) -> None:
    dockerfile = (ROOT / project / "Dockerfile").read_text()
    assert re.findall(r"^USER (.+)$", dockerfile, re.MULTILINE) == ["10001:10001"]
    command = re.findall(r'"([^"]+)"', dockerfile.partition("\nCMD ")[2])
    assert command == command_of(f"{project.removesuffix('_project')}_api")


@pytest.mark.parametrize("project", PROJECTS)
def test_hadolint_finds_nothing_in_a_dockerfile(project: str) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    linted = subprocess.run([hadolint, ROOT / project / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_only_three_ports_are_open_and_only_to_the_machine_itself() -> None:
    published = {name: definition["ports"] for name, definition in services().items() if "ports" in definition}
    assert published == {
        "notification_api": ["127.0.0.1:8000:8000"],
        "email_api": ["127.0.0.1:8001:8000"],
        "mailpit": ["127.0.0.1:8025:8025"],
    }


def test_every_image_has_an_exact_tag_or_is_built_here() -> None:
    for name, definition in services().items():
        assert "build" in definition or re.search(r":v?\d+\.\d+", definition["image"]), name


def test_no_secret_stands_in_the_compose_file_or_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    secrets = re.findall(r"\$\{(\w*(?:PASSWORD|SECRET)\w*)(.*?)\}", text)
    assert secrets
    assert {rest for _, rest in secrets} == {":?run the command at the top of .env.example"}
    for definition in services().values():
        for name, value in definition.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|AUTH", name):
                assert value is None or value.startswith("${"), name
            assert not re.search(r"://[^/@:]*:(?!\$\{)[^@]*@", str(value)), name
    assert re.findall(r"^(\w*(?:PASSWORD|SECRET)\w*)=.+$", environment_example(), re.MULTILINE) == []


def test_compose_and_the_example_of_env_name_the_same_variables() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    used = set(re.findall(r"\$\{(\w+)", text))
    for service in [*ONCE, *WORKERS, *WEB]:
        used |= set(services()[service]["environment"])
    documented = re.findall(r"^#?([A-Z_]+)=", environment_example(), re.MULTILINE)
    assert len(documented) == len(set(documented))
    assert set(documented) == used


def test_every_variable_that_the_settings_read_is_documented() -> None:
    sources = [ROOT / project / "settings.py" for project in PROJECTS]
    sources += [*(ROOT / "shared_events" / "service").glob("*.py"), *(ROOT / "shared_events" / "runtime").glob("*.py")]
    read = {name for source in sources for name in re.findall(READING, source.read_text())}
    documented = set(re.findall(r"^#?([A-Z_]+)=", environment_example(), re.MULTILINE))
    assert {"SECRET_KEY", "REDIS_URL", "EMAIL_URL", "LIVENESS_MAX_AGE_SECONDS"} <= read
    assert read - {"CRASH_POINT"} <= documented  # that one is for proofs, and no deployment may set it


@pytest.mark.parametrize("project", PROJECTS)
def test_each_service_writes_with_its_own_account_and_migrates_with_another(project: str) -> None:
    name = project.removesuffix("_project")
    for service in [*ONCE, *WORKERS, *WEB]:
        if project_of(service) == project:
            account = f"{name}_migrate" if service == f"{name}_migrate" else name
            url = services()[service]["environment"]["DATABASE_URL"]
            assert url.startswith(f"mysql://{account}:${{{account.upper()}_DB_PASSWORD:?")
            assert url.endswith(f"@mysql:3306/{name}_db")


def test_compose_accepts_the_file_with_a_generated_env(tmp_path: Path) -> None:
    env = make_env_file(tmp_path)
    checked = compose("config", "-q", folder=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")
    secrets = re.findall(r"^\w*(?:PASSWORD|SECRET_KEY)=(.*)$", env.read_text(), re.MULTILINE)
    assert len(secrets) == len(set(secrets)) == 8
    assert all(re.fullmatch("[0-9a-f]{64}", secret) for secret in secrets)
    assert env.stat().st_mode & 0o077 == 0


def test_the_generated_env_is_never_overwritten(tmp_path: Path) -> None:
    first = make_env_file(tmp_path).read_text()
    with pytest.raises(subprocess.CalledProcessError):
        make_env_file(tmp_path)
    assert (tmp_path / ".env").read_text() == first


@pytest.mark.parametrize("secret", ["REDIS_PASSWORD", "EMAIL_SECRET_KEY", "NOTIFICATION_MIGRATE_DB_PASSWORD"])
def test_compose_refuses_to_start_without_a_secret_and_says_what_to_do(tmp_path: Path, secret: str) -> None:
    env = make_env_file(tmp_path)
    env.write_text(re.sub(f"^{secret}=.*$", f"{secret}=", env.read_text(), flags=re.MULTILINE))
    refused = compose("config", "-q", folder=tmp_path)
    assert refused.returncode != 0
    assert "run the command at the top of .env.example" in refused.stderr
