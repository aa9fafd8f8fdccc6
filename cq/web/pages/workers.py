"""The workers: where they run, what they listen to, when they last beat, what they run."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from cq import conf
from cq.models import figures
from cq.models.sql import dialect
from cq.web.pages.overview import read_shared, strip
from cq.web.pages.place import Place, render


@require_GET
def workers(request: HttpRequest, place: Place) -> HttpResponse:
    """Every worker that lives, and those that ended within a day."""
    found = read_shared().workers if place.is_live else figures.workers(dialect())
    late = 2 * conf.current().heartbeat
    context = {
        "title": "Workers",
        "workers": [
            {
                **strip(worker),
                "is_late": worker.is_alive and worker.age > late,
                "links": [(task, place.task(task.id)) for task in worker.running],
            }
            for worker in found
        ],
        "lease": conf.current().lease,
    }
    return render(request, place, "cq/pages/workers.html", context)
