"""Credentials for Weights & Biases."""

from __future__ import annotations

import netrc
import os
import re


def wandb_key_found() -> bool:
    """Checks whether W&B would find an API key.

    W&B takes the key from ``WANDB_API_KEY``, or from the entry of its host (``WANDB_BASE_URL``) in the netrc file
    (``NETRC`` sets its path).
    """
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = re.sub(r"^https?://", "", os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).strip("/")
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
