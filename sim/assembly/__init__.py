"""The assembly cell: blueprints, magnets, MuJoCo batch world, PyBullet twin, environments."""
