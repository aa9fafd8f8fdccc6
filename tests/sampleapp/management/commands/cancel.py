"""Revoke a task from a process of its own, which a test may kill in the middle of it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand

from cq.workflow.revoke import revoke_now


class Command(BaseCommand):
    """`cancel ID`."""

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("id", type=UUID)

    def handle(self, *, id: UUID, **options: Any) -> None:
        revoke_now(id)
