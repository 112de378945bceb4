"""Whether a server gives any sign of life. Who waits for an answer of it through other hands can find out why."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from typing import IO


def silent(urls: Iterable[str], timeout: float) -> list[str]:
    """Those of the web addresses whose server does not answer anything at all.

    Parameters
    ----------
    urls : iterable of str
        Without credentials: that they are missing is an answer, too. What is no ``http:`` or ``https:`` is passed over.
    timeout : float
        Seconds for each; all are asked at once.
    """
    asked = [url for url in dict.fromkeys(urls) if url.startswith(("http://", "https://"))]
    if not asked:
        return []
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = pool.map(lambda url: _answers(url, timeout), asked)
        return [url for url, answered in zip(asked, answers, strict=True) if not answered]


def _answers(url: str, timeout: float) -> bool:
    """False when nothing came in time. Whatever else fails is an answer, or will be told by who really asks."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=timeout):
            return True
    except urllib.error.URLError as error:
        return not isinstance(error.reason, TimeoutError)
    except TimeoutError:
        return False
    except (OSError, http.client.HTTPException, ValueError):
        return True


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """Another place's silence is its own."""
