"""The tap: which streams there are, and their columns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from singer_sdk import Tap
from singer_sdk.helpers.capabilities import TapCapabilities

from melisma.tap.follow import LogTap
from melisma_tap_postgres.settings import CONFIG

if TYPE_CHECKING:
    from melisma_tap_postgres.log import PostgresLog
    from melisma_tap_postgres.read import TableStream
    from melisma_tap_postgres.server import Server

__all__ = ["TapPostgres"]


class TapPostgres(LogTap):
    """Singer tap for PostgreSQL: tables and views, whole, by a replication key, or by the log."""

    name = "tap-postgres"
    package_name = "melisma-tap-postgres"
    config_jsonschema: ClassVar[dict[str, Any]] = CONFIG
    # A replication key says where to start; it need not be a date.
    capabilities: ClassVar = [
        *(each for each in Tap.capabilities if each.name != "START_DATE"),
        TapCapabilities.LOG_BASED,
    ]
    dynamic_catalog = True

    def discover_streams(self) -> Sequence[TableStream]:
        """The tables and views that the user may read, with the columns of the catalog where one is given."""
        from melisma.tap.relation import relation_streams
        from melisma_tap_postgres.discover import find_relations
        from melisma_tap_postgres.read import TableStream

        return relation_streams(
            self,
            lambda: find_relations(self._server, self.config),
            lambda relation, schema: TableStream(self, self._server, relation, schema),
        )

    def change_log(self) -> PostgresLog:
        """The database's own log, through one replication slot."""
        from melisma_tap_postgres.log import PostgresLog

        return PostgresLog(self._server, self.config, settled=self.input_catalog is not None)

    def close(self) -> None:
        """End the connection, if there is one; who uses the tap in a process of its own need not."""
        if "_server" in self.__dict__:
            self._server.close()

    @cached_property
    def _server(self) -> Server:
        from melisma_tap_postgres.server import Server

        return Server(self.config)


if __name__ == "__main__":
    TapPostgres.cli()
