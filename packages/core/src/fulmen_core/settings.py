"""What the environment may say (``FULMEN_…``). Read at the edge: only `fulmen_core.cli.context` makes this object."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of the whole command, from ``FULMEN_…`` variables; arguments of the constructor win over them."""

    model_config = SettingsConfigDict(env_prefix="FULMEN_", extra="forbid", frozen=True)

    plugins_disabled: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="plugins never to import, by name or distribution, separated by commas"
    )
    plugins_strict: bool = Field(False, description="stop at the first fault of any plugin")
    require: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="what `fulmen conform` must find available, separated by commas: no claim of it is skipped"
    )
    threads: int | None = Field(None, ge=1, description="threads of the numeric libraries; default: theirs")
    cache_dir: Path = Field(
        default_factory=lambda: Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fulmen",
        description="where downloaded models are kept; default: fulmen in the user's cache folder",
    )
    platform: SecretStr = Field(  # its URL may hold a password
        SecretStr(""), description="the database of API keys and usage: a file for SQLite, or an SQLAlchemy URL"
    )
    admin_key: SecretStr = Field(SecretStr(""), description="opens the admin routes of a server that demands API keys")
    api_key: SecretStr = Field(SecretStr(""), description="sent to a server that `fulmen chat` or `bench` talks to")
    debug: bool = Field(False, description="show tracebacks and debug logs")

    @field_validator("plugins_disabled", "require", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value
