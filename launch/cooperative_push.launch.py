"""Robots push a soft object together: `ros2 launch horseshoe cooperative_push.launch.py robots:=6 goals:=unseen`.

The nodes are those of `horseshoe.ros_ws.push_table`, as with `horseshoe up cooperative_push`. The operator node does
all lifecycle transitions, so none happens here. When any node ends, all end.
"""

from dataclasses import fields

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from horseshoe.ros_ws import node_table, push_table
from horseshoe.ros_ws.node_table import NodeSpec
from launch import LaunchContext, LaunchDescription


def _start(context: LaunchContext):
    texts = {f.name: LaunchConfiguration(f.name).perform(context) for f in fields(push_table.LaunchArguments)}
    actions = [_action(spec) for spec in push_table.nodes(push_table.parse(texts))]
    ending = False

    def end(event: ProcessExited, _context: LaunchContext):
        nonlocal ending
        if ending:  # a second Shutdown would make the launch fail
            return None
        ending = True
        why = f"{event.process_name} ended with {event.returncode}"
        return [LogInfo(msg=f"{why}: all nodes end"), EmitEvent(event=Shutdown(reason=why))]

    handlers = [RegisterEventHandler(OnProcessExit(target_action=action, on_exit=end)) for action in actions]
    return [*handlers, *actions]


def _action(spec: NodeSpec):
    common = {
        "package": "horseshoe",
        "executable": spec.executable,
        "name": spec.name,
        "namespace": spec.namespace,
        "parameters": [str(push_table.parameter_file()), str(spec.save_parameters())],
        "output": "screen",
    }
    return (LifecycleNode if spec.lifecycle else Node)(**common)


def generate_launch_description() -> LaunchDescription:
    """Arguments of the node table, then its nodes."""
    declared = [
        DeclareLaunchArgument(a.name, default_value=a.default, description=a.text, choices=a.choices or None)
        for a in node_table.describe(push_table.LaunchArguments)
    ]
    # Nodes find each other on this computer only, unless asked otherwise.
    local = SetEnvironmentVariable(
        "ROS_AUTOMATIC_DISCOVERY_RANGE", EnvironmentVariable("ROS_AUTOMATIC_DISCOVERY_RANGE", default_value="LOCALHOST")
    )
    return LaunchDescription([*declared, local, OpaqueFunction(function=_start)])
