"""A portal's web application whose views give away files: `application` for ASGI, `main` for WSGI.

/sync/JOB/PATH and /async/JOB/PATH are its two kinds of views, /cluster/ID/TAG/PATH the
cluster's verb, /list/JOB/PATH a directory; the admin is there too.
"""

from __future__ import annotations

import socketserver
import sys
import wsgiref.simple_server
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import aget_object_or_404, get_object_or_404
from django.urls import path

from controller.project.asgi import application
from controller.project.wsgi import application as wsgi_application

__all__ = ["application", "main"]

from controller.models import HpcCluster, HpcJob
from controller.responses import errors_as_responses


@errors_as_responses
def of_job(request: HttpRequest, job_id: int, name: str) -> HttpResponseBase:
    return get_object_or_404(HpcJob, pk=job_id).fetch_remote_file(name)


@errors_as_responses
async def of_job_async(request: HttpRequest, job_id: int, name: str) -> HttpResponseBase:
    return await (await aget_object_or_404(HpcJob, pk=job_id)).afetch_remote_file(name)


@errors_as_responses
def of_cluster(request: HttpRequest, cluster_id: int, name: str) -> HttpResponseBase:
    return get_object_or_404(HpcCluster, pk=cluster_id).fetch_remote_file(name)


@errors_as_responses
def listed(request: HttpRequest, job_id: int, name: str = "") -> HttpResponseBase:
    return JsonResponse(get_object_or_404(HpcJob, pk=job_id).fetch_remote_file_list(name))


settings.ROOT_URLCONF = __name__
urlpatterns = [
    path("sync/<int:job_id>/<path:name>", of_job),
    path("async/<int:job_id>/<path:name>", of_job_async),
    path("cluster/<int:cluster_id>/<path:name>", of_cluster),
    path("list/<int:job_id>/", listed),
    path("list/<int:job_id>/<path:name>", listed),
    path("admin/", admin.site.urls),
]


class Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class Handler(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep the log for what goes wrong."""


def main(port: int) -> None:
    """Serve by WSGI, a thread each."""
    server = wsgiref.simple_server.make_server("127.0.0.1", port, wsgi_application, Server, Handler)
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
