"""What goes wrong, in OpenAI's form."""

from __future__ import annotations

import math
import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from foreword.common.characters import to_json
from foreword.errors import BusyError, UserError

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "server_error",
}
FAILED = "the answer failed in the server; its log says why"


class Refusal(Exception):
    """A request that is answered by an error.

    Args:
        status: of HTTP.
        message: names the field, the value and the fix.
        param: the field.
        code: a word for programs.
        retry_after: seconds after which asking again makes sense.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after = retry_after

    @property
    def body(self) -> dict[str, Any]:
        """As OpenAI writes it."""
        kind = TYPES.get(self.status, "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> Response:
        """The whole answer."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return Json(self.body, self.status, headers)


class Json(Response):
    """JSON that any text may stand in."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """UTF-8, with what UTF-8 has no form for as escapes."""
        return to_json(content).encode()


def refusal_of(error: BaseException) -> Refusal:
    """What a client is told of an exception: of those that are no mistake of the client's, and no
    sign of too much work, only that something failed."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, BusyError):
        status = 503 if error.closing else 429
        code = "server_stopping" if error.closing else "queue_full"
        return Refusal(status, str(error), code=code, retry_after=error.retry_after)
    if isinstance(error, UserError):
        message = str(error)
        named = re.match(r"(\w+)[:.,\[]", message)
        return Refusal(400, message, param=None if named is None else named[1])
    return Refusal(500, FAILED)


async def on_refusal(_: Request, error: Exception) -> Response:
    """Answers a request that was refused."""
    return refusal_of(error).response()
