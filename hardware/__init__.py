"""What is true of the robot: xArm6 model and limits, guard, SDK driver, controller emulator."""
