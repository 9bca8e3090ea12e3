"""Asks for decisions, one JSON transaction a line of standard input: API_KEY=... python decide.py URL

Needs nothing but Python. The same request may always be sent again: an id is decided once.
"""

import os
import sys
import time
import urllib.error
import urllib.request

TRIES = 5
# Refused because of what was sent: another try gets the same answer.
FINAL = {400, 401, 404, 409, 413, 422}


def decide(url, body):
    request = urllib.request.Request(
        url + "/v1/decisions",
        data=body,
        headers={"X-API-Key": os.environ["API_KEY"], "Content-Type": "application/json"},
    )
    for attempt in range(TRIES):
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            if error.code in FINAL:
                return error.read().decode()
        except (
            OSError
        ):  # no answer: it may have been decided all the same, and then the next try gets that decision
            pass
        time.sleep(0.2 * 2**attempt)
    sys.exit(f"no answer after {TRIES} tries; keep the transaction and send it later")


for line in sys.stdin:
    print(decide(sys.argv[1], line.encode()), flush=True)
