"""ROS 2 nodes: they move messages and call the rooms."""
