"""The settings of a server: one frozen section per part, read from one YAML file.

`load` reads a file, `settings_of` takes a mapping, `defaults` is what an empty file means. All of them refuse with
`SettingsRefused`, one sentence per fault. There is no global settings object: each part is given its own section.

* `units`: durations (`4s`) and sizes (`30MiB`) as texts
* `model`: the sections, their keys, defaults and bounds
* `checks`: which values cannot be safe together, and why
* `loading`: the YAML file, and sentences for what is wrong in it
* `document`: the commented default file and the JSON schema, made from the model
"""

from __future__ import annotations

from jobserver.settings.loading import database_url, defaults, load, secret_of, settings_of
from jobserver.settings.model import (
    ApiSettings,
    BinariesSettings,
    CallbacksSettings,
    CheckpointSettings,
    ClusterSettings,
    ContextsSettings,
    DatabaseSettings,
    DriverSettings,
    HaSettings,
    ServerSettings,
    Settings,
    StandbyMode,
    ZooKeeperSettings,
)

__all__ = [
    "ApiSettings",
    "BinariesSettings",
    "CallbacksSettings",
    "CheckpointSettings",
    "ClusterSettings",
    "ContextsSettings",
    "DatabaseSettings",
    "DriverSettings",
    "HaSettings",
    "ServerSettings",
    "Settings",
    "StandbyMode",
    "ZooKeeperSettings",
    "database_url",
    "defaults",
    "load",
    "secret_of",
    "settings_of",
]
