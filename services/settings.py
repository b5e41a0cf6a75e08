"""Every setting of every process, in one typed place, from the environment (`GLORA_…`) or a `.env` file.

Imports neither torch nor ray; every room may import it.
"""

from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_USER = "default"
"""Who submits under the one token that a service has when nobody else was given one."""


def _free(name: str) -> str:
    if name == DEFAULT_USER:
        raise ValueError(f"{DEFAULT_USER!r} is whoever has GLORA_TOKEN; give the user another name")
    return name


UserName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,39}$"), AfterValidator(_free)]


class Settings(BaseSettings):
    """Settings of the API, the scheduler and the runners. Each field is read from `GLORA_` plus its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="GLORA_", env_file=".env", extra="ignore")

    home: Path = Field(Path(".glora"), description="Folder of everything the embedded service keeps: database, artifacts, logs.")
    database_url: str = Field("", description="SQLAlchemy URL; empty: SQLite in the home folder.")
    artifacts_url: str = Field(
        "", description="fsspec URL of the artifact store (a folder or s3://bucket/prefix); empty: `artifacts` in the home folder."
    )
    artifacts_endpoint: str = Field("", description="Endpoint of an S3-compatible store; empty: the provider's own.")
    host: str = Field("127.0.0.1", description="Address that the API listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port that the API listens on.")
    ray_address: str = Field("auto", description="Address of the Ray cluster that runners join, host:port.")
    token: SecretStr | None = Field(
        None, description="Bearer token that API and dashboard ask for; the API process does not start without one."
    )
    users: dict[UserName, SecretStr] = Field(
        {}, description="Further bearer tokens, by their users' names, as JSON; whoever has the one above is `default`."
    )
    idempotency_hours: float = Field(24.0, gt=0, le=24 * 365, description="How long an `Idempotency-Key` stands for its job, in hours.")
    data_roots: list[Path] = Field([], description="Folders below which submitted data must lie; empty: anywhere the service can read.")
    lease_seconds: float = Field(
        15.0, gt=0, description="A runner that has not renewed its lease for so long has lost its job, in seconds."
    )
    user_running_jobs: int | None = Field(None, ge=1, description="Jobs that one user may have running at once; absent: any number.")
    user_evaluators: int | None = Field(
        None,
        ge=1,
        description="Evaluators that all searching jobs of one user may hold together; each may hold one in any case. Absent: any number.",
    )
    user_queued_jobs: int | None = Field(
        None, ge=1, description="Jobs that one user may have in the queue, paused ones included, and studies not begun; absent: any number."
    )
    user_stored_bytes: int | None = Field(
        None, ge=1, description="Bytes of artifacts above which a user may submit nothing more; absent: any number."
    )
    start_seconds: float = Field(
        120.0, gt=0, description="How long a runner may take to load its libraries and renew its lease for the first time, in seconds."
    )
    warm_start: bool = Field(
        True,
        description="Keep one process with all libraries loaded beside a scheduler, some 500 MB, from which runners are forked: they start "
        "in a moment. Off: each loads the libraries by itself, seconds of a core.",
    )
    heartbeat_seconds: float = Field(1.0, gt=0, description="Interval of lease renewals and of looking for a cancel request, in seconds.")
    poll_seconds: float = Field(0.5, gt=0, description="Interval at which a scheduler looks for work, in seconds.")
    max_running_jobs: int = Field(1, ge=1, description="Jobs that one scheduler runs at once.")
    max_running_studies: int = Field(
        4, ge=0, description="Studies that one scheduler drives at once, beside those jobs; a driver submits and follows jobs, no more."
    )
    max_study_trials: int = Field(
        16, ge=1, description="Trials of one study at once, at most; each costs its driver's machine a process, some 230 MB."
    )
    max_attempts: int = Field(
        3, ge=1, description="How often in a row, without progress in between, a job is started before a lost process or node fails it."
    )
    max_outage_attempts: int = Field(
        500,
        ge=1,
        description="The same, where the artifact store, the database or Ray was out of reach.",
    )
    max_outage_hours: float = Field(
        6.0, gt=0, description="How long after the first of these attempts, without progress since, there are further ones, in hours."
    )
    retry_seconds: float = Field(
        1.0, ge=0, description="Longest wait before a job's second attempt, in seconds; it doubles with each further one."
    )
    retry_longest_seconds: float = Field(60.0, ge=0, description="Longest wait before any attempt, in seconds.")
    await_seconds: float = Field(
        5.0,
        ge=0,
        description="How long a runner waits for what another job trains before its job goes back into the queue, in seconds.",
    )
    log_seconds: float = Field(3.0, gt=0, description="How often the log of a running job is stored, if it has grown, in seconds.")
    describe_seconds: float = Field(
        60.0, gt=0, description="How long a submission waits for a first-seen backbone to be described, in seconds."
    )
    cluster_cpus: int | None = Field(
        None,
        ge=0,
        description="CPUs that the Ray cluster has at most, autoscaling included; more are refused. Absent: not known.",
    )
    cluster_gpus: int | None = Field(None, ge=0, description="The same for GPUs.")
    resources_seconds: float = Field(
        60.0, ge=0, description="How long a job waits for nodes of a cluster that is too small for it, in seconds."
    )
    hung_seconds: float = Field(
        60.0,
        gt=0,
        description="A process of the cluster that works for a job and has been silent for so long, stopped for example, is killed, and "
        "its work done again, in seconds.",
    )
    log_level: str = Field("INFO", description="Level of the processes' logs.")

    @field_validator("token")
    @classmethod
    def _sendable(cls, token: SecretStr | None) -> SecretStr | None:
        text = "-" if token is None else token.get_secret_value()
        if not (text.isascii() and text.isprintable() and text.strip() == text != ""):
            raise ValueError("a token must be printable ASCII without spaces around it, so that it fits an HTTP header")
        return token

    @field_validator("users")
    @classmethod
    def _all_sendable(cls, users: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for token in users.values():
            cls._sendable(token)
        return users

    @model_validator(mode="after")
    def _told_apart(self) -> "Settings":
        tokens = self.tokens.values()
        if len(set(tokens)) < len(tokens):
            raise ValueError("two users have the same token, which could not tell them apart; give each one of their own")
        return self

    @property
    def tokens(self) -> dict[str, str]:
        """Every bearer token that the API takes, by its user's name."""
        own = {} if self.token is None else {DEFAULT_USER: self.token}
        return {name: token.get_secret_value() for name, token in (own | self.users).items()}

    @property
    def resolved_database_url(self) -> str:
        """The database URL, with the embedded default filled in."""
        return self.database_url or f"sqlite:///{self.home.absolute() / 'glora.db'}"

    @property
    def resolved_artifacts_url(self) -> str:
        """The artifact store's URL, with the embedded default filled in."""
        return self.artifacts_url or str(self.home.absolute() / "artifacts")


@lru_cache
def get_settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
