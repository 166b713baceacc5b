"""The application: the pages, what their scripts ask for, and the guard before all of it."""

import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from chainrule.app import lesson
from chainrule.app.answers.stored import AnswerStore
from chainrule.app.guard import Guard, choose_hosts
from chainrule.app.jobs.measuring import Measurer
from chainrule.app.jobs.queue import JobQueue
from chainrule.app.routes import (
    chain_page,
    explore_page,
    file_route,
    map_page,
    model_page,
    picture_route,
    remedy_route,
    runs_page,
    theory_route,
    training_route,
)
from chainrule.app.site import assets, pages

_LAST_SECONDS = 5.0
"""When an application ends: time for its work to notice that, so that none goes on without it."""


def create_app(
    *,
    host: str = "0.0.0.0",
    allowed_hosts: Iterable[str] = (),
    runs: str | os.PathLike[str] | None = None,
) -> FastAPI:
    """Return the explorer, an ASGI application for any server.

    It keeps no state between requests, so any number of workers can serve it, and it loads nothing
    from other hosts. Requests under a name that it does not know are refused, so that a page of
    another site cannot use it under a name of its own (DNS rebinding). When it ends, it gives up
    the work that is under way.

    Args:
        host: The address that the server listens on. It is served under this name, and under those
            of the machine itself. With 0.0.0.0 or :: any address in numbers is served too.
        allowed_hosts: Further names under which it is served, such as that of a proxy before it;
            "*" for every name.
        runs: Folder of training runs that the page Runs shows.

    Example:
        >>> create_app(allowed_hosts=["chainrule.example.org"]).title
        'chainrule'
    """
    queue, measurer, answers = JobQueue(), Measurer(), AnswerStore()

    @asynccontextmanager
    async def live(_: FastAPI) -> AsyncIterator[None]:
        queue.open()  # the application may have been started before
        try:
            yield
        finally:  # also where a server breaks it off
            queue.close()
        await run_in_threadpool(queue.join, _LAST_SECONDS)

    server = FastAPI(
        title="chainrule", docs_url=None, redoc_url=None, openapi_url=None, lifespan=live
    )
    server.state.queue = queue
    server.state.prepare = partial(explore_page.prepare_answers, measurer, answers)
    explore_page.register_routes(server, queue, measurer, answers)
    remedy_route.register_routes(server, queue)
    picture_route.register_routes(server, queue, measurer)
    runs_page.register_routes(server, None if runs is None else Path(runs))
    file_route.register_routes(server, queue, measurer)  # it takes every name that is left
    training_route.register_routes(server, queue)
    theory_route.register_routes(server, queue, measurer)
    lesson.register_routes(server, queue, measurer)
    chain_page.register_routes(server, queue, measurer)
    model_page.register_routes(server, queue)
    map_page.register_routes(server, queue)
    assets.register_routes(server)
    pages.register_routes(server)
    server.add_middleware(
        Guard, hosts=choose_hosts(host, allowed_hosts), script_hashes=pages.SCRIPT_HASHES
    )
    return server
