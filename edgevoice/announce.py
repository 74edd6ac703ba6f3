"""Telling the local network where the Wyoming server is, by multicast DNS, so that Home Assistant finds it.

The service is `edgevoice-<site>._wyoming._tcp.local.`; it is taken back when the server ends. The extra
`zeroconf` is used directly: wyoming's own asks for a version that has no wheel for 64-bit ARM, and does not
take back what it announced.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from edgevoice import extras
from edgevoice.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_log = logging.getLogger(__name__)

SERVICE: Final = "_wyoming._tcp.local."
"""What Home Assistant looks for."""

_EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - an address that was configured
_GROUP: Final = (
    "224.0.0.251",
    5353,
)  # of multicast DNS: the way there tells which address of ours others see


def check_installed() -> None:
    """Raise ConfigError if the library is not there."""
    try:
        import zeroconf.asyncio  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise ConfigError(
            f"wyoming.announce is true, but zeroconf is not installed; run: {extras.remedy('zeroconf')}"
        ) from None


@asynccontextmanager
async def announced(site: str, host: str, port: int) -> AsyncIterator[None]:
    """Announce an address while the block runs; what cannot be announced is served all the same."""
    from zeroconf import Error, InterfaceChoice  # noqa: PLC0415 - an extra
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf  # noqa: PLC0415

    network = None
    try:
        everywhere = host in _EVERYWHERE
        address = _own_address() if everywhere else host
        network = AsyncZeroconf(interfaces=InterfaceChoice.Default if everywhere else [address])
        service = AsyncServiceInfo(
            SERVICE,
            f"edgevoice-{site}.{SERVICE}",
            addresses=[ipaddress.ip_address(address).packed],
            port=port,
        )
        await network.async_register_service(service)
        _log.info("wyoming: announced as %s at %s:%d", service.name, address, port)
    except (OSError, Error) as error:
        _log.warning("wyoming: cannot be announced (%s); give Home Assistant the address", error)
    try:
        yield
    finally:
        if network is not None:
            await network.async_unregister_all_services()
            await network.async_close()


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(_GROUP)  # sends nothing
        return str(probe.getsockname()[0])
