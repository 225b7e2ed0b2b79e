"""What the nodes of the pushing robots share: the drive's parameters, odometry and clouds to arrays and back."""

import array
import math

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseWithCovariance, Quaternion, Twist, TwistWithCovariance, Vector3
from nav_msgs.msg import Odometry as OdometryMessage
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from horseshoe.errors import HorseshoeError
from horseshoe.ros_ws.base_node import WORLD, parameter, seconds, stamp
from horseshoe.ros_ws.push_decision import Odometry
from horseshoe.sim.push.drive import DriveConfig

Array = NDArray[np.float64]


def drive_parameters(node: Node) -> DriveConfig:
    """Declare and read what is true of the robots' drives."""
    default = DriveConfig()
    return DriveConfig(
        separation=parameter(node, "wheel_separation", default.separation, "Between the wheels [m].", 0.01, 1.0),
        speed=parameter(node, "wheel_speed", default.speed, "Top speed of a wheel's rim [m/s].", 0.01, 5.0),
        acceleration=parameter(
            node, "wheel_acceleration", default.acceleration, "Of a wheel's rim [m/s^2].", 0.1, 50.0
        ),
        latency=parameter(node, "drive_latency", default.latency, "From a Twist to the wheels [s].", 0.0, 0.5),
        timeout=parameter(
            node, "drive_timeout", default.timeout, "Age of the newest Twist at which wheels brake [s].", 0.05, 60.0
        ),
        ahead=parameter(
            node, "ahead", default.ahead, "From the axle to the point that follows the wanted velocity [m].", 0.005, 0.5
        ),
    )


def odometry_message(robot: str, odometry: Odometry) -> OdometryMessage:
    """Odometry in the world frame; its Twist is in the robot's own frame (REP-103: x ahead, y left)."""
    c, s = math.cos(odometry.heading), math.sin(odometry.heading)
    (x, y), (vx, vy) = odometry.position.tolist(), odometry.velocity.tolist()
    half = 0.5 * odometry.heading
    pose = Pose(position=Point(x=x, y=y), orientation=Quaternion(z=math.sin(half), w=math.cos(half)))
    linear = Vector3(x=c * vx + s * vy, y=c * vy - s * vx)
    return OdometryMessage(
        header=Header(stamp=stamp(odometry.when), frame_id=WORLD),
        child_frame_id=f"{robot}/base_link",
        pose=PoseWithCovariance(pose=pose),
        twist=TwistWithCovariance(twist=Twist(linear=linear, angular=Vector3(z=float(odometry.angular)))),
    )


def odometry_of(message: OdometryMessage) -> Odometry:
    """What an odometry message says, in the frame of its pose.

    Raises:
        HorseshoeError: the orientation is no unit quaternion, such as one that was never filled in.
    """
    pose, twist = message.pose.pose, message.twist.twist
    q = pose.orientation
    if not abs(math.hypot(q.x, q.y, q.z, q.w) - 1.0) < 0.01:
        raise HorseshoeError(f"odometry: orientation ({q.x:g}, {q.y:g}, {q.z:g}, {q.w:g}) is no unit quaternion")
    heading = math.atan2(2 * (q.w * q.z + q.x * q.y), 1 - 2 * (q.y**2 + q.z**2))
    c, s = math.cos(heading), math.sin(heading)
    velocity = [c * twist.linear.x - s * twist.linear.y, s * twist.linear.x + c * twist.linear.y]
    position = np.array([pose.position.x, pose.position.y])
    return Odometry(seconds(message.header.stamp), position, heading, np.array(velocity), twist.angular.z)


def twist_message(linear: float, angular: float) -> Twist:
    """A differential drive's Twist: [m/s] ahead, [rad/s] to the left."""
    return Twist(linear=Vector3(x=linear), angular=Vector3(z=angular))


def cloud_message(when: float, points: Array) -> PointCloud2:
    """Points on the floor [m], shape (n, 2), in the world frame; their order is kept."""
    data = np.zeros((len(points), 3), dtype=np.float32)
    data[:, :2] = points
    return PointCloud2(
        header=Header(stamp=stamp(when), frame_id=WORLD),
        height=1,
        width=len(points),
        fields=[PointField(name=n, offset=4 * k, datatype=PointField.FLOAT32, count=1) for k, n in enumerate("xyz")],
        point_step=12,
        row_step=12 * len(points),
        data=array.array("B", data.tobytes()),
    )


def points_of(message: PointCloud2) -> Array:
    """Read x and y of a cloud's points [m], shape (n, 2), in the message's order.

    Raises:
        HorseshoeError: no x and y as 32-bit floats, rows with gaps between them, or fewer bytes than it says.
    """
    offsets = {f.name: f.offset for f in message.fields if f.datatype == PointField.FLOAT32}
    if not {"x", "y"} <= offsets.keys():
        raise HorseshoeError(f"cloud: its fields are {[f.name for f in message.fields]}, expected x and y as FLOAT32")
    count, step = message.width * message.height, message.point_step
    if max(offsets["x"], offsets["y"]) + 4 > step or (message.height > 1 and message.row_step != message.width * step):
        raise HorseshoeError(
            f"cloud: x and y at {offsets['x']} and {offsets['y']} of points of {step} bytes, rows of {message.row_step}"
        )
    kind = np.dtype(">f4" if message.is_bigendian else "<f4")
    raw = np.frombuffer(message.data, dtype=np.uint8)
    if len(raw) < count * step:
        raise HorseshoeError(f"cloud: {len(raw)} bytes, {count} points need {count * step}")
    rows = raw[: count * step].reshape(count, step)
    both = [rows[:, offsets[k] : offsets[k] + 4].copy().view(kind)[:, 0] for k in ("x", "y")]
    return np.stack(both, axis=-1).astype(np.float64)
