"""The tables, and their version. Times are Unix seconds in UTC; costs are in 10^-12 of the price table's currency."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, MetaData, String, Table

#: Raised with every change of the tables below.
SCHEMA_VERSION = 1

metadata = MetaData()

schema_versions = Table("fulmen_schema", metadata, Column("version", Integer, primary_key=True, autoincrement=False))

organisations = Table(
    "fulmen_organisations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("tokens_per_month", BigInteger),
    Column("created", BigInteger, nullable=False),
)

keys = Table(
    "fulmen_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("organisation_id", ForeignKey("fulmen_organisations.id"), nullable=False, index=True),
    Column("prefix", String(16), nullable=False),
    Column("secret_hash", String(64), nullable=False, unique=True),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Column("revoked", BigInteger),
    Column("last_used", BigInteger),
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", Integer),
    Column("max_concurrent", Integer),
)

usage = Table(
    "fulmen_usage",
    metadata,
    Column("key_id", ForeignKey("fulmen_keys.id"), primary_key=True),
    Column("model", String(200), primary_key=True),
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
)
