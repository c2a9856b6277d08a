"""The audit log: what was judged, by which policy, what was delivered; chained, so that nothing can be changed unseen.

In: verdicts. Out: records in a store (JSON Lines, SQLite, PostgreSQL), reports on whether they are whole. Without text
    unless the policy asks for it.
May import: `fulmen_core` (errors, files, guard), the rest of the package; psycopg in `postgresql_store` alone.
"""

from fulmen_safety.audit.log import AuditLog
from fulmen_safety.audit.record import finding_record

__all__ = ["AuditLog", "finding_record"]
