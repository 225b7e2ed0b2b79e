"""What operators of all systems share: bringing lifecycle nodes up, calling services, waiting, saying what happens."""

import threading
import time
from collections.abc import Callable
from typing import Any

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import Trigger

from horseshoe.errors import HorseshoeError
from horseshoe.ros_ws.base_node import LATCHED, parameter

CONFIGURE, ACTIVATE, DEACTIVATE = (
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_ACTIVATE,
    Transition.TRANSITION_DEACTIVATE,
)
VERBS = {CONFIGURE: "configure", ACTIVATE: "activate", DEACTIVATE: "deactivate"}
REACHED = {
    CONFIGURE: State.PRIMARY_STATE_INACTIVE,
    ACTIVATE: State.PRIMARY_STATE_ACTIVE,
    DEACTIVATE: State.PRIMARY_STATE_INACTIVE,
}
DONE, FAULT, REFUSED = 0, 1, 2  # exit codes
ACQUAINTANCE = 0.3  # [s] that a node just found gets to find us: an answer to somebody unknown is lost
LATE = 2.0  # [s] after which an answer may be lost all the same, and the node is asked for its state


class BaseOperator(Node):
    """A thread works through `_steps`; the executor only moves messages.

    Attributes:
        exit_code: None while it works.
        outcomes: of all episodes so far.
    """

    def __init__(self) -> None:
        super().__init__("operator")
        self._patience = parameter(self, "patience", 30.0, "How long a step may take [s].", 1.0, 1e5)
        self.exit_code: int | None = None
        self.outcomes: list[dict[str, Any]] = []
        self._states: dict[str, str] = {}  # what the nodes last said, by the first part of their names
        self._closing = threading.Event()
        self._callers: dict[str, Any] = {}
        self._known: set[str] = set()  # nodes that have found this one
        self._progress = self.create_publisher(String, "~/progress", LATCHED)
        self._thread = threading.Thread(target=self._work, name="operator", daemon=True)

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join(2.0)

    def _steps(self) -> None:
        """What this operator does."""
        raise NotImplementedError

    def _fail(self, error: HorseshoeError) -> None:
        """What must happen at once when a step failed."""

    def _check(self) -> None:
        """Raise what makes waiting pointless."""
        refused = next((s for s in self._states.values() if s.startswith("refused")), "")
        if refused:
            raise _Refused(refused)

    def _work(self) -> None:
        code = FAULT
        try:
            self._steps()
            code = DONE
        except _Closed:
            pass
        except HorseshoeError as error:
            code = REFUSED if isinstance(error, _Refused) else FAULT
            self._fail(error)
            self._say(f"stopped: {error}", bad=True)
        finally:
            self.exit_code = code

    def _change(self, node: str, transition: int) -> None:
        service = f"{node}/change_state"
        answer = self._ask(service, ChangeState, ChangeState.Request(transition=Transition(id=transition)))
        state: Any = None
        due = time.monotonic() + LATE

        def changed() -> bool:
            nonlocal state, due
            if time.monotonic() > due:
                state, due = self._ask(f"{node}/get_state", GetState, GetState.Request()), time.monotonic() + LATE
            reached = state is not None and state.done() and state.result().current_state.id == REACHED[transition]
            return bool(reached or answer.done())

        self._until(changed, self._patience, f"an answer of {service}")
        if answer.done() and not answer.result().success:
            self._sleep(0.3)  # for the reason to arrive
            said = self._states.get(node.split("/")[1], "")
            raise _Refused(f"{node} does not {VERBS[transition]}; {said or 'its log says why'}")

    def _call(self, service: str) -> None:
        answer = self._answer(service, Trigger, Trigger.Request())
        if not answer.success:
            raise HorseshoeError(f"{service}: {answer.message}")

    def _answer(self, service: str, kind: Any, request: Any) -> Any:
        future = self._ask(service, kind, request)
        self._until(future.done, self._patience, f"an answer of {service}")
        return future.result()

    def _ask(self, service: str, kind: Any, request: Any) -> Any:
        client = self._callers.setdefault(service, None) or self.create_client(kind, service)
        self._callers[service] = client
        self._until(client.service_is_ready, self._patience, service)
        node = service.rpartition("/")[0]
        if node not in self._known:
            self._sleep(ACQUAINTANCE)
            self._known.add(node)
        return client.call_async(request)

    def _until(self, condition: Callable[[], bool], patience: float | None, what: str) -> None:
        end = time.monotonic() + (patience or 1e9)
        while not condition():
            if self._closing.is_set():
                raise _Closed
            self._check()
            if time.monotonic() > end:
                raise HorseshoeError(f"waited {patience:.0f} s in vain for {what}")
            time.sleep(0.01)

    def _sleep(self, duration: float) -> None:
        if self._closing.wait(duration):
            raise _Closed

    def _say(self, line: str, bad: bool = False) -> None:
        if bad:
            self.get_logger().error(line)
        else:
            self.get_logger().info(line)
        self._progress.publish(String(data=line))


class _Closed(Exception):
    """The node is asked to end."""


class _Refused(HorseshoeError):
    """A node does not do what it was asked: something does not fit."""
