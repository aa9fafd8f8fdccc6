"""A print from the form to the report, without a worker: `drain()` runs what is due."""

import io
import re
import tempfile
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import TestCase, override_settings
from django.urls import reverse
from django.utils import timezone
from PIL import Image

from cq.models import RepeatingTask, Task
from cq.testing import drain
from cq.web.tokens import read_token
from picture import files, painting, readers, uploads
from picture.models import Beat, Picture
from picture.tasks import hang_wall, heartbeat, make_print


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


class TornTests(DemoTestCase):
    """The planned failure, and its repair."""

    def torn(self) -> Picture:
        picture = self.printed(sample="dunes", torn="on")
        assert Task.objects.get(pk=picture.root).status == Task.STATUS_INCOMPLETE
        return picture

    def test_the_torn_tile_alone_fails_after_three_attempts(self) -> None:
        picture = self.torn()
        failed = Task.objects.get(parent=picture.root, status=Task.STATUS_FAILURE)
        assert failed.args[3:] == [5, 5]
        assert failed.attempts == 3
        assert "The paper of tile 5-5 is torn" in (failed.error or "")
        assert not picture.folder.finished.exists()
        assert b'id="mend"' in self.fetch("picture", picture.pk).content

    def test_mended_only_what_failed_is_printed_again(self) -> None:
        picture = self.torn()
        ends = dict(Task.objects.filter(status="S").values_list("pk", "finished"))
        for _ in range(2):  # a second press finds it in print, and changes nothing
            with self.captureOnCommitCallbacks(execute=True):
                response = self.client.post(reverse("mend", args=[picture.pk]))
            self.assertRedirects(response, picture.get_absolute_url())
        drain(now=timedelta(minutes=1))
        whole = files.read(picture.folder.source)
        finished = files.read(picture.folder.finished)
        assert finished.tobytes() == painting.print_whole(whole).tobytes()
        assert dict(Task.objects.filter(pk__in=ends).values_list("pk", "finished")) == ends
        assert picture.folder.report.exists()


class WallTests(DemoTestCase):
    """Coalescing: presses that come early share a run."""

    def press(self) -> dict[str, Any]:
        with self.captureOnCommitCallbacks(execute=True):
            answer = self.client.post(reverse("wall"), headers={"Accept": "application/json"})
        found: dict[str, Any] = answer.json()
        return found

    def test_five_presses_are_one_run(self) -> None:
        presses = [self.press() for _ in range(5)]
        assert [press["merged"] for press in presses] == [False, True, True, True, True]
        assert len({press["task"] for press in presses}) == 1
        drain(now=timedelta(minutes=1))
        assert self.press()["merged"] is False
        assert Task.objects.filter(func_name=hang_wall.name).count() == 2

    def test_the_wall_shows_the_prints(self) -> None:
        files.wall().unlink(missing_ok=True)
        assert self.fetch("wall-picture").status_code == 404
        self.printed(upload=png())
        self.assertRedirects(self.client.post(reverse("wall")), reverse("index"))
        drain(now=timedelta(minutes=1))
        assert self.fetch("wall-picture").headers["Content-Type"] == "image/png"


class ReaderTests(DemoTestCase):
    """Two readers of one page, with tokens of different scopes."""

    def claims(self, picture: Picture) -> Any:
        """Read the token of the page as the client that is here now gets it."""
        page = self.fetch("picture", picture.pk).content.decode()
        found = re.search(r'<cq-task[^>]* token="([^"]+)"', page)
        assert found is not None
        self.token = found[1]
        return read_token(found[1])

    def enter(self, name: str, back: str = "/") -> Any:
        return self.client.post(reverse("enter"), {"reader": name, "next": back})

    def test_each_gets_a_token_of_their_own(self) -> None:
        picture = self.printed(upload=png())
        visitor = self.claims(picture)
        assert (visitor.user, visitor.scopes) == (None, {"progress", "tree", "log", "revoke"})
        self.assertRedirects(
            self.enter("customer", picture.get_absolute_url()), picture.get_absolute_url()
        )
        customer = self.claims(picture)
        assert customer.scopes == {"progress"}
        self.enter("printer")
        printer = self.claims(picture)
        assert printer.scopes == {"progress", "tree", "log", "error", "revoke", "retry"}
        assert None not in {customer.user, printer.user}
        assert customer.user != printer.user
        self.enter("")
        assert self.claims(picture).user is None

    def test_the_token_of_another_reader_opens_nothing(self) -> None:
        picture = self.printed(upload=png())
        self.enter("printer")
        self.claims(picture)
        stolen = {"Authorization": f"Bearer {self.token}"}
        address = reverse("cq:watch", args=[picture.root])
        assert self.client.get(address, headers=stolen).status_code == 200
        self.enter("customer")
        refused = self.client.get(address, headers=stolen)
        assert refused.status_code in {403, 404}
        assert "frames" not in refused.json()

    def test_nobody_becomes_admin_this_way_and_nobody_is_led_astray(self) -> None:
        get_user_model().objects.create_superuser("admin", password="x")
        self.assertRedirects(self.enter("admin", "https://evil.example/"), reverse("index"))
        assert "_auth_user_id" not in self.client.session
        assert not get_user_model().objects.filter(username="customer").exists()
        assert not readers.account("customer").has_usable_password()


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
