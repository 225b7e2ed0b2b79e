"""Kernels that run `mpm.py` and `nodes.py` over a control step and back: fused per scene (CPU) or per stage (CUDA).

Work buffers consist of blocks, each with the `steps + 1` states and `steps` grids of one control step, flattened as
[block, step, scene, item]. The state at the start of every control step is kept for the whole rollout (checkpoints);
what the blocks no longer hold is recomputed when the rollout runs backward.
"""

import warp as wp

from horseshoe.sim.push import mpm
from horseshoe.sim.push.mpm import Body, Grid
from horseshoe.sim.push.nodes import node_adjoint, node_velocity

# Warp's default flags hold back LLVM's vectoriser (slp-recursion-max-depth); without it these kernels are 20 % faster.
FLAGS = "-march=native -mllvm=-inline-threshold=9000 -mllvm=-inline-cold-callsite-threshold=3000"
wp.set_module_options({"enable_backward": False, "cpu_compiler_flags": FLAGS})


@wp.struct
class State:
    """Particles, flattened [..., scene, particle]."""

    x: wp.array(dtype=wp.vec2)
    v: wp.array(dtype=wp.vec2)
    C: wp.array(dtype=wp.mat22)
    e: wp.array(dtype=wp.vec3)


@wp.struct
class Nodes:
    """Grids, flattened [..., scene, node], and the box of nodes in use."""

    q: wp.array(dtype=wp.vec3)
    u: wp.array(dtype=wp.vec2)
    box: wp.array(dtype=wp.vec4i)


@wp.struct
class Robots:
    """Positions at the start of each control step and velocities during it, flattened [step, scene, robot]."""

    x: wp.array(dtype=wp.vec2)
    v: wp.array(dtype=wp.vec2)
    n: int


@wp.struct
class Size:
    """Counts."""

    scenes: int
    particles: int
    steps: int  # substeps of a control step


@wp.func
def copy(a: State, i: int, b: State, j: int):
    """Copy one particle."""
    b.x[j] = a.x[i]
    b.v[j] = a.v[i]
    b.C[j] = a.C[i]
    b.e[j] = a.e[i]


@wp.func
def to_grid(w: State, k: int, k_next: int, body: Body, g: Grid, q: wp.array(dtype=wp.vec3), first: int):
    """A particle's new strain, and its mass and momentum to the grid."""
    C = w.C[k]
    e = mpm.flow(mpm.strain(C, w.e[k], g.dt), body)
    w.e[k_next] = e
    mpm.scatter(w.x[k], w.v[k], mpm.affine(C, e, body, g), body.mass, g, q, first)


@wp.func
def from_grid(
    w: State,
    k: int,
    k_next: int,
    g: Grid,
    u: wp.array(dtype=wp.vec2),
    first: int,
    broken: wp.array(dtype=wp.int32),
    s: int,
):
    """A particle's new velocity and position."""
    v, C = mpm.gather(w.x[k], g, u, first)
    limit = 0.5 * g.dx / g.dt
    if not (wp.dot(v, v) < limit * limit):  # written so that NaN is caught too
        broken[s] = 1
        v = wp.vec2()
        C = wp.mat22()
    x = w.x[k] + g.dt * v
    low, high = 2.0 * g.dx, float(g.n - 3) * g.dx
    w.x[k_next] = wp.vec2(wp.clamp(x[0], low, high), wp.clamp(x[1], low, high))
    w.v[k_next] = v
    w.C[k_next] = C


@wp.func
def from_grid_adjoint(
    w: State, k: int, bar: State, p: int, g: Grid,
    u: wp.array(dtype=wp.vec2), first: int, u_bar: wp.array(dtype=wp.vec2), first_bar: int,
):  # fmt: skip
    """Backward over `from_grid`."""
    v_bar = bar.v[p] + g.dt * bar.x[p]
    bar.x[p] = bar.x[p] + mpm.gather_adjoint(w.x[k], v_bar, bar.C[p], g, u, first, u_bar, first_bar)


@wp.func
def to_grid_adjoint(
    w: State, k: int, k_next: int, bar: State, p: int, body: Body, g: Grid, q_bar: wp.array(dtype=wp.vec3), first: int
):
    """Backward over `to_grid`."""
    C, e_new = w.C[k], w.e[k_next]
    A = mpm.affine(C, e_new, body, g)
    x_bar, v_bar, A_bar = mpm.scatter_adjoint(w.x[k], w.v[k], A, body.mass, g, q_bar, first)
    C_bar, e_bar = mpm.material_adjoint(C, w.e[k], e_new, body, g, A_bar, bar.e[p])
    bar.x[p] = bar.x[p] + x_bar
    bar.v[p] = v_bar
    bar.C[p] = C_bar
    bar.e[p] = e_bar


# --- fused: one thread per scene --------------------------------------------------------------------------------------


@wp.kernel
def advance(
    t: int, block: int, size: Size, g: Grid, bodies: wp.array(dtype=Body), kept: State, w: State, nodes: Nodes,
    robots: Robots,
    broken: wp.array(dtype=wp.int32),
):  # fmt: skip
    """From checkpoint t to checkpoint t + 1; leaves every substep in a block of the work buffers."""
    s = wp.tid()
    body = bodies[s]
    N = size.particles
    first_robot = (t * size.scenes + s) * robots.n
    for p in range(N):
        copy(kept, (t * size.scenes + s) * N + p, w, (block * (size.steps + 1) * size.scenes + s) * N + p)
    for step in range(size.steps):
        grid = (block * size.steps + step) * size.scenes + s
        a = ((block * (size.steps + 1) + step) * size.scenes + s) * N
        b = a + size.scenes * N
        first = grid * g.n * g.n
        tau = float(step) * g.dt
        low_i, low_j, high_i, high_j = int(g.n), int(g.n), int(0), int(0)
        for p in range(N):
            i, j = mpm.cell(w.x[a + p][0], g), mpm.cell(w.x[a + p][1], g)
            low_i, high_i = wp.min(low_i, i), wp.max(high_i, i)
            low_j, high_j = wp.min(low_j, j), wp.max(high_j, j)
        nodes.box[grid] = wp.vec4i(low_i, low_j, high_i + 3, high_j + 3)
        for i in range(low_i, high_i + 3):
            for j in range(low_j, high_j + 3):
                nodes.q[first + i * g.n + j] = wp.vec3()
        for p in range(N):
            to_grid(w, a + p, b + p, body, g, nodes.q, first)
        for i in range(low_i, high_i + 3):
            for j in range(low_j, high_j + 3):
                k = first + i * g.n + j
                nodes.u[k] = node_velocity(nodes.q[k], i, j, tau, body, g, robots.x, robots.v, first_robot, robots.n)
        for p in range(N):
            from_grid(w, a + p, b + p, g, nodes.u, first, broken, s)
    for p in range(N):
        copy(
            w,
            ((block * (size.steps + 1) + size.steps) * size.scenes + s) * N + p,
            kept,
            ((t + 1) * size.scenes + s) * N + p,
        )


@wp.kernel
def advance_adjoint(
    t: int, block: int, size: Size, g: Grid, bodies: wp.array(dtype=Body), w: State, nodes: Nodes, robots: Robots,
    x_bar: wp.array(dtype=wp.vec2), bar: State, nodes_bar: Nodes, robots_bar: Robots,
):  # fmt: skip
    """Backward over the substeps in a block; `x_bar` is what the loss says about the positions at t + 1."""
    s = wp.tid()
    body = bodies[s]
    N = size.particles
    first_robot = (t * size.scenes + s) * robots.n
    first_bar = s * g.n * g.n
    for p in range(N):
        bar.x[s * N + p] = bar.x[s * N + p] + x_bar[((t + 1) * size.scenes + s) * N + p]
    for back in range(size.steps):
        step = size.steps - 1 - back
        grid = (block * size.steps + step) * size.scenes + s
        a = ((block * (size.steps + 1) + step) * size.scenes + s) * N
        b = a + size.scenes * N
        first = grid * g.n * g.n
        tau = float(step) * g.dt
        box = nodes.box[grid]
        for i in range(box[0], box[2]):
            for j in range(box[1], box[3]):
                nodes_bar.u[first_bar + i * g.n + j] = wp.vec2()
        for p in range(N):
            from_grid_adjoint(w, a + p, bar, s * N + p, g, nodes.u, first, nodes_bar.u, first_bar)
        for i in range(box[0], box[2]):
            for j in range(box[1], box[3]):
                k = i * g.n + j
                nodes_bar.q[first_bar + k] = node_adjoint(
                    nodes.q[first + k], i, j, tau, body, g, nodes_bar.u[first_bar + k],
                    robots.x, robots.v, first_robot, robots.n, robots_bar.x, robots_bar.v,
                )  # fmt: skip
        for p in range(N):
            to_grid_adjoint(w, a + p, b + p, bar, s * N + p, body, g, nodes_bar.q, first_bar)


# --- staged: one thread per particle or node, for CUDA ----------------------------------------------------------------


@wp.kernel
def copy_states(a: State, i: int, b: State, j: int):
    """Copy a range of particles."""
    copy(a, i + wp.tid(), b, j + wp.tid())


@wp.kernel
def particles_to_grid(step: int, size: Size, g: Grid, bodies: wp.array(dtype=Body), w: State, nodes: Nodes):
    """One substep, first stage."""
    s, p = wp.tid()
    k = step * size.scenes + s
    N = size.particles
    to_grid(w, k * N + p, (k + size.scenes) * N + p, bodies[s], g, nodes.q, k * g.n * g.n)


@wp.kernel
def update_nodes(t: int, step: int, size: Size, g: Grid, bodies: wp.array(dtype=Body), nodes: Nodes, robots: Robots):
    """One substep, second stage."""
    s, i, j = wp.tid()
    k = (step * size.scenes + s) * g.n * g.n + i * g.n + j
    first_robot = (t * size.scenes + s) * robots.n
    tau = float(step) * g.dt
    nodes.u[k] = node_velocity(nodes.q[k], i, j, tau, bodies[s], g, robots.x, robots.v, first_robot, robots.n)


@wp.kernel
def grid_to_particles(step: int, size: Size, g: Grid, w: State, nodes: Nodes, broken: wp.array(dtype=wp.int32)):
    """One substep, third stage."""
    s, p = wp.tid()
    k = step * size.scenes + s
    N = size.particles
    from_grid(w, k * N + p, (k + size.scenes) * N + p, g, nodes.u, k * g.n * g.n, broken, s)


@wp.kernel
def add(x_bar: wp.array(dtype=wp.vec2), first: int, bar: State):
    """Add what the loss says about positions."""
    bar.x[wp.tid()] = bar.x[wp.tid()] + x_bar[first + wp.tid()]


@wp.kernel
def add_back(bar: State, x_bar: wp.array(dtype=wp.vec2)):
    """Hand on the adjoint of the starting positions."""
    x_bar[wp.tid()] = x_bar[wp.tid()] + bar.x[wp.tid()]


@wp.kernel
def grid_to_particles_adjoint(step: int, size: Size, g: Grid, w: State, nodes: Nodes, bar: State, nodes_bar: Nodes):
    """Backward over the third stage."""
    s, p = wp.tid()
    k = step * size.scenes + s
    N = size.particles
    from_grid_adjoint(w, k * N + p, bar, s * N + p, g, nodes.u, k * g.n * g.n, nodes_bar.u, s * g.n * g.n)


@wp.kernel
def update_nodes_adjoint(
    t: int, step: int, size: Size, g: Grid, bodies: wp.array(dtype=Body), nodes: Nodes, robots: Robots,
    nodes_bar: Nodes, robots_bar: Robots,
):  # fmt: skip
    """Backward over the second stage."""
    s, i, j = wp.tid()
    first_robot = (t * size.scenes + s) * robots.n
    k = i * g.n + j
    k_bar = s * g.n * g.n + k
    nodes_bar.q[k_bar] = node_adjoint(
        nodes.q[(step * size.scenes + s) * g.n * g.n + k], i, j, float(step) * g.dt, bodies[s], g, nodes_bar.u[k_bar],
        robots.x, robots.v, first_robot, robots.n, robots_bar.x, robots_bar.v,
    )  # fmt: skip


@wp.kernel
def particles_to_grid_adjoint(
    step: int, size: Size, g: Grid, bodies: wp.array(dtype=Body), w: State, bar: State, nodes_bar: Nodes
):
    """Backward over the first stage."""
    s, p = wp.tid()
    k = step * size.scenes + s
    N = size.particles
    to_grid_adjoint(w, k * N + p, (k + size.scenes) * N + p, bar, s * N + p, bodies[s], g, nodes_bar.q, s * g.n * g.n)
