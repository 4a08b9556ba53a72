"""Credentials for Weights & Biases."""

from __future__ import annotations

import netrc
import os
import re
import ssl
import threading
import urllib.error
import urllib.request


def wandb_key_found() -> bool:
    """Checks whether W&B would find an API key.

    W&B takes the key from ``WANDB_API_KEY``, or from the entry of its host (``WANDB_BASE_URL``) in the netrc file
    (``NETRC`` sets its path).
    """
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = re.sub(r"^https?://", "", _address()).strip("/")
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, UnicodeError, netrc.NetrcParseError):
        return False


def wandb_reachable(seconds: float = 5.0) -> bool:
    """Checks whether W&B's server answers, whatever it says, within so many seconds.

    W&B itself tries for minutes. Proxies of the environment are used, as W&B does.
    """
    answered: list[bool] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(_address(), timeout=seconds).close()
        except urllib.error.HTTPError:
            pass  # an answer
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ssl.SSLError):  # W&B has certificates of its own
                return
        except (OSError, ValueError):
            return
        answered.append(True)

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name knows no time limit
    asking.start()
    asking.join(seconds + 1)
    return bool(answered)


def _address() -> str:
    return os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
