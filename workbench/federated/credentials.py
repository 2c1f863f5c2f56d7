"""Certificates and keys of a deployment: who the SuperLink is, and which nodes may join.

Made for loopback by whoever runs the deployment; one's own certification authority can put the
same files into the same places.
"""

import datetime
import ipaddress
import os
import pathlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

#: How long new certificates are valid: a run, with time to resume it.
VALID = datetime.timedelta(days=7)
#: Certificates begin a little earlier than now, for clocks that are late.
EARLIER = datetime.timedelta(minutes=5)


@dataclass(frozen=True)
class Credentials:
    """Where the files are.

    Parameters
    ----------
    folder : pathlib.Path
        Holds ``ca.crt``, ``server.crt`` and ``server.key``, and for each node its private key
        ``node-0`` and its public key ``node-0.pub``.
    """

    folder: pathlib.Path

    @property
    def authority(self) -> pathlib.Path:
        """Certificate that nodes check the SuperLink's with."""
        return self.folder / "ca.crt"

    @property
    def certificate(self) -> pathlib.Path:
        """The SuperLink's certificate."""
        return self.folder / "server.crt"

    @property
    def key(self) -> pathlib.Path:
        """The SuperLink's private key."""
        return self.folder / "server.key"

    def node_key(self, node: int) -> pathlib.Path:
        """The private key of a node; the public one is beside it, with the ending ``.pub``."""
        return self.folder / f"node-{node}"

    def public_key(self, node: int) -> pathlib.Path:
        """The public key of a node, which the SuperLink is told."""
        return self.folder / f"node-{node}.pub"

    def check(self, num_nodes: int, now: datetime.datetime | None = None) -> None:
        """Refuse files that are missing and certificates that are not valid now.

        Raises
        ------
        ValueError
            With the file and, for a certificate, the dates.
        """
        nodes = range(num_nodes)
        files = [self.authority, self.certificate, self.key, *map(self.node_key, nodes)]
        for path in [*files, *map(self.public_key, nodes)]:
            if not path.is_file():
                raise ValueError(f"{path} is missing: make_credentials makes it.")
        now = now or datetime.datetime.now(datetime.UTC)
        for path in (self.authority, self.certificate):
            found = x509.load_pem_x509_certificate(path.read_bytes())
            first, last = found.not_valid_before_utc, found.not_valid_after_utc
            if not first <= now <= last:
                raise ValueError(
                    f"the certificate {path} is valid from {first:%Y-%m-%d %H:%M} to "
                    f"{last:%Y-%m-%d %H:%M} UTC, and it is {now:%Y-%m-%d %H:%M}: "
                    "make new ones, or leave credentials=None."
                )


def make_credentials(
    folder: str | os.PathLike, num_nodes: int, valid: datetime.timedelta = VALID
) -> Credentials:
    """Make an authority, the SuperLink's certificate and a key for each node, as new files.

    Parameters
    ----------
    folder : path
        Where to; readable by its owner only. Never put it under version control.
    num_nodes : int
        Keys to make.
    valid : datetime.timedelta
        How long from now the certificates are valid.
    """
    made = Credentials(pathlib.Path(folder))
    made.folder.mkdir(parents=True, exist_ok=True)
    made.folder.chmod(0o700)
    until = datetime.datetime.now(datetime.UTC) + valid
    authority_key, key = new_key(), new_key()
    name = _name("workbench authority")
    authority = (
        _builder(name, name, authority_key, until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
    )
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    server = (
        _builder(_name("workbench SuperLink"), name, key, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    )
    for path, builder in ((made.authority, authority), (made.certificate, server)):
        signed = builder.sign(authority_key, hashes.SHA384())
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    _write_private(made.key, key, serialization.PrivateFormat.PKCS8)
    for node in range(num_nodes):
        key = new_key()
        _write_private(made.node_key(node), key, serialization.PrivateFormat.OpenSSH)
        made.public_key(node).write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
            )
        )
    return made


def new_key() -> ec.EllipticCurvePrivateKey:
    """A private key on the curve that Flower recommends for nodes."""
    return ec.generate_private_key(ec.SECP384R1())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    until: datetime.datetime,
) -> x509.CertificateBuilder:
    first = min(datetime.datetime.now(datetime.UTC), until) - EARLIER
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(first)
        .not_valid_after(until)
    )


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _write_private(
    path: pathlib.Path, key: ec.EllipticCurvePrivateKey, kind: serialization.PrivateFormat
) -> None:
    encoded = key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())
    path.unlink(missing_ok=True)
    path.touch(0o600, exist_ok=False)
    path.write_bytes(encoded)
