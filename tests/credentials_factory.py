"""Signs clips with content credentials and a certificate that is thrown away: `from credentials_factory import Issuer`."""

from __future__ import annotations

import datetime
from pathlib import Path

AI = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


class Issuer:
    """A certificate authority of its own, and a signer named `Throw-away` that it vouches for."""

    def __init__(self) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        authority, signer = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        now = datetime.datetime.now(datetime.timezone.utc)

        def certificate(name: str, key, extensions: list[tuple]) -> x509.Certificate:
            made = x509.CertificateBuilder().subject_name(_name(name)).issuer_name(_name("Authority"))
            made = made.public_key(key.public_key()).serial_number(x509.random_serial_number())
            made = made.not_valid_before(now - datetime.timedelta(days=1))
            made = made.not_valid_after(now + datetime.timedelta(days=2))
            for extension, critical in extensions:
                made = made.add_extension(extension, critical)
            return made.sign(authority, hashes.SHA256())

        own = x509.SubjectKeyIdentifier.from_public_key
        unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        usage = dict.fromkeys((*unused, "encipher_only", "decipher_only"), False)
        root = [
            (x509.BasicConstraints(ca=True, path_length=None), True),
            (x509.KeyUsage(digital_signature=False, key_cert_sign=True, crl_sign=True, **usage), True),
            (own(authority.public_key()), False),
        ]
        leaf = [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.KeyUsage(digital_signature=True, key_cert_sign=False, crl_sign=False, **usage), True),
            (x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.EMAIL_PROTECTION]), False),
            (own(signer.public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False),
        ]
        pem = serialization.Encoding.PEM
        self.anchors = certificate("Authority", authority, root).public_bytes(pem).decode()
        self._chain = certificate("Throw-away", signer, leaf).public_bytes(pem) + self.anchors.encode()
        self._key = signer.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

    def sign(self, clip: Path, to: Path, claims: dict | None = None, link: str | None = None) -> Path:
        """Write a signed copy of an MP4; `claims` are entries of its manifest, and `link` is where that is kept instead."""
        import c2pa

        made = {"action": "c2pa.created", "digitalSourceType": AI, "softwareAgent": {"name": "Drawer"}}
        manifest = {
            "claim_generator_info": [{"name": "Drawer", "version": "1"}],
            "assertions": [{"label": "c2pa.actions", "data": {"actions": [made]}}],
            **(claims or {}),
        }
        about = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, self._chain, self._key, None)
        with (
            clip.open("rb") as source,
            to.open("w+b") as target,
            c2pa.Signer.from_info(about) as signer,
            c2pa.Builder(manifest) as builder,
        ):
            if link:
                builder.set_no_embed()
                builder.set_remote_url(link)
            builder.sign(signer, "video/mp4", source, target)
        return to


def tampered(clip: Path, to: Path) -> Path:
    """Write a copy with one bit of the media flipped."""
    data = bytearray(clip.read_bytes())
    data[data.rfind(b"mdat") + 200] ^= 1
    to.write_bytes(data)
    return to


def _name(common: str):
    from cryptography import x509

    oid = x509.oid.NameOID
    parts = ((oid.COUNTRY_NAME, "XX"), (oid.ORGANIZATION_NAME, "Test Org"), (oid.COMMON_NAME, common))
    return x509.Name([x509.NameAttribute(*part) for part in parts])
