"""Argument parser of the verbs that take no YAML keys."""

import argparse
from typing import NoReturn

from cerebro.errors import ConfigError


class VerbParser(argparse.ArgumentParser):
    """Parser whose mistakes are one line; descriptions and examples keep their line breaks."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise a ConfigError instead of printing the usage."""
        raise ConfigError(f"{message}; `{self.prog} --help` shows an example.")

    def options(self) -> list[str]:
        """Every ``--option`` of this verb."""
        return [option for option in self._option_string_actions if option.startswith("--")]
