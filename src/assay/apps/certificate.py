"""The certificate that a provider's HTTPS shows: made by itself, named by its record, kept beside its key."""

from __future__ import annotations

import datetime
import hashlib
import os
import secrets
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from assay.core.errors import ConfigError
from assay.core.hashing import Digest
from assay.core.keys import Address

MODE: Final = 0o600
_MAX_FILE: Final = 65_536
_YEARS: Final = 20
"""Nobody looks at it: the record, which lives a day at most, says what holds."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A private file with a certificate and its key, in PEM."""

    path: Path
    digest: Digest
    """SHA-256 of the certificate's DER."""


def certificate_of(provider: Address, path: Path, *, now: float) -> Certificate:
    """The certificate at `path`, made now if there is none. `now`: Unix seconds.

    Raises:
        ConfigError: it cannot be read or written, others may read it, or it is none.
    """
    try:
        if not path.exists():
            _write(path, _make(provider, now))
        info = path.stat()
        if os.name == "posix" and info.st_mode & 0o077:
            raise ConfigError(f"other users may read the certificate's key {path}", f"run `chmod 600 {path}`")
        if not stat.S_ISREG(info.st_mode) or info.st_size > _MAX_FILE:
            raise ConfigError(f"{path} is not a certificate's file", "move it away: another one is made")
        text = path.read_text(encoding="ascii")
    except OSError as error:
        raise ConfigError(f"the certificate {path} cannot be used ({error.strerror})", "check its folder") from error
    try:
        der = ssl.PEM_cert_to_DER_cert(text[: text.index("-----END CERTIFICATE-----") + 25])
    except ValueError as error:
        raise ConfigError(f"{path} is not a certificate's file", "move it away: another one is made") from error
    return Certificate(path, hashlib.sha256(der).digest())


def _make(provider: Address, now: float) -> bytes:
    """PEM of a certificate for this name, signed by its own key, and of the key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, provider)])
    begin = datetime.datetime.fromtimestamp(now, datetime.UTC) - datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, for the owner only."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
