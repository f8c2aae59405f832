"""Names of secret variables, and the user and password in an address."""

from __future__ import annotations

import re

SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_KEY|PRIVATE", re.IGNORECASE)


def userinfo(rest: str) -> str:
    """Return the user and password at the beginning of what follows `://`; empty where there is none.

    A password that is not percent-encoded may contain `/`, `#` and `@`. So everything before the last `@` counts as
    user and password where it has a colon, rather too much than too little; `bucket/a@b` has none.
    """
    before = rest.rpartition("@")[0]
    return before if ":" in before else rest.partition("/")[0].rpartition("@")[0]
