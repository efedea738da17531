"""Asks an S3-compatible store, as a process of its own with the lowest priority.

    python -m pipecat_bridge.store.s3

Reads lines of JSON: first an `Access`, then `Job`s, one at a time. Each job is answered with a
line, an `Answer`. Signatures, hashes and TLS take processor time, and calls go on meanwhile.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from pipecat_bridge.store.convert import TYPES

TIMES: Final = {"connect_timeout": 10, "read_timeout": 60}
"""Seconds until an attempt has failed. Who asks makes the next one."""


class Access(Struct, frozen=True):
    """A bucket and who may use it. What is "" is found where the AWS tools find it: environment,
    files in the home folder, the machine's role."""

    bucket: str
    endpoint: str = ""
    region: str = ""
    access_key: str = ""
    secret_key: str = ""


class Job(Struct, frozen=True):
    """`put` the file `path` as `key`; `delete` it; or make a `url` for GET that is good for so many
    `seconds`."""

    do: Literal["put", "delete", "url"]
    key: str
    path: str = ""
    seconds: int = 0


class Answer(Struct, frozen=True, omit_defaults=True):
    """`value`: the URL. `fault`: why it was not done, in a sentence."""

    value: str = ""
    fault: str = ""


def client_of(access: Access) -> Any:
    """The client of boto3 for a bucket."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=access.endpoint or None,
        region_name=access.region or None,
        aws_access_key_id=access.access_key or None,
        aws_secret_access_key=access.secret_key or None,
        config=Config(
            signature_version="s3v4",
            retries={"total_max_attempts": 1},
            # Stores that are not Amazon's often know neither its host names nor its checksums.
            s3={"addressing_style": "path" if access.endpoint else "auto"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            **TIMES,
        ),
    )


def do(client: Any, bucket: str, job: Job) -> str:
    """Do a job. Returns the URL if one was asked for, else "". Raises OSError and boto3's errors.

    A file that is not there any more was deleted meanwhile: nothing is put.
    """
    if job.do == "url":
        asked = {"Bucket": bucket, "Key": job.key}
        return str(client.generate_presigned_url("get_object", asked, ExpiresIn=job.seconds))
    if job.do == "delete":
        client.delete_object(Bucket=bucket, Key=job.key)
    elif (path := Path(job.path)).exists():
        kind = {"ContentType": TYPES[path.suffix]}
        client.upload_file(str(path), bucket, job.key, ExtraArgs=kind)
    return ""


def main() -> None:
    """Do what the lines of the standard input say, until they end."""
    os.nice(19)
    access = msgspec.json.decode(sys.stdin.buffer.readline(), type=Access)
    client: Any = None
    for line in sys.stdin.buffer:
        try:
            client = client or client_of(access)
            answer = Answer(do(client, access.bucket, msgspec.json.decode(line, type=Job)))
        except Exception as error:  # noqa: BLE001 - boto3 documents no common one
            answer = Answer(fault=" ".join(str(error).split()) or type(error).__name__)
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
