"""
The key that signs the demo's tokens: made once, kept in the data folder.

All processes of one demo share the folder, so they share the key, and a page that was
open before a restart stays valid after it.
"""

import os
import secrets
from pathlib import Path


def secret_key(path: Path) -> str:
    """Return the key in `path`; the first process to ask writes it, readable by its owner."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(50))
        try:
            # A link appears whole or not at all, and never replaces another process's key.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text()
