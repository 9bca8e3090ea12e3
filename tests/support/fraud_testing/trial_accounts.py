"""Keys that the trial's object store takes beside the platform's own, for a detector that has its own: as docs/stores.md gives them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, Final

from fraud_testing.in_pods import OBJECTS
from fraud_testing.live import PLATFORM, Live

HOST: Final = f"{PLATFORM}-objects.{PLATFORM}.svc:9000"
_PUT: Final = "cat > /data/accounts/next && mv /data/accounts/next /data/accounts/users.json"


def new_account(name: str) -> dict[str, str]:
    """What a Secret for storage holds, by AWS's names."""
    return {
        "AWS_ACCESS_KEY_ID": name,
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(24),
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{HOST}",
    }


def document(*accounts: Mapping[str, str]) -> dict[str, Any]:
    """The store's own file of accounts."""
    return {
        "accessAccounts": {
            one["AWS_ACCESS_KEY_ID"]: {
                "access": one["AWS_ACCESS_KEY_ID"],
                "secret": one["AWS_SECRET_ACCESS_KEY"],
                "role": "admin",
            }
            for one in accounts
        }
    }


def put(live: Live, *accounts: Mapping[str, str]) -> None:
    """From now on the store takes these keys, and no others beside the platform's own."""
    live.in_store("objects", _PUT, json.dumps(document(*accounts)))


def asked(live: Live, target: str, bucket: str, account: Mapping[str, str]) -> str:
    """Whether the store lets a key in, as ``target`` sees it: in, refused, or away."""
    access, secret = account["AWS_ACCESS_KEY_ID"], account["AWS_SECRET_ACCESS_KEY"]
    return live.run_in(target, OBJECTS, HOST, bucket, access, stdin=secret)
