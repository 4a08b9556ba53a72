"""Whether Weights & Biases has an account to log to."""

from __future__ import annotations

import netrc
import os
import re


def wandb_key_found() -> bool:
    """Whether W&B would find a key: in ``WANDB_API_KEY``, or for its host in netrc (``NETRC`` names another file)."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = re.sub(r"^https?://", "", os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).strip("/")
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
