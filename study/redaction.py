"""Passwords and tokens in addresses.

They are used to connect, and shown and kept nowhere. The study works with addresses that have no secrets in them. `kept` takes
the secrets out where an address comes in and remembers them in this process, and `completed` puts them back where a client
connects. Text that others have written, such as an error of a database driver, goes through `redacted`.
"""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

DATABASES = ("postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle", "cockroachdb")
"""Kinds of addresses whose user name is kept: a database needs it, and no variable of MLflow's holds it."""

HIDDEN = "***"
"""Stands for a secret that is not in an address."""

SHORTEST = 4
"""Shorter secrets are not looked for in text, where they would be parts of ordinary words."""

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>\S*)")
_HOST = re.compile(r"(\[[^\]]*\]|[^:\[]*)(:\d*)?")
_SECRET_NAME = re.compile(
    r"passw|passphrase|pwd|secret|token|credential|signature|^(pass|pw|key|sig|auth|authorization|api_?key|access_?key)$",
    re.IGNORECASE,
)

_given: dict[str, str] = {}
_recorded: dict[str, str] = {}
_secrets: set[str] = set()


def without_secrets(address: str) -> str:
    """The address without its passwords and tokens.

    Those are the user information before the host, and parameters with names such as `password` or `token`. The user name of a
    database stays.
    """
    scheme, mark, rest = address.partition("://")
    if not mark:
        return address
    return f"{scheme}://{_split(scheme, rest)[0]}"


def has_secrets(address: str) -> bool:
    """Whether `without_secrets` would change the address."""
    return without_secrets(address) != address


def is_ambiguous(address: str) -> bool:
    """Whether the end of a password is unclear.

    It has a raw `@`, `/`, `?` or `#`, which must be written as %40, %2F, %3F or %23.
    """
    rest = address.partition("://")[2]
    if rest.startswith("/"):
        return False
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    odd = not _HOST.fullmatch(authority) and "@" not in authority
    return (odd and "@" in rest) or authority.count("@") > 1 or ("@" in authority and "@" in rest[len(authority) :])


def kept(address: str, *, recorded: bool = False) -> str:
    """The address without its secrets, which are remembered.

    Args:
        address: as the user gave it.
        recorded: whether it comes from a log; an address that the user gives now, or has in the environment, goes before it.
    """
    clean = without_secrets(address)
    if clean != address:
        (_recorded if recorded else _given)[clean] = address
        scheme, _, rest = address.partition("://")
        for secret in _split(scheme, rest)[1]:
            _secrets.update({secret, unquote(secret)})
    return clean


def completed(address: str) -> str:
    """The address with its secrets, to connect.

    They are those of `kept`, or those in MLFLOW_TRACKING_URI if that is the same address.
    """
    variable = os.environ.get("MLFLOW_TRACKING_URI", "")
    if address not in _given and has_secrets(variable):
        kept(variable)
    return _given.get(address) or _recorded.get(address) or address


def is_for_now(address: str) -> bool:
    """Whether later commands lack the secrets of an address.

    The user has given them to this command, and MLFLOW_TRACKING_URI does not have them.
    """
    return address in _given and without_secrets(os.environ.get("MLFLOW_TRACKING_URI", "")) != address


def redacted(text: str) -> str:
    """The text without secrets in its addresses.

    Secrets that this process remembers are replaced wherever they stand as whole words.
    """
    if "://" in text:
        text = _ADDRESS.sub(lambda match: _in_text(match, text), text)
    for secret in sorted(_secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST and secret in text:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    return text


def _in_text(match: re.Match[str], text: str) -> str:
    """An address in a text, without its secrets.

    A quote that opens before it ends it.
    """
    scheme, rest = match["scheme"], match["rest"]
    before = text[match.start() - 1 : match.start()]
    end = rest.find(before) if before and before in "'\"`<(" else -1
    size = len(rest) if end < 0 or "@" in rest[end:] else end
    size = len(rest[:size].rstrip("'\"`>)]},.;:"))
    return f"{scheme}://{_split(scheme, rest[:size])[0]}{rest[size:]}"


def _split(scheme: str, rest: str) -> tuple[str, list[str]]:
    """What follows `://` without its secrets, and the secrets."""
    secrets = []
    kind = scheme.lower().partition("+")[0]
    if scheme.lower() in ("sqlite", "sqlite+pysqlite") and rest.startswith("/"):  # a path, in which anything may stand
        return rest, []
    rest, fragment_mark, fragment = rest.partition("#") if "@" not in rest.partition("#")[2] else (rest, "", "")
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    user, port = "", ""
    if "@" in authority or ("@" in rest and not _HOST.fullmatch(authority)):
        user, _, rest = rest.rpartition("@")
        authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    if not _HOST.fullmatch(authority) and not authority.startswith(
        "["
    ):  # what stands for the port may be a password whose host was forgotten
        port = authority.partition(":")[2]
        rest = authority.partition(":")[0] + rest[len(authority) :]
    if user:
        name, _, password = user.partition(":")
        secrets += [password] if kind in DATABASES else [password or name]
        rest = f"{name}@{rest}" if kind in DATABASES and name else rest
    path, mark, query = rest.partition("?")
    parameters = re.split(r"([&;])", query)
    shown: list[str] = []
    for place in range(0, len(parameters), 2):
        name, _, value = parameters[place].partition("=")
        if value and _is_secret(name, value):
            secrets.append(value)
        elif parameters[place]:
            shown += [*(parameters[place - 1 : place] if shown else []), parameters[place]]
    rest = path + (mark if shown else "") + "".join(shown)
    name, _, value = fragment.partition("=")
    if value and _SECRET_NAME.search(unquote(name)):
        secrets.append(value)
        fragment_mark = fragment = ""
    return rest + fragment_mark + fragment, [secret for secret in (*secrets, port) if secret]


def _is_secret(name: str, value: str) -> bool:
    """Whether a parameter holds a secret.

    The connection string of an ODBC driver is one if it has a password in it.
    """
    odbc = unquote(name).lower() == "odbc_connect" and re.search(r"pwd|passw", unquote(value), re.IGNORECASE)
    return bool(_SECRET_NAME.search(unquote(name)) or odbc)
