"""Opening and closing a connection of the xArm SDK, with its traps taken out."""

import logging
import socket
import struct
import threading
from typing import Any

from horseshoe.hardware.arm_settings import ArmError

COMMAND_PORT = 502
PATIENCE = 2.0  # [s] to wait for the first answer


def _probe(ip: str) -> None:
    """Ask for the version once; the SDK would ask a controller that accepts but never answers for minutes."""
    with socket.create_connection((ip, COMMAND_PORT), PATIENCE) as connection:
        connection.sendall(struct.pack(">HHHB", 1, 2, 1, 1))
        if len(connection.recv(64)) < 8:
            raise OSError("connected, but closed without an answer")


def connect_sdk(ip: str, timeout: float, **options: Any) -> Any:
    """Open an SDK connection.

    Args:
        ip: address of the control box.
        timeout: of a call [s]; the SDK's own 2 s would stop the stream for as long.
        options: more arguments of `XArmAPI`.

    Raises:
        ArmError: if nobody answers.
    """
    before = socket.getdefaulttimeout()
    try:
        _probe(ip)
        from xarm.core.utils.log import logger
        from xarm.wrapper import XArmAPI

        logger.setLevel(logging.CRITICAL)  # every code is named by the driver, once
        # The SDK prefers a local socket in /tmp over any address, whoever made it.
        api = XArmAPI(ip, is_radian=True, forbid_uds=True, **options)
    except ModuleNotFoundError:
        raise
    except Exception as error:
        raise ArmError(
            f"no xArm controller answers at {ip} ({error}). To do: check power, network cable and that this computer "
            "has an address in the same network; to try without arms, run `horseshoe emulator`"
        ) from error
    finally:
        socket.setdefaulttimeout(before)  # the SDK sets one second for the whole process
    api.set_timeout(timeout)  # after connecting, which resets it
    return api


def disconnect_sdk(api: Any) -> None:
    """Close an SDK connection; returns within `PATIENCE`.

    The SDK closes its sockets first and then waits for its threads. The one that receives reports may never end: it
    looks whether its queue is full, and then waits for ever to take from it what another thread has just taken.
    """
    closing = threading.Thread(target=api.disconnect, name="sdk disconnect", daemon=True)
    closing.start()
    closing.join(PATIENCE)
