"""Every option, its type and its default. `config` reads and checks them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

WEEK = 604_800
"""Seconds of a week: the longest time that an option may have."""

# Each number has a range. Timers, sockets and memory do not work with every number of its type.
Seconds = Annotated[float, Meta(ge=0, le=WEEK)]
UpToAnHour = Annotated[float, Meta(ge=0, le=3600)]
Positive = Annotated[float, Meta(ge=0.001, le=WEEK)]
Interval = Annotated[float, Meta(ge=0.1, le=WEEK)]  # of something that is repeated
Audio = Annotated[float, Meta(ge=0, le=60)]  # seconds of audio in memory
LongAudio = Annotated[float, Meta(ge=0.001, le=3600)]
Count = Annotated[int, Meta(ge=0, le=1_000_000)]
AtLeastOne = Annotated[int, Meta(ge=1, le=1_000_000)]
Kept = Annotated[int, Meta(ge=0, le=10_000)]  # in memory
Frames = Annotated[int, Meta(ge=1, le=180_000)]  # an hour
Bytes = Annotated[int, Meta(ge=1024, le=67_108_864)]
LargeBytes = Annotated[int, Meta(ge=1_048_576, le=1_099_511_627_776)]
LargeBytesOrNone = Annotated[int, Meta(ge=0, le=1_099_511_627_776)]
Days = Annotated[float, Meta(ge=0, le=36_500)]
Processes = Annotated[int, Meta(ge=1, le=256)]
PollInterval = Annotated[float, Meta(ge=0, le=0.005)]

BotRate = Literal[8000, 12000, 16000, 22050, 24000, 32000, 44100, 48000]
ResamplerKind = Literal["fir", "soxr"]


SILENCE = "none"
"""The value of `[calls] hold_file` for silence."""


class AudioSocketOptions(Struct, frozen=True):
    """`[audiosocket]`: the connections from Asterisk."""

    listen: str = "tcp:9092:interface=127.0.0.1"
    allow: list[str] = field(default_factory=list)
    handshake_timeout: Positive = 5.0
    stall_timeout: Positive = 10.0
    g711: Literal["ulaw", "alaw"] = "ulaw"


class RunnerOptions(Struct, frozen=True):
    """`[runner]`: who starts the bots, and how."""

    mode: str = "embedded"  # a name of `pipecat_bridge.runner.modes`
    url: str | list[str] = "http://127.0.0.1:8000"
    listen: str = "tcp:8001:interface=127.0.0.1"
    dialback_url: str = ""
    require_token: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    start_path: str = "/start"
    start_body: dict[str, Any] = field(default_factory=dict)
    token_in: Literal["header", "query", "path"] = "header"
    origin: str = ""
    subprotocol: str = ""
    allowed_hosts: list[str] = field(default_factory=list)
    ca_file: str = ""
    disconnect_grace: Seconds = 1.0
    request_timeout: Positive = 30.0
    connect_timeout: Positive = 10.0
    attempt_timeout: Positive = 4.0
    ready_timeout: Seconds = 5.0
    max_requests: AtLeastOne = 50
    max_idle_connections: AtLeastOne = 100
    max_idle_per_host: AtLeastOne = 10
    idle_timeout: Positive = 90.0
    health_path: str = ""
    health_interval: Seconds = 5.0
    breaker_failures: AtLeastOne = 3
    breaker_delay: Positive = 1.0
    breaker_max_delay: Positive = 30.0
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def urls(self) -> list[str]:
        """The URLs of all runners."""
        return [self.url] if isinstance(self.url, str) else self.url


class EmbeddedOptions(Struct, frozen=True):
    """`[embedded]`: the process of the embedded runner."""

    arguments: list[str] = field(default_factory=list)
    start_timeout: Positive = 60.0
    stop_timeout: Positive = 8.0
    restart_delay: Positive = 0.5
    max_restart_delay: Positive = 30.0


class WebSocketOptions(Struct, frozen=True):
    """`[websocket]`: every WebSocket between bridge and bot, whoever dials."""

    read_buffer: Bytes = 65536
    write_buffer: Bytes = 65536
    unsent_limit: Bytes = 1280
    max_frame: Bytes = 1048576
    max_message: Bytes = 4194304
    handshake_timeout: Positive = 5.0
    close_timeout: Positive = 1.0
    ping_interval: Interval = 10.0
    ping_timeout: Positive = 20.0


class CallerAudioOptions(Struct, frozen=True):
    """`[caller_audio]`: from the phone to the bot."""

    sample_rate: BotRate = 16000
    queue_frames: Frames = 150
    push_timeout: Seconds = 0.05
    drop: Literal["oldest", "newest"] = "oldest"
    in_flight: LongAudio = 0.5
    catch_up: Positive = 1.0
    keep_before_ready: Audio = 0.5
    hold_after: Positive = 0.5
    resampler: ResamplerKind = "fir"


class BotAudioOptions(Struct, frozen=True):
    """`[bot_audio]`: from the bot to the phone."""

    prebuffer: Audio = 0.03
    max_prebuffer: Audio = 0.4
    max_queue: LongAudio = 180.0
    time_scaling: bool = True
    resampler: ResamplerKind = "fir"


class CallOptions(Struct, frozen=True):
    """`[calls]`: how many calls, for how long, and how they end."""

    max_calls: Count = 0
    max_duration: Seconds = 0.0
    prepared_ttl: Positive = 60.0
    keep_ended: Kept = 200
    drain_timeout: Seconds = 30.0
    on_bot_lost: Literal["hangup", "restart", "dialplan"] = "hangup"
    max_restarts: Count = 3
    hold_file: str = ""


class ApiOptions(Struct, frozen=True):
    """`[api]`: HTTP API and metrics."""

    listen: str = "tcp:8080:interface=127.0.0.1"
    hosts: list[str] = field(default_factory=list)
    linger: UpToAnHour = 3.0


class StoreOptions(Struct, frozen=True):
    """`[store]`: what is kept of calls, where, and for how long."""

    url: str = ""
    directory: str = ""
    max_waiting: LargeBytes = 1_073_741_824
    events_file: str = ""
    keep_records: Days = 0.0
    keep_transcripts: Days = 0.0


class RecordingOptions(Struct, frozen=True):
    """`[recording]`: which calls are recorded, and what becomes of that."""

    when: Literal["off", "always", "on_demand"] = "off"
    format: Literal["opus", "flac", "wav"] = "opus"
    announce: str = ""
    keep: Days = 0.0
    max_bytes: LargeBytesOrNone = 0


class S3Options(Struct, frozen=True):
    """`[s3]`: the bucket into which recordings go, of any store that speaks Amazon's protocol. What
    is "" is found where the AWS tools find it."""

    bucket: str = ""
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    access_key: str = ""
    secret_key: str = ""


class PrivacyOptions(Struct, frozen=True):
    """`[privacy]`: what is written nowhere."""

    hide_keys: bool = False


class Webhook(Struct, frozen=True, forbid_unknown_fields=True):
    """One table of `[[webhooks.hooks]]`: a receiver of events."""

    name: str
    url: str
    secrets: list[str]
    kinds: list[str] = field(default_factory=list)  # all if empty
    timeout: Positive = 15.0


class WebhookOptions(Struct, frozen=True):
    """`[webhooks]`: who is told what happens to calls."""

    hooks: list[Webhook] = field(default_factory=list)


class ServiceOptions(Struct, frozen=True):
    """`[service]`: the daemon itself."""

    node: str = ""
    workers: Processes = 1
    poll_interval: PollInterval = 0.002
    log_format: Literal["text", "json"] = "text"


class Options(Struct, frozen=True):
    """All sections of the configuration."""

    audiosocket: AudioSocketOptions = field(default_factory=AudioSocketOptions)
    runner: RunnerOptions = field(default_factory=RunnerOptions)
    embedded: EmbeddedOptions = field(default_factory=EmbeddedOptions)
    websocket: WebSocketOptions = field(default_factory=WebSocketOptions)
    caller_audio: CallerAudioOptions = field(default_factory=CallerAudioOptions)
    bot_audio: BotAudioOptions = field(default_factory=BotAudioOptions)
    calls: CallOptions = field(default_factory=CallOptions)
    api: ApiOptions = field(default_factory=ApiOptions)
    store: StoreOptions = field(default_factory=StoreOptions)
    recording: RecordingOptions = field(default_factory=RecordingOptions)
    s3: S3Options = field(default_factory=S3Options)
    privacy: PrivacyOptions = field(default_factory=PrivacyOptions)
    webhooks: WebhookOptions = field(default_factory=WebhookOptions)
    service: ServiceOptions = field(default_factory=ServiceOptions)
