"""The soft-body world: batches of scenes with one deformable object and R disc robots each, differentiable in time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import warp as wp
from numpy.typing import ArrayLike, NDArray

from horseshoe.errors import HorseshoeError
from horseshoe.sim.push import robots as robot_kernels
from horseshoe.sim.push import rollout as kernels
from horseshoe.sim.push.config import MAX_ROBOTS, Material, PushConfig, check_inside
from horseshoe.sim.push.mpm import Body, Grid

Array = NDArray[np.float32]


class PushWorld:
    """Batched scenes advanced by whole control steps.

    Attributes:
        particles: positions at the start of every control step [m], wp.array (steps + 1, scenes, particles) of vec2.
        robots: positions likewise [m], wp.array (steps + 1, scenes, robots) of vec2.
        sent: robot velocities after all limits [m/s], wp.array (steps, scenes, robots) of vec2.
    """

    def __init__(
        self,
        config: PushConfig,
        scenes: int,
        particles: int,
        robots: int,
        steps: int = 1,
        device: str = "cpu",
        fused: bool | None = None,
        memory: float = 256.0,
    ) -> None:
        """Allocate buffers.

        Args:
            config: the world.
            scenes: batch size.
            particles: particles of each scene's object.
            robots: robots of each scene, 1 to 12.
            steps: control steps in one rollout.
            device: warp device.
            fused: one launch per control step and scene (default on a CPU) or one per stage (default on CUDA).
            memory: what substeps kept for the backward pass may take [MB]; the rest is recomputed from checkpoints.

        Raises:
            HorseshoeError: if a count is out of range.
        """
        if not 1 <= robots <= MAX_ROBOTS:
            raise HorseshoeError(f"robots: {robots} is outside [1, {MAX_ROBOTS}]")
        if scenes < 1 or particles < 1 or steps < 1:
            raise HorseshoeError(f"scenes, particles and steps must be positive, got {scenes}, {particles}, {steps}")
        wp.config.quiet = True  # type: ignore[attr-defined]
        wp.init()
        self.config, self.scenes, self.n_particles, self.n_robots, self.steps = config, scenes, particles, robots, steps
        self.device = wp.get_device(device)
        self.fused = self.device.is_cpu if fused is None else fused

        grid = self._grid = Grid()
        grid.n, grid.dx, grid.inv_dx, grid.dt = config.cells, config.dx, 1.0 / config.dx, config.dt
        grid.robot_radius, grid.contact_friction = config.robot_radius, config.robot_friction
        grid.contact_width, grid.contact_recovery = config.dx, 5.0
        size = self._size = kernels.Size()
        size.scenes, size.particles, size.steps = scenes, particles, config.substeps

        self.particles = self._empty(wp.vec2, (steps + 1, scenes, particles), requires_grad=True)
        self.robots = self._empty(wp.vec2, (steps + 1, scenes, robots), requires_grad=True)
        self.sent = self._empty(wp.vec2, (steps, scenes, robots), requires_grad=True)
        self._velocities = self._empty(wp.vec2, (steps, robot_kernels.SWEEPS + 1, scenes, robots), requires_grad=True)
        self._broken = self._empty(wp.int32, scenes)
        self._bodies = self._empty(Body, scenes)

        self._kept = self._state((steps + 1) * scenes * particles, self.particles.flatten())
        block = config.substeps * scenes * (44 * particles + 20 * config.cells**2)  # bytes of one control step
        self._blocks = int(np.clip(1e6 * memory // block, 1, steps)) if self.fused else 1
        self._work = self._state(self._blocks * (config.substeps + 1) * scenes * particles)
        self._nodes = self._node_buffers(self._blocks * config.substeps)
        self._robots = kernels.Robots()
        self._robots.x, self._robots.v, self._robots.n = self.robots.flatten(), self.sent.flatten(), robots
        self._held = [-1] * self._blocks  # control step whose substeps a block holds
        self._bar: Any = None  # adjoints, allocated by the first backward pass

    def vectors(self, values: NDArray[Any], requires_grad: bool = False) -> Any:
        """A Warp array of vectors, (..., 2), on this world's device: velocities for `rollout`, seeds of gradients."""
        return wp.array(values.astype(np.float32), dtype=wp.vec2, device=self.device, requires_grad=requires_grad)

    def _empty(self, dtype: Any, shape: Any, requires_grad: bool = False) -> Any:
        return wp.zeros(shape, dtype=dtype, device=self.device, requires_grad=requires_grad)

    def _state(self, count: int, x: Any = None) -> Any:
        state = kernels.State()
        state.x = self._empty(wp.vec2, count) if x is None else x
        state.v, state.C, state.e = (self._empty(kind, count) for kind in (wp.vec2, wp.mat22, wp.vec3))
        return state

    def _node_buffers(self, slots: int) -> Any:
        nodes = kernels.Nodes()
        count = slots * self.scenes * self.config.cells**2
        nodes.q, nodes.u = self._empty(wp.vec3, count), self._empty(wp.vec2, count)
        nodes.box = self._empty(wp.vec4i, slots * self.scenes)
        return nodes

    def reset(
        self,
        particles: ArrayLike,
        robots: ArrayLike,
        areas: ArrayLike,
        materials: Sequence[Material],
        scenes: ArrayLike | None = None,
    ) -> None:
        """Put scenes at rest at the start of a rollout.

        Args:
            particles: positions [m], shape (k, n_particles, 2).
            robots: positions [m], shape (k, n_robots, 2).
            areas: area of each object [m^2], shape (k,).
            materials: of each object, k of them.
            scenes: which scenes, shape (k,); all by default.

        Raises:
            HorseshoeError: if something lies outside the walls or robots overlap; names the scene.
            ConfigurationError: if the physics step is too long for a material.
        """
        config = self.config
        index = np.arange(self.scenes) if scenes is None else np.asarray(scenes, dtype=int)
        x = np.asarray(particles, dtype=np.float32)
        r = np.asarray(robots, dtype=np.float32)
        for name, value, count in (("particles", x, self.n_particles), ("robots", r, self.n_robots)):
            if value.shape != (len(index), count, 2):
                raise HorseshoeError(f"{name}: expected shape {(len(index), count, 2)}, got {value.shape}")
            check_inside(value, name, config, config.robot_radius if name == "robots" else 0.0)
        gap = np.linalg.norm(r[:, :, None] - r[:, None], axis=-1) + 10.0 * np.eye(self.n_robots)
        closest = 0.95 * 2 * config.robot_radius  # what the world itself lets them be pressed together
        if (gap < closest).any():
            k, i, j = np.argwhere(gap < closest)[0]
            message = f"robots {i + 1} and {j + 1} overlap at the start: {gap[k, i, j]:.3f} m apart"
            raise HorseshoeError(f"{message}, at least {2 * config.robot_radius:g} m are needed")
        bodies = self._bodies.numpy()
        for k, (area, material) in enumerate(zip(np.asarray(areas, dtype=float), materials, strict=True)):
            config.check(material)
            volume = area / self.n_particles
            bodies[index[k]] = (
                material.density * volume,
                volume,
                material.shear,
                material.bulk,
                material.yield_strain,
                material.ground,
                (0.0, 0.0),
            )
        self._bodies.assign(bodies)
        self._write(self._kept.x, index, x)
        self._write(self._kept.v, index, 0.0)
        self._write(self._kept.C, index, 0.0)
        self._write(self._kept.e, index, np.array([0.0, 0.0, 1.0]))
        self._write(self.robots.flatten(), index, r)
        broken = self._broken.numpy()
        broken[index] = 0
        self._broken.assign(broken)
        self._held = [-1] * self._blocks

    def set_current(self, acceleration: ArrayLike) -> None:
        """Push the objects from outside, until changed or reset: accelerations [m/s^2], shape (scenes, 2)."""
        bodies = self._bodies.numpy()
        bodies["current"] = acceleration
        self._bodies.assign(bodies)

    def _write(self, array: Any, index: NDArray[np.int_], value: Any) -> None:
        """Set the first slot of some scenes in a flattened [slot, scene, item] array."""
        items = self.n_robots if array.ptr == self.robots.ptr else self.n_particles
        head = array[: self.scenes * items]
        data = head.numpy()
        data.reshape(self.scenes, items, *data.shape[1:])[index] = value
        head.assign(data)

    @property
    def exploded(self) -> NDArray[np.bool_]:
        """Scenes in which a particle moved faster than half a cell per physics step since reset, shape (scenes,)."""
        return np.asarray(self._broken.numpy() != 0)

    def rollout(self, actions: Any, tape: wp.Tape | None = None) -> None:
        """Run all control steps from the state at the start.

        Args:
            actions: wanted robot velocities over the top speed, wp.array (steps, scenes, robots) of vec2.
            tape: an open tape; then `tape.backward` gives gradients of anything computed from `particles` and `robots`
                with respect to the actions and the starting positions.
        """
        config = self.config
        shape = (self.scenes, self.n_robots)
        low, high = config.low + config.robot_radius, config.high - config.robot_radius
        period, top, v = config.control_period, config.robot_speed, self._velocities
        for t in range(self.steps):
            self._launch(robot_kernels.limit, shape, [t, actions, top, v], tape)
            for stage in range(robot_kernels.SWEEPS):
                rest = [t, stage, self.robots, self.n_robots, config.robot_radius, low, high, period, v]
                self._launch(robot_kernels.keep_apart, shape, rest, tape)
            rest = [t, robot_kernels.SWEEPS, period, top, v, self.robots, self.sent]
            self._launch(robot_kernels.move, shape, rest, tape)
        for t in range(self.steps):
            self._advance(t)
        if tape is not None:
            tape.record_func(self._backward, [self.particles, self.robots, self.sent])

    def carry(self) -> None:
        """Make the last state the start of the next rollout."""
        last = self.steps * self.scenes
        self._launch(kernels.copy_states, self.scenes * self.n_particles,
                     [self._kept, last * self.n_particles, self._kept, 0])  # fmt: skip
        wp.copy(self.robots, self.robots, 0, last * self.n_robots, self.scenes * self.n_robots)
        self._held = [-1] * self._blocks

    def _launch(self, kernel: Any, dim: Any, inputs: list[Any], tape: wp.Tape | None = None) -> None:
        wp.launch(kernel, dim=dim, inputs=inputs, device=self.device, record_tape=tape is not None)

    def _advance(self, t: int) -> None:
        """From checkpoint t to t + 1."""
        size, grid, bodies, work, nodes, broken = (
            self._size, self._grid, self._bodies, self._work, self._nodes, self._broken
        )  # fmt: skip
        self._held[t % self._blocks] = t
        if self.fused:
            inputs = [t, t % self._blocks, size, grid, bodies, self._kept, work, nodes, self._robots, broken]
            self._launch(kernels.advance, self.scenes, inputs)
            return
        count = self.scenes * self.n_particles
        by_particle, by_node = (self.scenes, self.n_particles), (self.scenes, grid.n, grid.n)
        nodes.q.zero_()
        self._launch(kernels.copy_states, count, [self._kept, t * count, work, 0])
        for step in range(size.steps):
            self._launch(kernels.particles_to_grid, by_particle, [step, size, grid, bodies, work, nodes])
            self._launch(kernels.update_nodes, by_node, [t, step, size, grid, bodies, nodes, self._robots])
            self._launch(kernels.grid_to_particles, by_particle, [step, size, grid, work, nodes, broken])
        self._launch(kernels.copy_states, count, [work, size.steps * count, self._kept, (t + 1) * count])

    def _backward(self) -> None:
        """Adjoint of all `_advance` calls: adds to the gradients of `particles[0]`, `robots` and `sent`."""
        if self._bar is None:
            self._bar = self._state(self.scenes * self.n_particles), self._node_buffers(1), kernels.Robots()
        bar, nodes_bar, robots_bar = self._bar
        for array in (bar.x, bar.v, bar.C, bar.e):
            array.zero_()
        robots_bar.x, robots_bar.v, robots_bar.n = self.robots.grad.flatten(), self.sent.grad.flatten(), self.n_robots
        x_bar = self.particles.grad.flatten()
        for t in reversed(range(self.steps)):
            if self._held[t % self._blocks] != t:
                self._advance(t)
            self._advance_adjoint(t, x_bar, bar, nodes_bar, robots_bar)
        wp.launch(kernels.add_back, dim=self.scenes * self.n_particles, inputs=[bar, x_bar], device=self.device,
                  record_tape=False)  # fmt: skip

    def _advance_adjoint(self, t: int, x_bar: Any, bar: Any, nodes_bar: Any, robots_bar: Any) -> None:
        size, grid, bodies, work, nodes = self._size, self._grid, self._bodies, self._work, self._nodes
        if self.fused:
            inputs = [
                t,
                t % self._blocks,
                size,
                grid,
                bodies,
                work,
                nodes,
                self._robots,
                x_bar,
                bar,
                nodes_bar,
                robots_bar,
            ]
            self._launch(kernels.advance_adjoint, self.scenes, inputs)
            return
        count = self.scenes * self.n_particles
        by_particle, by_node = (self.scenes, self.n_particles), (self.scenes, grid.n, grid.n)
        self._launch(kernels.add, count, [x_bar, (t + 1) * count, bar])
        for step in reversed(range(size.steps)):
            nodes_bar.u.zero_()
            self._launch(
                kernels.grid_to_particles_adjoint, by_particle, [step, size, grid, work, nodes, bar, nodes_bar]
            )
            self._launch(kernels.update_nodes_adjoint, by_node,
                         [t, step, size, grid, bodies, nodes, self._robots, nodes_bar, robots_bar])  # fmt: skip
            self._launch(
                kernels.particles_to_grid_adjoint, by_particle, [step, size, grid, bodies, work, bar, nodes_bar]
            )
