"""Two xArm6 assemble blocks: `ros2 launch horseshoe bimanual_assembly.launch.py robot:=emulated`.

The nodes are those of `horseshoe.ros_ws.node_table`, as with `horseshoe up bimanual_assembly`. The operator node
does all lifecycle transitions, so none happens here. When any node ends, all end.
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

from horseshoe import configuration
from horseshoe.ros_ws import node_table
from horseshoe.ros_ws.urdf import cell_urdf
from horseshoe.sim.assembly import cell as cells
from launch import LaunchContext, LaunchDescription


def _start(context: LaunchContext):
    texts = {f.name: LaunchConfiguration(f.name).perform(context) for f in fields(node_table.LaunchArguments)}
    arguments = node_table.parse(texts)
    actions = [_action(spec) for spec in node_table.nodes(arguments)]
    if arguments.viewer:
        actions += _viewer(arguments)
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


def _action(spec: node_table.NodeSpec):
    common = {
        "package": "horseshoe",
        "executable": spec.executable,
        "parameters": [str(node_table.parameter_file()), str(spec.save_parameters())],
        "remappings": list(spec.remappings),
        "output": "screen",
    }
    if spec.lifecycle:
        return LifecycleNode(name=spec.name, namespace=spec.namespace, **common)
    # Without a name: the world hosts more nodes with robot:=sim, and a name would be given to all of them.
    return Node(**common)


def _viewer(arguments: node_table.LaunchArguments):
    urdf = cell_urdf(cells.load(arguments.cell or None))
    publishers = [
        Node(
            package="robot_state_publisher",
            executable="robot_state_publisher",
            namespace=arm,
            parameters=[{"robot_description": urdf}],
        )
        for arm in ("left", "right")
    ]
    rviz = configuration.resource("config/ros/bimanual_assembly.rviz")
    return [*publishers, Node(package="rviz2", executable="rviz2", arguments=["-d", str(rviz)])]


def generate_launch_description() -> LaunchDescription:
    """Arguments of the node table, then its nodes."""
    declared = [
        DeclareLaunchArgument(a.name, default_value=a.default, description=a.text, choices=a.choices or None)
        for a in node_table.describe(node_table.LaunchArguments)
    ]
    # Nodes find each other on this computer only, unless asked otherwise.
    local = SetEnvironmentVariable(
        "ROS_AUTOMATIC_DISCOVERY_RANGE", EnvironmentVariable("ROS_AUTOMATIC_DISCOVERY_RANGE", default_value="LOCALHOST")
    )
    return LaunchDescription([*declared, local, OpaqueFunction(function=_start)])
