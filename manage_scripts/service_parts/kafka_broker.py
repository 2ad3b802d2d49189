"""One Apache Kafka node in KRaft mode (broker and controller), from the jars that Maven Central holds."""

from __future__ import annotations

import base64
import shutil
import socket
import struct
import subprocess
import tempfile
import uuid
from pathlib import Path

from manage_scripts.service_parts.process import ServiceError, ServiceProcess, remove_folder
from manage_scripts.service_parts.programs import require_program
from manage_scripts.service_parts.state import HOST

KAFKA_VERSION = "4.1.0"
LOG4J_VERSION = "2.24.3"
CACHE = Path("~/.cache/notifyx")

POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>notifyx</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>{LOG4J_VERSION}</version></dependency>
  </dependencies>
</project>
"""

LOG4J = """\
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{ISO8601} %-5p %c{1} %m%n
rootLogger.level=WARN
rootLogger.appenderRef.console.ref=console
logger.kafka.name=kafka.server
logger.kafka.level=INFO
"""


class KafkaBroker(ServiceProcess):
    name = "kafka"
    programs = ("java", "mvn")
    start_seconds = 90

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.port, self._controller_port)

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def data_folder(self) -> Path:
        return self.folder / "data"

    @property
    def _controller_port(self) -> int:
        return self.state.port("kafka_controller")

    @property
    def _properties_path(self) -> Path:
        return self.folder / "server.properties"

    def prepare(self) -> None:
        jars = fetch_jars()
        self._properties_path.write_text(self._properties())
        (self.folder / "log4j2.properties").write_text(LOG4J)
        if (self.data_folder / "meta.properties").exists():
            return
        arguments = ["format", "-t", _cluster_id(), "-c", str(self._properties_path), "--standalone"]
        command = [require_program("java"), "-cp", f"{jars}/*", "kafka.tools.StorageTool", *arguments]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise ServiceError(f"Kafka's storage cannot be formatted: {(made.stdout + made.stderr)[-1500:]}")

    def command(self) -> list[str]:
        return [
            *(require_program("java"), "-Xmx512m", "-Djava.awt.headless=true"),
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}",
            *("-cp", f"{fetch_jars()}/*", "kafka.Kafka", str(self._properties_path)),
        ]

    def answers(self) -> bool:
        """Asks for the API versions (version 0 of that request is kept by every broker). A node that has not yet
        joined its own cluster does not process requests.
        """
        request = struct.pack(">hhih", 18, 0, 1, -1)
        with socket.create_connection((HOST, self.port), timeout=1) as connection:
            connection.settimeout(2)
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = connection.recv(10)
        return len(answer) == 10 and struct.unpack(">ih", answer[4:]) == (1, 0)

    def wipe_data(self) -> None:
        """Topics, records, groups and the cluster's id: all of it."""
        remove_folder(self.data_folder)

    def _properties(self) -> str:
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.bootstrap.servers": f"{HOST}:{self._controller_port}",
            "log.dirs": self.data_folder,
            "auto.create.topics.enable": "false",
            "num.partitions": 4,
            # a killed broker is let in again when its old session has ended; the default is 9 s
            "broker.session.timeout.ms": 4000,
            "broker.heartbeat.interval.ms": 500,
            "group.initial.rebalance.delay.ms": 0,
            "offsets.topic.num.partitions": 4,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())


def _cluster_id() -> str:
    """A Kafka uuid: 22 characters of URL-safe base64; a leading dash would be taken for an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


def fetch_jars() -> Path:
    """The folder with Kafka's jars, shared by all clones of this user. Blocks while Maven downloads them (43 MB)."""
    jars = CACHE.expanduser() / f"kafka-{KAFKA_VERSION}"
    if jars.is_dir():
        return jars
    jars.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix="download-") as folder:
        pom, fresh = Path(folder) / "pom.xml", Path(folder) / "jars"
        pom.write_text(POM)
        goal = "dependency:copy-dependencies"
        command = [require_program("mvn"), "-q", "-B", "-C", "-f", str(pom), goal, f"-DoutputDirectory={fresh}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServiceError(
                f"Kafka's jars cannot be fetched from Maven Central into {jars}: check the network, and behind a proxy "
                f"~/.m2/settings.xml. Maven said:\n{(done.stdout + done.stderr)[-1000:]}"
            )
        if not jars.is_dir():  # another clone may have been quicker
            shutil.move(fresh, jars)
    return jars
