"""Addresses of sidecars: what they must look like, and how one talks HTTP to them."""

from __future__ import annotations

import ipaddress
import ssl
from urllib.parse import urlsplit

import httpx

from model.http_bodies import plain_client


def tls_context(url: str) -> ssl.SSLContext | None:
    """How to check the certificate behind `url`; None: there is none.

    A certificate names the host that others know; on loopback it cannot match, and
    nobody else is there to be mistaken for it.
    """
    parts = urlsplit(url)
    if parts.scheme != "https":
        return None
    context = ssl.create_default_context()
    if _is_loopback(parts.hostname or ""):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def checked_url(url: str) -> str:
    """The address without a slash at its end.

    Raises:
        ValueError: it is not one.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not an http:// or https:// address")
    return url.rstrip("/")


def http_client(url: str, api_key: str, timeout_s: float) -> httpx.AsyncClient:
    """A client for one sidecar; closing it is the caller's."""
    return plain_client(
        base_url=url,
        headers=key_headers(api_key),
        timeout=timeout_s,
        verify=tls_context(url) or True,
        trust_env=False,  # a proxy of the environment is for the world outside
    )


def key_headers(api_key: str) -> dict[str, str]:
    """What shows our key; nothing where there is none."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}
