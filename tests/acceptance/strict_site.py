"""The project's web application on a site that forbids all code but that of its own files."""

from __future__ import annotations

from typing import Any

from controller.project.asgi import application as project

POLICY = (b"content-security-policy", b"default-src 'self'; img-src 'self' data:")


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Add the policy to each answer."""

    async def send_with_policy(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], POLICY]}
        await send(message)

    await project(scope, receive, send_with_policy)
