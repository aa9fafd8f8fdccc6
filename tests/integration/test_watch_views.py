"""The polling endpoint and the actions, through Django's test client."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.test import Client

from cq.web.tokens import watch_token
from tests.conftest import Layers
from tests.integration.test_access import Person, staff
from tests.integration.watching import Tree

ALL = ("progress", "tree", "log", "result", "error", "revoke", "retry")


@pytest.fixture
def tree(database: Any, use_layers: Layers) -> Tree:
    use_layers("none")
    return Tree()


def address(task: object, suffix: str = "watch") -> str:
    return f"/cq/t/{getattr(task, 'id', task)}/{suffix}"


def bearer(tree: Tree, *scopes: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {watch_token(tree.root, scopes or ALL)}"}


def poll(tree: Tree, since: int | None = None, **headers: str) -> Any:
    data = {} if since is None else {"since": since}
    return Client().get(address(tree), data, headers=headers or bearer(tree))


def frames(response: Any) -> dict[str, Any]:
    assert response.status_code == 200, response.content
    return {frame["type"]: frame for frame in response.json()["frames"]}


class TestWatch:
    def test_the_frames_of_the_socket(self, tree: Tree):
        tree.move("R")
        tree.log("one", "two", "three")
        response = poll(tree, since=1)
        found = frames(response)
        assert list(found) == ["snap", "log"]
        assert (found["snap"]["state"]["status"], found["snap"]["seq"]) == ("running", 3)
        assert [line["seq"] for line in found["log"]["lines"]] == [2, 3]
        assert response.json()["next_ms"] == 1000

    def test_the_end(self, tree: Tree):
        tree.move("S", result=[1, 2])
        response = poll(tree)
        assert frames(response)["end"]["result"] == [1, 2]
        assert response.json()["next_ms"] is None

    def test_no_end_while_something_of_the_tree_is_open(self, tree: Tree):
        child = tree.child()
        tree.move("S")
        assert "end" not in frames(poll(tree))
        tree.move("S", child)
        found = frames(poll(tree))
        assert "end" in found
        assert {node["id"] for node in found["snap"]["tree"]} == {str(tree.id), str(child.id)}

    def test_the_last_lines_without_since(self, tree: Tree):
        tree.log(*map(str, range(1, 301)))
        found = frames(poll(tree))
        assert (found["snap"]["since"], found["log"]["seq"]) == (100, 300)

    def test_a_since_from_the_future(self, tree: Tree):
        tree.log("1", "2")
        found = frames(poll(tree, since=10**9))
        assert (found["snap"]["reset"], found["snap"]["since"]) == (True, 0)
        assert len(found["log"]["lines"]) == 2

    def test_a_long_record_comes_in_pages(self, tree: Tree):
        tree.log(*map(str, range(1, 1501)))
        first = poll(tree, since=0)
        assert first.json()["next_ms"] == 0
        seq = frames(first)["log"]["seq"]
        assert frames(poll(tree, since=seq))["log"]["seq"] == 1500

    @pytest.mark.parametrize("since", ["-1", "abc", "1.5", "", "9" * 30, "\u0663"])
    def test_a_since_that_is_no_number(self, tree: Tree, since: str):
        response = Client().get(address(tree), {"since": since}, headers=bearer(tree))
        assert (response.status_code, response.json()["code"]) == (400, "bad_since")

    def test_nothing_new_is_a_304_until_something_is(self, tree: Tree):
        first = poll(tree, since=0)
        again = poll(tree, 0, **bearer(tree), **{"If-None-Match": first["ETag"]})
        assert (again.status_code, again.content, again["ETag"]) == (304, b"", first["ETag"])
        tree.log("news")
        assert poll(tree, 0, **bearer(tree), **{"If-None-Match": first["ETag"]}).status_code == 200

    def test_no_proxy_may_keep_it(self, tree: Tree):
        response = poll(tree)
        assert "no-store" in response["Cache-Control"]
        assert "Authorization" in response["Vary"]

    def test_a_child(self, tree: Tree):
        child = tree.child()
        tree.log("of the root")
        tree.log("of the child", task=child)
        tree.move("S", child)
        headers = {"Authorization": f"Bearer {watch_token(child, ALL)}"}
        found = frames(Client().get(address(child), {"since": 0}, headers=headers))
        assert [line["message"] for line in found["log"]["lines"]] == ["of the child"]
        assert found["end"]["state"]["status"] == "success"

    def test_scopes(self, tree: Tree):
        tree.log("secret")
        tree.child()
        tree.move("F", error="secret", result="secret")
        response = poll(tree, **bearer(tree, "progress"))
        assert list(frames(response)) == ["snap"]
        assert "secret" not in response.text


class TestAccess:
    def test_a_stranger_gets_the_404_of_a_task_that_is_not(self, tree: Tree):
        answers = [Client().get(address(task)) for task in (tree, uuid4())]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].json() == answers[1].json()

    def test_a_token_in_the_address_is_not_read(self, tree: Tree):
        token = watch_token(tree.root, ALL)
        assert Client().get(address(tree), {"token": token}).status_code == 404

    @pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", "Basic eDp5", "Bearer \u00e9"])
    def test_a_header_that_is_no_token(self, tree: Tree, header: str):
        assert Client().get(address(tree), headers={"Authorization": header}).status_code == 404

    def test_staff(self, tree: Tree):
        person = staff()
        assert person.client.get(address(tree)).status_code == 200

    @pytest.mark.parametrize("id", ["x", "1", "..", f"{uuid4()}x"])
    def test_an_id_that_is_none(self, database: Any, id: str):
        assert Client().get(f"/cq/t/{id}/watch").status_code == 404


class TestActions:
    def test_with_a_token(self, tree: Tree):
        strict = Client(enforce_csrf_checks=True)
        response = strict.post(address(tree, "revoke"), headers=bearer(tree, "revoke"))
        assert response.json() == {"type": "did", "id": str(tree.id), "do": "revoke"}
        tree.root.refresh_from_db()
        assert tree.root.status == "E"

    def test_with_a_session_it_needs_the_csrf_token(self, tree: Tree):
        person = Person("boss", "view_task", "revoke_task", is_staff=True)
        strict = Client(enforce_csrf_checks=True)
        strict.cookies = person.client.cookies
        assert strict.post(address(tree, "revoke")).status_code == 403
        assert person.client.post(address(tree, "revoke")).status_code == 200

    def test_a_forged_token_beside_a_session_does_not_lift_it(self, tree: Tree):
        person = Person("boss", "view_task", "revoke_task", is_staff=True)
        strict = Client(enforce_csrf_checks=True)
        strict.cookies = person.client.cookies
        # Only a page of this site can send the header, so the session's right is enough.
        response = strict.post(address(tree, "revoke"), headers={"Authorization": "Bearer x"})
        assert response.status_code == 200

    def test_without_the_scope(self, tree: Tree):
        response = Client().post(address(tree, "revoke"), headers=bearer(tree, "log"))
        assert response.status_code == 404
        tree.root.refresh_from_db()
        assert tree.root.status == "Q"

    def test_what_the_state_machine_does_not_allow(self, tree: Tree):
        response = Client().post(address(tree, "retry"), headers=bearer(tree, "retry"))
        assert (response.status_code, response.json()["code"]) == (409, "failed")

    @pytest.mark.parametrize("do", ["delete", "__class__", "watchx"])
    def test_another_word(self, tree: Tree, do: str):
        assert Client().post(address(tree, do), headers=bearer(tree)).status_code == 404

    def test_a_get_changes_nothing(self, tree: Tree):
        assert Client().get(address(tree, "revoke"), headers=bearer(tree)).status_code == 405
