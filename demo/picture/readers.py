"""
Two readers, who may see different parts of the same print.

Enters: the user of a request. Leaves: what the page shows them, which is also what the
token in the page is good for: `{% cq_task %}` signs one for just that, and for this user.
They have accounts without a password; a button of the demo enters as one of them.
"""

from dataclasses import dataclass

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

BACKEND = "django.contrib.auth.backends.ModelBackend"


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads, what the element shows them, and which buttons they have."""

    title: str
    says: str
    show: str
    actions: str

    @property
    def sees_tree(self) -> bool:
        """Whether the tiles may be told apart."""
        return "tree" in self.show


VISITOR = Reader("Visitor", "the bar, the log and every task", "bar log tree", "revoke")
READERS = {
    "customer": Reader("Customer", "the bar alone", "bar", ""),
    "printer": Reader("Printer", "everything, with buttons", "bar log tree error", "revoke retry"),
}


def present(user: AbstractBaseUser | AnonymousUser) -> Reader:
    """Return the reader that a user is; everybody else is a visitor."""
    return READERS.get(user.get_username(), VISITOR)


def account(name: str) -> AbstractBaseUser:
    """Return the account of a reader, which nobody can enter with a password."""
    user, is_new = get_user_model().objects.get_or_create(username=name)
    if is_new:
        user.set_unusable_password()
        user.save()
    return user
