"""Replies on disk, by key: one SQLite file, so that resuming a killed run is replaying it and judging again costs nothing."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

from forethought.errors import ForethoughtError
from forethought.flow import Logprobs
from forethought.records import Found, Reply
from forethought.run import explain_disk

PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
}


class DiskCache:
    """A key-value store of replies. Safe to kill at any moment: each `put` is one transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with explain_disk():
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, timeout=60)
            _log_ahead(self._db)
            self._db.execute("pragma synchronous=normal")
            self._db.execute(
                "create table if not exists replies (key text primary key, value text not null) without rowid"
            )
            self._db.commit()
        except sqlite3.DatabaseError as error:
            raise _unusable(path, "opened", error) from error

    def get(self, key: str) -> Reply | Logprobs | Found | None:
        try:
            row = self._db.execute("select value from replies where key = ?", (key,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise _unusable(self.path, "read", error) from error
        if row is None:
            return None
        value = json.loads(row[0])
        if "logprobs" in value:
            return Logprobs(tuple(value["logprobs"]), tuple(value["tokens"]))
        return Found.model_validate(value) if "reached" in value else Reply.model_validate(value)

    def put(self, rows: Iterable[tuple[str, Reply | Logprobs | Found]]) -> None:
        values = [(key, _dump(value)) for key, value in rows]
        if not values:
            return
        try:
            with self._db:
                self._db.executemany("insert or ignore into replies values (?, ?)", values)
        except sqlite3.DatabaseError as error:
            raise ForethoughtError(
                f"cannot write the reply cache {self.path}: {error}. Free some space and run the same command again."
            ) from error

    def close(self) -> None:
        self._db.close()


def _unusable(path: Path, what: str, error: sqlite3.DatabaseError) -> ForethoughtError:
    """A damaged file is to go. One that is locked, on a full disk or not ours is whole, and holds replies that may have been paid for."""
    passing = error.sqlite_errorcode & 0xFF in PASSING if hasattr(error, "sqlite_errorcode") else False
    mend = (
        "Free some space, check its permissions or wait, and run the same command again; it need not be removed."
        if passing
        else "Remove it to start afresh."
    )
    return ForethoughtError(f"the reply cache {path} cannot be {what} ({error}). {mend}")


def _log_ahead(db: sqlite3.Connection) -> None:
    """Put the file into write-ahead mode. Two processes that do so to a new file at once lock each other out, whatever the timeout."""
    for wait in (*[0.05] * 200, None):
        try:
            db.execute("pragma journal_mode=wal")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or wait is None:
                raise
            time.sleep(wait)


def _dump(value: Reply | Logprobs | Found) -> str:
    if isinstance(value, Reply | Found):
        return value.model_dump_json()
    return json.dumps({"logprobs": value.logprobs, "tokens": value.tokens})
