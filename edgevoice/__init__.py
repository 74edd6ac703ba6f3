"""edgevoice: offline voice commands for Raspberry Pi class machines, speech in and intents on MQTT out."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("edgevoice")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+source"

__all__ = ["__version__"]
