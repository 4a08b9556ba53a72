"""Credentials for Weights & Biases."""

from __future__ import annotations

import netrc
import os
import re


def wandb_key_found() -> bool:
    """Checks whether W&B would find an API key.

    W&B looks in ``WANDB_API_KEY`` and then for its host (``WANDB_BASE_URL``) in a netrc file (``NETRC``, or the default).
    """
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = re.sub(r"^https?://", "", os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).strip("/")
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
