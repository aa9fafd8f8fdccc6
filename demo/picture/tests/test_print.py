"""A print from the form to the report, without a worker: `drain()` runs what is due."""

import io
import re
import tempfile
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import TestCase, override_settings
from django.urls import reverse
from django.utils import timezone
from PIL import Image

from cq.models import RepeatingTask, Task
from cq.testing import drain
from picture import files, painting, uploads
from picture.models import Beat, Picture
from picture.tasks import heartbeat, make_print


def png(width: int = 160, height: int = 120) -> SimpleUploadedFile:
    """Return an upload whose pixels have no order at all."""
    picture = Image.frombytes("RGB", (width, height), Random(9).randbytes(width * height * 3))
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return SimpleUploadedFile("made-up.png", file.getvalue(), "image/png")


class DemoTestCase(TestCase):
    """A test with a folder of its own, in which nothing waits to be watched."""

    folder: ClassVar[tempfile.TemporaryDirectory[str]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.enterClassContext(override_settings(MEDIA_ROOT=cls.folder.name, DEMO_PACE=0))

    def fetch(self, name: str, *args: object) -> Any:
        """Get an address and let go of the file it may send."""
        response = self.client.get(reverse(name, args=args))
        self.addCleanup(response.close)
        return response

    def assert_tiles(self, picture: Picture, state: str) -> None:
        """Check that the page shows every tile of the picture in this state."""
        page = self.fetch("picture", picture.pk).content.decode()
        shown = re.findall(r'class="tile" id="tile-[\d-]+" data-state="(\w+)"', page)
        assert shown == [state] * len(picture.grid)

    def printed(self, **form: object) -> Picture:
        """Send the form and run everything that follows from it."""
        with self.captureOnCommitCallbacks(execute=True):
            response = self.client.post(reverse("index"), form)
        picture = Picture.objects.get()
        self.assertRedirects(response, picture.get_absolute_url(), fetch_redirect_response=False)
        drain(now=timedelta(minutes=1))
        return picture


class PrintTests(DemoTestCase):
    """What becomes of a picture."""

    def test_an_upload_is_printed_and_reported(self) -> None:
        picture = self.printed(upload=png())
        whole = files.read(picture.folder.source)
        finished = files.read(picture.folder.finished)
        assert finished.tobytes() == painting.print_whole(whole).tobytes()
        tasks = Task.objects.filter(parent=picture.root)
        assert len(tasks) == len(picture.grid)
        assert {task.status for task in tasks} == {Task.STATUS_SUCCESS}
        assert sorted(task.attempts for task in tasks)[-2:] == [1, 2]
        assert "The report is written." in Task.objects.get(pk=picture.root).format_logs()

    def test_every_address_of_a_print_answers(self) -> None:
        picture = self.printed(sample="dunes")
        places = self.fetch("places", picture.pk).json()
        assert len(places) == len(picture.grid)
        assert set(places.values()) == {tile.name for tile in picture.grid}
        for name in ("finished", "report"):
            assert self.fetch(name, picture.pk).status_code == 200
        tile = self.fetch("tile", picture.pk, 0, 0)
        assert tile.headers["Content-Type"] == "image/png"
        assert self.fetch("tile", picture.pk, 99, 0).status_code == 404
        self.assert_tiles(picture, "success")

    def test_a_page_before_the_first_task_shows_every_tile_as_pending(self) -> None:
        with self.captureOnCommitCallbacks():
            self.client.post(reverse("index"), {"sample": "city"})
        picture = Picture.objects.get()
        self.assert_tiles(picture, "pending")
        assert self.fetch("finished", picture.pk).status_code == 404

    def test_a_page_outlives_its_tasks(self) -> None:
        picture = self.printed(upload=png())
        Task.objects.all().delete()
        self.assert_tiles(picture, "success")


class FormTests(DemoTestCase):
    """What the form answers when there is nothing to print."""

    def refused(self, **form: object) -> str:
        response = self.client.post(reverse("index"), form)
        assert not Picture.objects.exists()
        assert not Task.objects.exists()
        assert list(Path(self.folder.name).iterdir()) == []
        return str(response.context["error"])

    def test_nothing_chosen(self) -> None:
        assert self.refused().startswith("No picture was chosen:")
        assert self.refused(sample="../secret-key").startswith("No picture was chosen:")

    def test_no_picture(self) -> None:
        upload = SimpleUploadedFile("notes.txt", b"no picture", "text/plain")
        assert "“notes.txt” is not a picture" in self.refused(upload=upload)
        empty = SimpleUploadedFile("empty.png", b"", "image/png")
        assert "“empty.png” is not a picture" in self.refused(upload=empty)

    def test_too_large(self) -> None:
        upload = SimpleUploadedFile("large.png", b"\0" * (uploads.MAX_BYTES + 1), "image/png")
        assert "pictures up to 12 MB can be printed" in self.refused(upload=upload)
        much_larger = SimpleUploadedFile("huge.png", b"\0" * (uploads.MAX_BYTES + 200_000))
        assert "pictures up to 12 MB can be printed" in self.refused(upload=much_larger)


class HeartbeatTests(DemoTestCase):
    """The repeating task beside the prints."""

    def test_the_migration_scheduled_it_once(self) -> None:
        entry = RepeatingTask.objects.get(func_name=heartbeat.name)
        assert entry.crontab == "* * * * *"
        assert entry.next_run is not None

    def test_it_notes_the_minute(self) -> None:
        drain(now=timedelta(minutes=2))
        assert Beat.objects.exists()

    def test_it_clears_away_old_pictures(self) -> None:
        picture = self.printed(upload=png())
        Picture.objects.update(created=timezone.now() - timedelta(days=2))
        assert heartbeat() == 1
        assert not picture.folder.path.exists()
        assert not Picture.objects.exists()

    def test_a_task_of_a_picture_that_is_gone_fails_with_its_name(self) -> None:
        task = make_print.delay("00000000-0000-0000-0000-000000000000")
        drain()
        task.refresh_from_db()
        assert task.status == Task.STATUS_FAILURE
        assert "Picture matching query does not exist" in (task.error or "")


class SampleTests(DemoTestCase):
    """The folder of the demo's own pictures, as the form offers them."""

    def test_the_index_offers_every_sample(self) -> None:
        page = self.fetch("index")
        for path in Path(settings.SAMPLES).glob("*.jpg"):
            self.assertContains(page, f'value="{path.stem}"')
            image = self.fetch("sample", path.stem)
            assert image.headers["Content-Type"] == "image/jpeg"
