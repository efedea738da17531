"""A store that speaks Amazon's protocol, of the suite's own: OpenStack Swift on loopback."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

from botocore.exceptions import ClientError

from pipecat_bridge.store.s3 import Access, client_of
from pipecat_bridge.tools.load.bridge import free_ports

SCRIPT: Final = Path(__file__).parents[2] / "scripts" / "swift.sh"

START_SECONDS: Final = 60.0

KINDS: Final = ("account", "container", "object")
"""The servers behind the proxy. Each has a ring, which says where things are: on one device."""

SERVER: Final = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = root
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""

PROXY: Final = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = root
swift_dir = {folder}
[pipeline:main]
pipeline = catch_errors cache listing_formats bulk s3api tempauth slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
[filter:slo]
use = egg:swift#slo
"""


class Swift:
    """Its servers, with an empty bucket. `endpoint`: its URL, the same after each start."""

    bucket = "calls"
    access_key = "test:tester"
    secret_key = "testing"

    def __init__(self) -> None:
        subprocess.run([SCRIPT], check=True)
        self._folder = Path(tempfile.mkdtemp(prefix="bridge-swift-"))
        (self._folder / "devices" / "d1").mkdir(parents=True)
        *ports, proxy = free_ports(len(KINDS) + 1)
        for kind, port in zip(KINDS, ports, strict=True):
            self._write(kind, SERVER, port)
            self._ring(kind, port)
        self._write("proxy", PROXY, proxy)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.endpoint = f"http://127.0.0.1:{proxy}"

    def _write(self, kind: str, text: str, port: int) -> None:
        written = text.format(kind=kind, port=port, folder=self._folder)
        (self._folder / f"{kind}.conf").write_text(written)

    def _ring(self, kind: str, port: int) -> None:
        where = ["--region=1", "--zone=1", "--ip=127.0.0.1", f"--port={port}"]
        device = [*where, "--device=d1", "--weight=1"]
        for step in (["create", "2", "1", "0"], ["add", *device], ["rebalance"]):
            subprocess.run(
                ["swift-ring-builder", f"{kind}.builder", *step],
                check=True,
                cwd=self._folder,
                stdout=subprocess.DEVNULL,
            )

    @property
    def client(self) -> Any:
        """A client of boto3."""
        return client_of(
            Access(self.bucket, self.endpoint, "us-east-1", self.access_key, self.secret_key)
        )

    def start(self) -> None:
        """Start the servers, wait until they answer, and make the bucket."""
        for kind in (*KINDS, "proxy"):
            with (self._folder / f"{kind}.log").open("ab") as log:
                command = [f"swift-{kind}-server", str(self._folder / f"{kind}.conf")]
                process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
                self._processes.append(process)
        give_up = time.monotonic() + START_SECONDS
        while not self._made_bucket():
            if time.monotonic() > give_up:
                logs = "\n".join(each.read_text()[-500:] for each in self._folder.glob("*.log"))
                raise RuntimeError(f"Swift does not answer:\n{logs}")
            time.sleep(0.1)

    def _made_bucket(self) -> bool:
        try:
            urlopen(f"{self.endpoint}/info", timeout=5.0).close()
        except URLError as error:
            if not hasattr(error, "code"):
                return False
        try:
            self.client.create_bucket(Bucket=self.bucket)
        except ClientError as error:
            return error.response["Error"]["Code"] == "BucketAlreadyOwnedByYou"
        return True

    @property
    def keys(self) -> list[str]:
        """What is in the bucket."""
        found = self.client.list_objects_v2(Bucket=self.bucket)
        return [each["Key"] for each in found.get("Contents", ())]

    def read(self, key: str) -> bytes:
        """A file of the bucket."""
        body: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def stop(self) -> None:
        """Stop the servers. What they store stays."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait()
        self._processes.clear()

    def remove(self) -> None:
        """Stop the servers, and remove all of it."""
        self.stop()
        shutil.rmtree(self._folder)
