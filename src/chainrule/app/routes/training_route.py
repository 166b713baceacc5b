"""`GET /api/train`: a training as a stream of lines, one at a time, and a bounded queue.

What a training needs to know lives in its request alone: any number of worker processes can serve
it (each trains one network at a time), and a visitor who leaves ends it. The work itself is done
in a thread of the queue, never in the event loop.
"""

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from chainrule.app.answers.training_answer import describe_order, describe_training, read_order
from chainrule.app.jobs.measuring import count_entries
from chainrule.app.jobs.queue import Busy, JobQueue, Lane
from chainrule.app.routes.replies import refuse
from chainrule.app.routes.streams import LineResponse
from chainrule.errors import ChainruleError, SpecError


def register_routes(server: FastAPI, queue: JobQueue) -> None:
    """Answer `GET /api/train`.

    The answer is a stream of lines, each a JSON object with a `type`: "start" (what will be
    trained), "queued" (`ahead`: how many come first; whenever that changes), "step" (a record), at
    last "done", "diverged" or "error". Empty lines mean nothing. Refused are, as JSON with an
    `error`: 422 what cannot be trained, 503 when every seat is taken.

    Streams end early when the queue is closed.

    Args:
        server: Where to register.
        queue: Where the trainings wait.
    """

    @server.get("/api/train", include_in_schema=False)
    async def answer_training(request: Request) -> Response:
        try:
            order = read_order(request.url.query)
            start = await run_in_threadpool(describe_order, order)
            return LineResponse(
                start,
                lambda should_stop: describe_training(order, should_stop),
                queue,
                lane=Lane.TRAINING,
                size=count_entries(order.spec),
                noun="training",
            )
        except SpecError as error:
            return refuse(422, str(error))
        except (ChainruleError, Busy) as error:  # scikit-learn is missing; no seat is left
            return refuse(503, str(error))
