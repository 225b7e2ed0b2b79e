"""Rectangles in the plane, for Warp: what blocks and fingers are when seen from above."""

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.struct
class Rect:
    """A block or finger from above: centre, long axis, half sizes [m]."""

    centre: wp.vec2
    axis: wp.vec2
    half: wp.vec2


@wp.struct
class Hit:
    """Overlap of two rectangles: depth [m] (negative: apart), direction from the first to the second, and place."""

    depth: float
    normal: wp.vec2
    point: wp.vec2


@wp.func
def across(a: wp.vec2):
    return wp.vec2(-a[1], a[0])


@wp.func
def radius_along(r: Rect, n: wp.vec2):
    return r.half[0] * wp.abs(wp.dot(r.axis, n)) + r.half[1] * wp.abs(wp.dot(across(r.axis), n))


@wp.func
def corner(r: Rect, n: wp.vec2):
    """The corner furthest along n; the middle of an edge that faces n."""
    a, b = wp.dot(r.axis, n), wp.dot(across(r.axis), n)
    x, y = float(0.0), float(0.0)
    if wp.abs(a) > 0.05:
        x = wp.sign(a)
    if wp.abs(b) > 0.05:
        y = wp.sign(b)
    return r.centre + r.axis * (x * r.half[0]) + across(r.axis) * (y * r.half[1])


@wp.func
def overlap(a: Rect, b: Rect):
    """Separating axis test."""
    best = Hit()
    best.depth = float(1.0e6)
    d = b.centre - a.centre
    for k in range(4):
        n = a.axis
        if k == 1:
            n = across(a.axis)
        if k == 2:
            n = b.axis
        if k == 3:
            n = across(b.axis)
        s = wp.dot(d, n)
        if s < 0.0:
            n = -n
        depth = radius_along(a, n) + radius_along(b, n) - wp.abs(s)
        if depth < best.depth:
            best.depth = depth
            best.normal = n
            if k < 2:
                best.point = corner(b, -n)
            else:
                best.point = corner(a, n)
    return best
