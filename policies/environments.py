"""Environments of policies, made by their names: `horseshoe.sim` registers them when Gymnasium imports it."""

from pathlib import Path
from typing import Any

import gymnasium as gym

from horseshoe.errors import ConfigurationError, HorseshoeError


def make(env: str, file: Path | None, settings: str, **kwargs: Any) -> gym.vector.VectorEnv[Any, Any, Any]:
    """A natively vectorised environment.

    Args:
        env: its name, such as "horseshoe/UShape-v0".
        file: where the name was read, or None.
        settings: what to call its configuration in an error.
        kwargs: those of the environment.

    Raises:
        HorseshoeError: there is no such environment, or its configuration is wrong.
    """
    try:
        return gym.make_vec(f"horseshoe.sim:{env}", vectorization_mode="vector_entry_point", **kwargs)
    except gym.error.UnregisteredEnv as error:
        known = ", ".join(sorted(name for name in gym.registry if name.startswith("horseshoe/")))
        raise ConfigurationError(file, "env", f"'{env}' is unknown; choose from {known}") from error
    except ConfigurationError as error:
        raise HorseshoeError(f"{settings}: {error}") from error
