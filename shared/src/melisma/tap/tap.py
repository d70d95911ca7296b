"""The tap: singer-sdk's, with its output on melisma's protocol output and its faults in one line."""

from __future__ import annotations

import copy
from pathlib import PurePath
from types import FrameType
from typing import Any

import click
from singer_sdk import Tap
from singer_sdk.helpers.capabilities import PluginCapabilities
from singer_sdk.plugin_base import _ConfigInput
from singer_sdk.singerlib import Catalog

from melisma.cli import MelismaCommand
from melisma.config import CheckedConfig
from melisma.errors import Interrupted
from melisma.tap.batch_config import BATCH_CONFIG
from melisma.tap.catalog import read_catalog
from melisma.tap.output import MessageWriter, RepeatableStateWriter
from melisma.tap.state import check_state, read_object
from melisma.wire.output import claim_stdout, protocol_output

__all__ = ["ArrowTap"]


class ArrowTap(CheckedConfig, Tap):
    """A tap whose streams are `ArrowStream`s. Write `discover_streams`; the rest is as in any singer-sdk tap."""

    message_writer_class = MessageWriter

    def __init__(
        self,
        *,
        config: dict[str, Any] | PurePath | str | list[PurePath | str] | None = None,
        catalog: PurePath | str | dict[str, Any] | Catalog | None = None,
        state: PurePath | str | dict[str, Any] | None = None,
        parse_env_config: bool = False,
        validate_config: bool = True,
        setup_mapper: bool = True,
        message_writer: MessageWriter | None = None,
    ) -> None:
        super().__init__(
            config=config,
            catalog=read_catalog(catalog) if isinstance(catalog, dict) else catalog,
            state=state,
            parse_env_config=parse_env_config,
            validate_config=validate_config,
            setup_mapper=setup_mapper,
            message_writer=message_writer,
        )
        self._state_writer: RepeatableStateWriter = RepeatableStateWriter(self.message_writer)

    @property
    def state_writer(self) -> RepeatableStateWriter:
        """What all STATE messages of this tap go through."""
        return self._state_writer

    @classmethod
    def append_builtin_config(cls, config_jsonschema: dict[str, Any]) -> None:
        """As singer-sdk does, with more forms of BATCH files."""
        if PluginCapabilities.BATCH in cls.capabilities:
            config_jsonschema["properties"].setdefault("batch_config", copy.deepcopy(BATCH_CONFIG))
        super().append_builtin_config(config_jsonschema)

    def load_state(self, state: dict[str, Any]) -> None:
        """Start from a state.

        Raises:
            ConfigError: it is not one that this tap can have written.
        """
        check_state(state)
        super().load_state(state)

    def run_discovery(self) -> str:
        """Write the catalog to the protocol output and return it."""
        text = self.catalog_json_text
        output = protocol_output()
        output.write(f"{text}\n".encode())
        output.flush()
        return text

    @classmethod
    def invoke(cls, **kwargs: Any) -> None:
        """Run the tap as its command line asks; stdout carries the protocol and nothing else."""
        if kwargs.get("about"):
            super().invoke(**kwargs)
        for name in ("state", "catalog"):
            if kwargs.get(name) is not None:
                kwargs[name] = read_object(kwargs[name], f"--{name}")
        with claim_stdout():
            super().invoke(**kwargs)

    @classmethod
    def cb_test(cls, ctx: click.Context, param: click.Option, value: str) -> None:
        """Run as `--test` asks; stdout carries the protocol and nothing else."""
        with claim_stdout():
            super().cb_test(ctx, param, value)

    @classmethod
    def cb_discover(cls, ctx: click.Context, param: click.Option, value: bool) -> None:
        """Run as `--discover` asks; stdout carries the catalog and nothing else.

        Not singer-sdk's own, which ends with exit code 1 where the configuration is wrong.
        """
        del param
        if not value:
            return
        given = ctx.params.get("config", _ConfigInput())
        with claim_stdout():
            tap = cls(
                config=given.config,
                parse_env_config=given.parse_env,
                validate_config=cls.dynamic_catalog,
                setup_mapper=False,
            )
            tap.run_discovery()
        ctx.exit()

    @classmethod
    def get_singer_command(cls) -> click.Command:
        """singer-sdk's command line with melisma's way of failing."""
        return MelismaCommand.wrap(super().get_singer_command(), cls.logger)

    def _handle_termination(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002  singer-sdk's signature
        # singer-sdk prints the state here, perhaps in the middle of another line, and exits with 0. The bookmark of
        # everything that was written whole has been printed, or is printed by the next run.
        raise Interrupted(signum)
