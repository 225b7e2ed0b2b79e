"""TCP server of an emulated controller: one thread, one event loop, a servo clock of 250 Hz.

The network can be made bad on purpose: stalls, lost and late replies, a cut cable.
"""

import asyncio
import random
import socket
import threading
import time
from collections.abc import Callable

from horseshoe.errors import HorseshoeError
from horseshoe.hardware.emulator import reports
from horseshoe.hardware.emulator.controller import Controller
from horseshoe.hardware.emulator.motion import DT
from horseshoe.hardware.emulator.protocol import Register, Request, encode_feedback, encode_reply, take_requests
from horseshoe.hardware.emulator.registers import MOTION_FINISH, answer

COMMAND_PORTS = (502, 503)
REPORTS: dict[int, tuple[Callable[[Controller], bytes], float]] = {  # port: content, rate [Hz]
    30001: (reports.normal, 5.0),
    30002: (reports.rich, 5.0),
    30003: (reports.real, 100.0),
}
CATCH_UP = 50  # servo cycles; after a longer pause of this process the emulated time stands still for the rest
AT_ONCE = 4  # cycles made up for before requests are looked at again


def _bind(host: str) -> dict[int, socket.socket]:
    """Listening sockets on all ports of a controller."""
    sockets: dict[int, socket.socket] = {}
    port = 0
    try:
        for port in (*COMMAND_PORTS, *REPORTS):
            sockets[port] = socket.socket()
            sockets[port].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sockets[port].bind((host, port))
            sockets[port].listen()
    except OSError as error:
        for each in sockets.values():
            each.close()
        hint = "is another emulator running on this address?"
        if isinstance(error, PermissionError):
            hint = "ports below 1024 need root or a network of your own: docs/emulator.md, 'Without root'"
        raise HorseshoeError(f"cannot listen on {host}:{port} ({error.strerror}); {hint}") from error
    return sockets


def cannot_bind(host: str = "127.0.0.1") -> str:
    """Why no controller can be emulated on `host`, or an empty string if it can."""
    try:
        for each in _bind(host).values():
            each.close()
    except HorseshoeError as error:
        return str(error)
    return ""


class ControllerServer:
    """Serves one controller on one address; a context manager.

    Args:
        controller: whose ticks and requests run in this server's thread.
        host: address to listen on, 127.0.0.1 for the left arm and 127.0.0.2 for the right by convention.
        seed: of the random loss of replies.

    Attributes:
        loss: share of replies that never leave, within [0, 1].
        delay: by which every reply is late [s].
    """

    def __init__(self, controller: Controller, host: str = "127.0.0.1", seed: int = 0) -> None:
        self.controller, self.host = controller, host
        self.loss, self.delay = 0.0, 0.0
        self._random = random.Random(seed)
        self._stalled_until, self._cut = 0.0, False
        self._clients: set[_CommandLink] = set()
        self._listeners: dict[int, set[asyncio.Transport]] = {port: set() for port in REPORTS}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"controller {host}", daemon=True)

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> "ControllerServer":
        """Listen and run.

        Raises:
            HorseshoeError: if a port cannot be had.
        """
        sockets = _bind(self.host)
        for port in COMMAND_PORTS:
            self._serve(sockets[port], lambda: _CommandLink(self))
        for port in REPORTS:
            self._serve(sockets[port], lambda port=port: _ReportLink(self._listeners[port]))  # type: ignore[misc]
        self._start = time.monotonic()
        self._loop.call_soon(self._tick)
        self._thread.start()
        return self

    def _serve(self, listening: socket.socket, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        self._loop.run_until_complete(self._loop.create_server(protocol, sock=listening))

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        for transport in self._transports():
            transport.abort()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def stop(self) -> None:
        """Close all connections and end the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def __enter__(self) -> "ControllerServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- faults, from any thread --------------------------------------------------------------------------------------

    def run(self, action: Callable[[Controller], object]) -> None:
        """Do something to the controller in its own thread and wait until it is done."""
        done = threading.Event()

        def act() -> None:
            try:
                action(self.controller)
            finally:
                done.set()

        self._loop.call_soon_threadsafe(act)
        done.wait()

    def stall(self, seconds: float = 0.19) -> None:
        """Answer and report nothing for a while, then everything that was asked meanwhile."""
        self._stalled_until = time.monotonic() + seconds

    def cut(self, on: bool = True) -> None:
        """Pull the cable, or plug it in again: nothing arrives and nothing leaves, but no connection is closed."""
        self._cut = on

    def drop_clients(self) -> None:
        """Close every connection, as a controller that is switched off does."""
        for transport in self._transports():
            self._loop.call_soon_threadsafe(transport.abort)

    def _transports(self) -> list[asyncio.Transport]:
        reports = [transport for listeners in self._listeners.values() for transport in listeners]
        return [link.transport for link in self._clients] + reports

    @property
    def quiet(self) -> bool:
        """Whether reports are held back."""
        return self._cut or time.monotonic() < self._stalled_until

    # --- the clock ----------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        controller = self.controller
        due = int((time.monotonic() - self._start) / DT) - controller.ticks
        if due > CATCH_UP:
            self._start += (due - CATCH_UP) * DT
        for _ in range(min(due, AT_ONCE)):
            controller.tick()
            for port, (content, rate) in REPORTS.items():
                listeners = self._listeners[port]
                # Rates do not divide 250 Hz evenly: report whenever the count of due reports goes up.
                if listeners and int(controller.ticks * rate * DT) != int((controller.ticks - 1) * rate * DT):
                    self._report(content(controller), listeners)
        self._loop.call_later(max(0.0, self._start + (controller.ticks + 1) * DT - time.monotonic()), self._tick)

    def _report(self, data: bytes, listeners: set[asyncio.Transport]) -> None:
        if not self.quiet:
            for transport in listeners:
                transport.write(data)

    # --- requests -----------------------------------------------------------------------------------------------------

    def receive(self, link: "_CommandLink", request: Request) -> None:
        """Handle a request, now or after a stall."""
        wait = self._stalled_until - time.monotonic()
        if self._cut or request.register == 0:  # register 0 is the SDK's heartbeat, which is not answered
            return
        if wait > 0:
            self._loop.call_later(wait, self.receive, link, request)
            return
        reply = answer(self.controller, request, link.notify if link.feedback & MOTION_FINISH else None)
        if request.register == Register.SET_FEEDBACK_TYPE:
            link.feedback = request.payload[0]
            reply = answer(self.controller, Request(0, 0, Register.CLEAN_WAR, b""), None)
        if self.loss and self._random.random() < self.loss:
            return
        data, delay = encode_reply(request, reply), reply.delay + self.delay
        if delay > 0:
            self._loop.call_later(delay, link.send, data)
        else:
            link.send(data)


class _CommandLink(asyncio.Protocol):
    """One client of the command port."""

    def __init__(self, server: ControllerServer) -> None:
        self.server, self.buffer, self.feedback = server, bytearray(), 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server._clients.add(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        for request in take_requests(self.buffer):
            self.server.receive(self, request)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server._clients.discard(self)

    def send(self, data: bytes) -> None:
        if not self.transport.is_closing() and not self.server._cut:
            self.transport.write(data)

    def notify(self, request: Request, code: int, microseconds: int) -> None:
        # After the reply to the same request, which is still being made when an idle controller reports "done".
        self.server._loop.call_soon(self.send, encode_feedback(request, MOTION_FINISH, code, microseconds))


class _ReportLink(asyncio.Protocol):
    """One client of a report port; it is only written to."""

    def __init__(self, listeners: set[asyncio.Transport]) -> None:
        self.listeners = listeners

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.listeners.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.listeners.discard(self.transport)
