"""One file over HTTP: whole and checked or not at all."""

from mixerkit.download.fetching import cache_folder, fetch, is_offline
from mixerkit.download.transfer import Expected

__all__ = ["Expected", "cache_folder", "fetch", "is_offline"]
