"""Which upstream a demo reads from: the official registry where it can be had, else the lab.

Only the standard library: this runs before the lab is built.
"""

import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from lab.console import LabError
from lab.engine import present_engine

REGISTRY = "ghcr.io"
TIMEOUT_S = 3.0
WORDS = ("auto", "official", "lab")


@dataclass(frozen=True, slots=True)
class Choice:
    """An upstream, ``official`` or ``lab``, and why it was chosen."""

    name: str
    why: str


def choose(
    asked: str,
    *,
    engine: Callable[[], str | None] = present_engine,
    fault: Callable[[], str] | None = None,
) -> Choice:
    """Return the upstream that was asked for, or for ``auto`` the one that can be had here.

    The official one needs a container engine that answers and a registry that can be reached;
    ``fault`` says what is wrong with the latter. Raises LabError for another word.
    """
    if asked not in WORDS:
        raise LabError(f"UPSTREAM={asked} is none of {', '.join(WORDS)}")
    if asked != "auto":
        return Choice(asked, "as asked for by UPSTREAM")
    address = engine()
    if address is None:
        return Choice("lab", "no container engine answers on this machine")
    wrong = (fault or (lambda: registry_fault(f"https://{REGISTRY}/v2/")))()
    if wrong:
        return Choice("lab", f"{REGISTRY} cannot be reached ({wrong})")
    return Choice("official", f"{REGISTRY} answers, and so does the engine at {address}")


def registry_fault(url: str, timeout_s: float = TIMEOUT_S) -> str:
    """Return why no registry can be reached at this address, an empty text when one can.

    Looking up a name has no time limit of its own, so all of it is waited for from outside.
    """
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(_ask(url, timeout_s)), daemon=True).start()
    try:
        return answers.get(timeout=timeout_s)
    except queue.Empty:
        return f"no answer within {timeout_s:g} s"


def _ask(url: str, timeout_s: float) -> str:
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:  # proxies as usual
            status = answer.status
    except urllib.error.HTTPError as refusal:
        status = refusal.code
    except (OSError, ValueError) as problem:
        return str(getattr(problem, "reason", problem))
    # A registry says 401 to who has no token yet; anything else is a proxy's or a filter's word.
    return "" if status in (200, 401) else f"status {status}"
