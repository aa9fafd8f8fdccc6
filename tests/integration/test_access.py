"""
Who gets in, who does not, and what a page may do to the server (B16, B24 to B32, P34).

A stranger must not learn whether a task exists: the same answer, whatever the id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.backends.db import SessionStore
from django.test import Client
from django.utils import timezone

from cq.models import Task
from cq.web.protocol import Limits
from cq.web.tokens import watch_token
from tests.conftest import Layers
from tests.integration.watching import Rows, Tree, is_accepted, page
from tests.integration.watching import rows as thread_for_rows

ALL = ("progress", "tree", "log", "result", "error", "revoke", "retry")


@pytest.fixture
def rows(database: Any, use_layers: Layers) -> Iterator[Rows]:
    use_layers("none")
    with thread_for_rows() as made:
        yield made


@pytest.fixture
async def tree(rows: Rows) -> Tree:
    made: Tree = await rows(Tree)
    return made


class Person:
    """A user with a session."""

    def __init__(self, name: str, *permissions: str, **fields: Any) -> None:
        self.user = User.objects.create_user(name, password="x", **fields)
        for codename in permissions:
            self.user.user_permissions.add(Permission.objects.get(codename=codename))
        client = Client()
        client.force_login(self.user)
        self.client = client
        self.session = client.cookies["sessionid"].value

    def log_out(self) -> None:
        self.client.logout()

    def change_password(self) -> None:
        self.user.set_password("y")
        self.user.save()

    def deactivate(self) -> None:
        User.objects.filter(pk=self.user.pk).update(is_active=False)

    def delete(self) -> None:
        self.user.delete()

    def expire(self) -> None:
        store = SessionStore(self.session)
        store.set_expiry(timezone.now() - timedelta(seconds=1))
        store.save()


def staff() -> Person:
    return Person("staff", "view_task", is_staff=True)


async def answer_to(task: object, session: str = "", **more: Any) -> dict[str, Any]:
    """The first frame after a subscription."""
    async with page(session=session) as visitor:
        await visitor.watch(task, **more)
        return await visitor.next()


class TestWhoMayWatch:
    async def test_a_stranger_gets_the_answer_of_a_task_that_is_not(self, tree: Tree):
        """P34."""
        refused = await answer_to(tree)
        unknown = await answer_to(uuid4())
        assert refused["code"] == "refused"
        for answer in (refused, unknown):
            del answer["id"]
        assert refused == unknown

    async def test_so_does_a_user_who_has_no_part_in_it(self, tree: Tree, rows: Rows):
        person = await rows(Person, "visitor")
        assert (await answer_to(tree, person.session))["code"] == "refused"

    async def test_staff_with_the_permission(self, tree: Tree, rows: Rows):
        person = await rows(staff)
        snap = await answer_to(tree, person.session)
        assert snap["scopes"] == ["error", "log", "progress", "tree"]

    async def test_each_further_right_has_its_own_permission(self, tree: Tree, rows: Rows):
        permissions = ("view_task", "view_task_payload", "revoke_task", "retry_task")
        person = await rows(Person, "boss", *permissions, is_staff=True)
        assert set((await answer_to(tree, person.session))["scopes"]) == set(ALL)

    async def test_staff_without_it_and_permission_without_staff(self, tree: Tree, rows: Rows):
        for person in (
            await rows(Person, "clerk", is_staff=True),
            await rows(Person, "user", "view_task"),
            await rows(Person, "half", "revoke_task", is_staff=True),
        ):
            assert (await answer_to(tree, person.session))["code"] == "refused"

    async def test_the_owner(self, rows: Rows):
        person = await rows(Person, "owner")
        other = await rows(Person, "other")
        own = await rows(Tree, owner=str(person.user.pk))
        assert (await answer_to(own, person.session))["scopes"] == ["log", "progress", "tree"]
        assert (await answer_to(own, other.session))["code"] == "refused"
        assert (await answer_to(own))["code"] == "refused"

    async def test_a_token_opens_one_task_as_far_as_its_scopes_go(self, tree: Tree, rows: Rows):
        other = await rows(Tree)
        token = watch_token(tree.root, ["log"])
        assert (await answer_to(tree, token=token))["scopes"] == ["log", "progress"]
        assert (await answer_to(other, token=token))["code"] == "refused"

    async def test_a_token_of_a_root_opens_its_tree_if_it_says_so(self, tree: Tree, rows: Rows):
        child = await rows(tree.child)
        assert (await answer_to(child, token=watch_token(tree.root)))["code"] == "refused"
        token = watch_token(tree.root, ["tree"])
        assert (await answer_to(child, token=token))["type"] == "snap"

    async def test_a_token_of_a_child_does_not_open_its_root(self, tree: Tree, rows: Rows):
        child = await rows(tree.child)
        assert (await answer_to(tree, token=watch_token(child, ALL)))["code"] == "refused"

    async def test_a_token_of_a_user_is_no_use_to_another(self, tree: Tree, rows: Rows):
        one, two = await rows(Person, "one"), await rows(Person, "two")
        token = watch_token(tree.root, user=one.user)
        assert (await answer_to(tree, one.session, token=token))["type"] == "snap"
        assert (await answer_to(tree, two.session, token=token))["code"] == "refused"
        assert (await answer_to(tree, token=token))["code"] == "refused"

    @pytest.mark.parametrize("token", ["forged", "a:b:c", "\u00e9", "x" * 1000])
    async def test_a_forged_token(self, tree: Tree, token: str):
        assert (await answer_to(tree, token=token))["code"] == "refused"

    async def test_a_token_that_has_ended_says_so_for_its_own_task_alone(
        self, tree: Tree, rows: Rows
    ):
        other = await rows(Tree)
        token = watch_token(tree.root, ttl=-1)
        assert (await answer_to(tree, token=token))["code"] == "expired"
        assert (await answer_to(other, token=token))["code"] == "refused"
        assert (await answer_to(uuid4(), token=token))["code"] == "refused"

    async def test_a_bad_token_takes_nothing_from_staff(self, tree: Tree, rows: Rows):
        person = await rows(staff)
        assert (await answer_to(tree, person.session, token="forged"))["type"] == "snap"

    async def test_a_token_of_a_pruned_task(self, tree: Tree, rows: Rows):
        token = watch_token(tree.root)
        await rows(Task.objects.all().delete)
        assert (await answer_to(tree, token=token))["code"] == "gone"

    async def test_a_token_in_the_address_is_not_read(self, tree: Tree):
        """B26."""
        url = f"/cq/ws?token={watch_token(tree.root, ALL)}"
        async with page(url=url) as visitor:
            await visitor.watch(tree)
            assert (await visitor.next())["code"] == "refused"

    @pytest.mark.parametrize(
        "end", ["log_out", "change_password", "deactivate", "delete", "expire"]
    )
    async def test_a_session_that_has_ended_opens_nothing(self, tree: Tree, rows: Rows, end: str):
        """B25."""
        person = await rows(staff)
        await rows(getattr(person, end))
        assert (await answer_to(tree, person.session))["code"] == "refused"

    @pytest.mark.parametrize(
        "end", ["log_out", "change_password", "deactivate", "delete", "expire"]
    )
    async def test_an_open_socket_is_closed_when_its_session_ends(
        self, tree: Tree, rows: Rows, end: str
    ):
        """B25, P34."""
        person = await rows(staff)
        limits = Limits(reauthorise=0.1, tick=0.05)
        async with page(session=person.session, limits=limits) as visitor:
            await visitor.watch(tree)
            await visitor.until("snap")
            await rows(getattr(person, end))
            assert (await visitor.until("bye"))["reason"] == "the session has ended"
            assert await visitor.next() == {"type": "close", "code": 4008}

    async def test_a_right_that_is_taken_away_ends_the_subscription(self, tree: Tree, rows: Rows):
        person = await rows(staff)
        limits = Limits(reauthorise=0.1, tick=0.05)
        async with page(session=person.session, limits=limits) as visitor:
            await visitor.watch(tree)
            await visitor.until("snap")
            await rows(person.user.user_permissions.clear)
            assert (await visitor.until("err"))["code"] == "refused"
            await rows(tree.log, "secret")
            assert await visitor.is_quiet()

    async def test_a_token_that_ends_while_it_is_used(self, tree: Tree):
        limits = Limits(reauthorise=0.1, tick=0.05)
        async with page(limits=limits) as visitor:
            await visitor.watch(tree, token=watch_token(tree.root, ttl=1.2))
            await visitor.until("snap")
            assert (await visitor.until("err"))["code"] == "expired"


class TestOrigin:
    """B24."""

    @pytest.mark.parametrize(
        "origin",
        [
            None,
            b"",
            b"null",
            b"http://evil.example",
            b"https://testserver.evil.example",
            b"http://nottestserver",
            b"testserver",
            b"file://testserver",
            b"http://",
            b"http://testserver:notaport",
            b"http://[::1",
            b"\xff\xfe",
        ],
    )
    async def test_a_foreign_page_is_refused_before_the_handshake_ends(
        self, rows: Rows, origin: bytes | None
    ):
        assert not await is_accepted(origin=origin)

    @pytest.mark.parametrize("origin", [b"http://testserver", b"https://testserver:8443"])
    async def test_a_page_of_this_site(self, rows: Rows, origin: bytes):
        assert await is_accepted(origin=origin)

    @pytest.mark.parametrize(
        ("origin", "accepted"),
        [
            (b"http://testserver", True),
            (b"http://testserver:80", True),
            (b"https://testserver", True),
            (b"http://testserver:8000", False),
            (b"http://evil.example", False),
            (b"null", False),
            (None, False),
        ],
    )
    async def test_every_host_allowed_still_means_the_page_of_the_host_that_is_asked(
        self, rows: Rows, settings: Any, origin: bytes | None, accepted: bool
    ):
        settings.ALLOWED_HOSTS = ["*"]
        assert await is_accepted(origin=origin) is accepted

    async def test_another_protocol_is_refused(self, rows: Rows):
        assert not await is_accepted(subprotocols=())
        assert not await is_accepted(subprotocols=("cq.v0", "graphql-ws"))
        assert await is_accepted(subprotocols=("graphql-ws", "cq.v1"))


class TestFloods:
    async def test_five_frames_outside_the_protocol_are_answered_then_it_is_over(self, rows: Rows):
        """B27."""
        async with page() as visitor:
            for text in ("{", '{"type":"_close"}', '{"type":"_on_sub"}', "[]"):
                await visitor.send_text(text)
            await visitor.send_bytes(b"\x00")
            codes = [(await visitor.next())["code"] for _ in range(5)]
            assert codes == ["bad_frame", "unknown_type", "unknown_type", "bad_frame", "bad_frame"]
            await visitor.until("bye")
            assert await visitor.next() == {"type": "close", "code": 4008}

    async def test_a_frame_that_is_too_large(self, rows: Rows):
        """B28."""
        async with page() as visitor:
            await visitor.send_text(json.dumps({"type": "ping", "x": "y" * 5000}))
            await visitor.until("bye")
            assert await visitor.next() == {"type": "close", "code": 4008}

    async def test_too_many_frames_a_second(self, rows: Rows):
        """B28."""
        async with page() as visitor:
            for _ in range(200):
                await visitor.send(type="ping")
            await visitor.until("bye")
            assert await visitor.next() == {"type": "close", "code": 4008}
            assert visitor.types().count("pong") <= 90

    async def test_acks_that_move_nothing_count_as_well(self, rows: Rows):
        async with page() as visitor:
            for _ in range(200):
                await visitor.send(type="ack", frame=1)
            assert (await visitor.until("bye"))["reason"] == "too many frames a second"

    async def test_too_many_subscriptions(self, tree: Tree, rows: Rows):
        """B29."""
        token = watch_token(tree.root, ["tree"])
        children = [await rows(tree.child) for _ in range(3)]
        async with page(limits=Limits(subscriptions=2)) as visitor:
            for child in children:
                await visitor.watch(child, token=token)
            error = await visitor.until("err")
            assert (error["code"], error["id"]) == ("too_many", str(children[2].id))
            await visitor.send(type="unsub", id=str(children[0].id))
            await visitor.watch(children[2], token=token)
            while (await visitor.until("snap"))["id"] != str(children[2].id):
                pass

    async def test_too_many_sockets_of_one_user(self, rows: Rows):
        """B29."""
        person = await rows(Person, "eager")
        limits = Limits(sockets_per_user=2)
        options: dict[str, Any] = {"session": person.session, "limits": limits}
        async with page(**options), page(**options):
            async with page(**options) as third:
                assert (await third.until("bye"))["reason"] == "too many sockets of one user"
                assert await third.next() == {"type": "close", "code": 4008}
            async with page(limits=limits) as stranger:
                await stranger.send(type="ping")
                await stranger.until("pong")
        async with page(**options) as later:
            await later.send(type="ping")
            await later.until("pong")

    async def test_a_socket_that_watches_nothing(self, rows: Rows):
        async with page(limits=Limits(idle=0.1, tick=0.05)) as visitor:
            assert (await visitor.until("bye"))["reason"] == "nothing is watched"
            assert await visitor.next() == {"type": "close", "code": 1000}

    @pytest.mark.parametrize("id", ["a b", "\u00e9", "../../etc", "cq.root.x", ""])
    async def test_an_id_that_would_be_no_name_of_a_group(self, rows: Rows, id: str):
        """B32."""
        assert (await answer_to(id))["code"] == "bad_id"

    async def test_hostile_text_travels_as_text(self, tree: Tree, rows: Rows):
        """B16, B21: it is the page that shows text as text."""
        hostile = "<img src=x onerror=alert(1)>\u202e\x1b[31m\"'</script>"
        await rows(tree.log, hostile)
        async with page() as visitor:
            await visitor.watch(tree, token=watch_token(tree.root, ALL), since=0)
            await visitor.until_line(1)
            assert visitor.lines()[0]["message"] == hostile


class TestActions:
    async def test_revoke_with_the_scope(self, tree: Tree, rows: Rows):
        async with page() as visitor:
            await visitor.watch(tree, token=watch_token(tree.root, ALL))
            await visitor.until("snap")
            await visitor.send(
                type="act", id=str(tree.id), do="revoke", token=watch_token(tree.root, ["revoke"])
            )
            end = await visitor.until("end")
            assert end["state"]["status"] == "revoked"
            assert "did" in visitor.types()

    async def test_retry_of_what_has_ended_needs_no_subscription(self, tree: Tree, rows: Rows):
        await rows(tree.move, "F", error="x")
        async with page() as visitor:
            await visitor.send(
                type="act", id=str(tree.id), do="retry", token=watch_token(tree.root, ["retry"])
            )
            assert (await visitor.next())["type"] == "did"
        await rows(tree.root.refresh_from_db)
        assert tree.root.status == "Q"

    async def test_what_the_state_machine_does_not_allow(self, tree: Tree):
        async with page() as visitor:
            await visitor.send(
                type="act", id=str(tree.id), do="retry", token=watch_token(tree.root, ["retry"])
            )
            error = await visitor.next()
            assert (error["code"], error["retryable"]) == ("failed", False)

    @pytest.mark.parametrize("do", ["revoke", "retry"])
    async def test_seeing_is_not_doing(self, tree: Tree, rows: Rows, do: str):
        person = await rows(staff)
        token = watch_token(tree.root, ["progress", "tree", "log", "result", "error"])
        for session, bearer in ((person.session, None), ("", token), ("", None)):
            async with page(session=session) as visitor:
                await visitor.send(type="act", id=str(tree.id), do=do, token=bearer)
                assert (await visitor.next())["code"] == "refused"
        await rows(tree.root.refresh_from_db)
        assert tree.root.status == "Q"
