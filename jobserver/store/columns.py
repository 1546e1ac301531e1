"""Column types, with what each database needs to treat them alike: the only place that knows dialects of columns."""

from __future__ import annotations

from sqlalchemy import BigInteger, Integer, String, Text
from sqlalchemy.dialects import mysql

# MySQL and MariaDB compare text without regard to case and to trailing blanks unless told otherwise; names, keys and
# tokens must be compared byte by byte everywhere. What the columns really have is made in `migrations/steps.py`, as the
# collation that does so has another name in each of them.
_EXACT = "utf8mb4_bin"


def exact(length: int) -> String:
    """Text of bounded length that is compared byte by byte and can be indexed."""
    variant = mysql.VARCHAR(length, charset="utf8mb4", collation=_EXACT)
    return String(length).with_variant(variant, "mysql", "mariadb")


def document() -> Text:
    """JSON or other text without a bound (MySQL's TEXT ends at 64 KiB)."""
    variant = mysql.LONGTEXT(charset="utf8mb4", collation=_EXACT)
    return Text().with_variant(variant, "mysql", "mariadb")


def instant() -> BigInteger:
    """A time as microseconds since 1970 in UTC: sortable, exact, and the same in every database."""
    return BigInteger()


def counter() -> BigInteger:
    """A number that the database counts up. SQLite counts up its own row numbers only, which are INTEGER."""
    return BigInteger().with_variant(Integer(), "sqlite")
