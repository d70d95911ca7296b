"""`storage_options`: melisma's own names for what stores need, and the backend's name for each.

One set of names serves every connector, whichever library is behind a scheme; it can be replaced without a
change to anyone's settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from melisma.errors import ConfigError

__all__ = ["BACKENDS", "Backend", "Option", "backend_arguments"]


@dataclass(frozen=True, slots=True)
class Option:
    """One key: the backend's argument for it, its type, and what it means."""

    argument: str
    meaning: str
    type: type = str


@dataclass(frozen=True, slots=True)
class Backend:
    """What stands behind a scheme.

    Attributes:
        extra: the connector's extra that installs it; empty when it is always there.
        options: the keys that `storage_options` may have.
    """

    extra: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)


_NETWORK = {
    "proxy_url": Option("proxy_url", "a proxy for all requests; by default HTTPS_PROXY and its like"),
    "ca_file": Option("ca_file", "certificates (PEM) to trust besides the system's"),
}

BACKENDS: Mapping[str, Backend] = {
    "file": Backend(),
    "s3": Backend(
        "s3",
        {
            "endpoint_url": Option("endpoint_url", "the service's address, for stores other than AWS"),
            "region": Option("region", "the bucket's region; by default the profile's or AWS_REGION"),
            "access_key_id": Option("access_key_id", "the access key; by default the environment's or role's"),
            "secret_access_key": Option("secret_access_key", "the access key's secret"),
            "session_token": Option("session_token", "the token of temporary credentials"),
            "profile": Option("profile", "a profile of the AWS configuration files"),
            "anonymous": Option("anonymous", "true reads public buckets without credentials", bool),
            "virtual_hosted": Option(
                "virtual_hosted",
                "whether the bucket stands in the host's name (true) or in the path (false); by default true for AWS",
                bool,
            ),
            "requester_pays": Option("requester_pays", "true pays for requests to another's bucket", bool),
            "server_side_encryption": Option("server_side_encryption", "AES256, aws:kms or aws:kms:dsse"),
            "kms_key_id": Option("kms_key_id", "the key, for aws:kms; by default the account's own"),
            "customer_key": Option("customer_key", "a key of your own for every file (SSE-C): 32 bytes in base64"),
            **_NETWORK,
        },
    ),
    "gs": Backend(
        "gs",
        {
            "endpoint_url": Option("base_url", "the service's address, for emulators"),
            "project": Option("project", "the project that is billed"),
            "token_file": Option("service_account", "a service account's key file; by default the environment's"),
            "anonymous": Option("skip_signature", "true reads public buckets without credentials", bool),
            **_NETWORK,
        },
    ),
    "az": Backend(
        "az",
        {
            "account_name": Option("account_name", "the storage account"),
            "account_key": Option("account_key", "the account's key"),
            "sas_token": Option("sas_key", "a shared access signature"),
            "connection_string": Option("connection_string", "a connection string, instead of the above"),
            "tenant_id": Option("tenant_id", "the tenant of a service principal"),
            "client_id": Option("client_id", "the service principal"),
            "client_secret": Option("client_secret", "the service principal's secret"),
            "endpoint_url": Option("endpoint", "the service's address, for emulators and sovereign clouds"),
            "anonymous": Option("skip_signature", "true reads public containers without credentials", bool),
            **_NETWORK,
        },
    ),
    "sftp": Backend(
        "sftp",
        {
            "port": Option("port", "the server's port", int),
            "username": Option("username", "the user"),
            "password": Option("password", "the user's password"),
            "key_file": Option("key_filename", "the user's private key file"),
            "known_hosts_file": Option(
                "known_hosts_file", "the servers' keys, as OpenSSH keeps them; by default ~/.ssh/known_hosts"
            ),
            "host_key_fingerprint": Option("host_key_fingerprint", "the server's key as SHA256:..., instead of a file"),
            "accept_unknown_host": Option(
                "accept_unknown_host", "true believes a server that no file names; a changed key is refused", bool
            ),
        },
    ),
    "http": Backend("http", _NETWORK),
    "https": Backend("http", _NETWORK),
    "memory": Backend("http"),  # for tests
}


def backend_arguments(scheme: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The backend's arguments for `storage_options`; keys with null are left out.

    Raises:
        ConfigError: a key is not known for this scheme, or has the wrong type. Values are never named.
    """
    known = BACKENDS[scheme].options
    arguments: dict[str, Any] = {}
    for key, value in (options or {}).items():
        if key not in known:
            fix = f"Valid keys: {', '.join(known)}" if known else "Leave storage_options out"
            rule = f"the key is not known for {scheme}://" if known else "this kind of place takes no options"
            raise ConfigError(f"storage_options.{key}", rule, fix)
        if value is None:
            continue
        option = known[key]
        if not isinstance(value, option.type) or (option.type is int and isinstance(value, bool)):
            kind = {str: "a string", bool: "true or false", int: "an integer"}[option.type]
            raise ConfigError(f"storage_options.{key}", "has the wrong type", f"Set it to {kind}")
        arguments[option.argument] = value
    return arguments
