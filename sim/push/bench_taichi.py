"""The benchmark's scene in taichi, run as a script of its own: prints one JSON object with substeps per second.

The same method (MLS-MPM, neo-Hookean, friction on the ground, six disc robots) as a taichi user would write it with
taichi's own gradients; grids of all substeps are stored, so that nothing is computed twice. Arguments: particles,
threads, seconds.
"""

import json
import sys
import time

import numpy as np
import taichi as ti

N, THREADS, SECONDS = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
ti.init(arch=ti.cpu, cpu_max_num_threads=THREADS, default_fp=ti.f32, log_level=ti.ERROR)
STEPS, CELLS, ROBOTS = 100, 64, 6
SIDE, DT = 1.28, 0.0025
DX = SIDE / CELLS
VOLUME = 1e-4
SHEAR = BULK = 8.0
RADIUS, WIDTH, SPEED = 0.035, DX, 0.3

x = ti.Vector.field(2, ti.f32, (STEPS + 1, N), needs_grad=True)
v = ti.Vector.field(2, ti.f32, (STEPS + 1, N), needs_grad=True)
C = ti.Matrix.field(2, 2, ti.f32, (STEPS + 1, N), needs_grad=True)
F = ti.Matrix.field(2, 2, ti.f32, (STEPS + 1, N), needs_grad=True)
p_in = ti.Vector.field(2, ti.f32, (STEPS, CELLS, CELLS), needs_grad=True)
m_in = ti.field(ti.f32, (STEPS, CELLS, CELLS), needs_grad=True)
u = ti.Vector.field(2, ti.f32, (STEPS, CELLS, CELLS), needs_grad=True)
robot_x = ti.Vector.field(2, ti.f32, (ROBOTS,), needs_grad=True)
robot_v = ti.Vector.field(2, ti.f32, (ROBOTS,), needs_grad=True)
loss = ti.field(ti.f32, (), needs_grad=True)


@ti.kernel
def p2g(s: ti.i32):
    """Particles to grid."""
    for p in range(N):
        base = ti.cast(x[s, p] / DX - 0.5, ti.i32)
        f = x[s, p] / DX - ti.cast(base, ti.f32)
        w = [0.5 * (1.5 - f) ** 2, 0.75 - (f - 1.0) ** 2, 0.5 * (f - 0.5) ** 2]
        G = (ti.Matrix.identity(ti.f32, 2) + DT * C[s, p]) @ F[s, p]
        F[s + 1, p] = G
        J = G.determinant()
        B = G @ G.transpose() / J
        half = 0.5 * B.trace()
        stress = SHEAR * (B - half * ti.Matrix.identity(ti.f32, 2))
        stress += 0.5 * BULK * (J * J - 1.0) * ti.Matrix.identity(ti.f32, 2)
        A = (-DT * VOLUME * 4.0 / DX**2) * stress + VOLUME * C[s, p]
        for i, j in ti.static(ti.ndrange(3, 3)):
            d = (ti.Vector([i, j]) - f) * DX
            weight = w[i][0] * w[j][1]
            p_in[s, base[0] + i, base[1] + j] += weight * (VOLUME * v[s, p] + A @ d)
            m_in[s, base[0] + i, base[1] + j] += weight * VOLUME


@ti.kernel
def grid(s: ti.i32):
    """Friction and robots."""
    for i, j in ti.ndrange(CELLS, CELLS):
        if m_in[s, i, j] > 0.0:
            a = p_in[s, i, j] / m_in[s, i, j]
            n = ti.sqrt(a.dot(a) + 4e-4)
            b = a * (n / (n + DT * 3.0))
            change = ti.Vector([0.0, 0.0])
            for r in ti.static(range(ROBOTS)):
                delta = ti.Vector([i, j]) * DX - robot_x[r] - (s * DT) * robot_v[r]
                dist = ti.sqrt(delta.dot(delta) + 1e-10)
                share = ti.min(ti.max(0.5 - (dist - RADIUS) / WIDTH, 0.0), 1.0)
                normal = delta / dist
                rel = b - robot_v[r]
                along = rel.dot(normal)
                across = rel - along * normal
                c = ti.max(-along, 0.0)
                grip = 0.3 * c / (0.3 * c + ti.sqrt(across.dot(across) + 4e-4))
                change += share * share * (3.0 - 2.0 * share) * (c * normal - grip * across)
            u[s, i, j] = b + change


@ti.kernel
def g2p(s: ti.i32):
    """Grid to particles."""
    for p in range(N):
        base = ti.cast(x[s, p] / DX - 0.5, ti.i32)
        f = x[s, p] / DX - ti.cast(base, ti.f32)
        w = [0.5 * (1.5 - f) ** 2, 0.75 - (f - 1.0) ** 2, 0.5 * (f - 0.5) ** 2]
        velocity = ti.Vector([0.0, 0.0])
        spin = ti.Matrix([[0.0, 0.0], [0.0, 0.0]])
        for i, j in ti.static(ti.ndrange(3, 3)):
            weighted = w[i][0] * w[j][1] * u[s, base[0] + i, base[1] + j]
            velocity += weighted
            spin += (4.0 / DX) * weighted.outer_product(ti.Vector([i, j]) - f)
        v[s + 1, p] = velocity
        C[s + 1, p] = spin
        x[s + 1, p] = x[s, p] + DT * velocity


@ti.kernel
def compute_loss():
    """Squared distance to a point."""
    for p in range(N):
        d = x[STEPS, p] - ti.Vector([0.8, 0.7])
        loss[None] += d.dot(d)


def forward():
    """All substeps."""
    p_in.fill(0.0)
    m_in.fill(0.0)
    for s in range(STEPS):
        p2g(s)
        grid(s)
        g2p(s)


def both():
    """All substeps, forward and backward."""
    forward()
    loss[None] = 0.0
    compute_loss()
    for field in (x, v, C, F, p_in, m_in, u, robot_x, robot_v):
        field.grad.fill(0.0)
    loss.grad[None] = 1.0
    compute_loss.grad()
    for s in reversed(range(STEPS)):
        g2p.grad(s)
        grid.grad(s)
        p2g.grad(s)


def rate(run):
    """Substeps per second, the best of several runs."""
    run()
    best = 0.0
    began = time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        # on a busy machine the wall clock is other people's: with one thread, CPU time is what it would have taken
        best = max(best, STEPS / (cpu if THREADS == 1 else wall))
    return best


side = np.sqrt(N * VOLUME)
angle = np.arange(ROBOTS) / ROBOTS * 2 * np.pi
x.from_numpy(
    np.repeat((SIDE / 2 + side * (np.random.default_rng(0).random((1, N, 2)) - 0.5)), STEPS + 1, 0).astype("f4")
)
F.from_numpy(np.tile(np.eye(2, dtype="f4"), (STEPS + 1, N, 1, 1)))
out = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
robot_x.from_numpy((SIDE / 2 + (0.7 * side + RADIUS) * out).astype("f4"))
robot_v.from_numpy((-SPEED * out).astype("f4"))
print(json.dumps({"forward": rate(forward), "gradient": rate(both)}))
