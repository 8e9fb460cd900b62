"""Kernels that paint the eyes: eyeball, lids, lashes and make-up, per sample, on the surface that raster.py drew.

The eyes of a person are one vector of numbers and one table of colours; their places are named here.
numba's cache checks one file only, so all that these kernels call, and every constant they read, is in this file.
"""

from __future__ import annotations

import math

import numpy as np

from gazepose.synthetic.compiled import compiled, turned, unit

# places in the vector of numbers; lengths in metres, lids in radians on the eyeball
(EYE_R, IRIS_R, PUPIL_R, LASH, OPEN_IN, OPEN_OUT, LID_UP, LID_LOW, LID_TILT, UNEVEN, CREASE, HOOD, LINER, SHADOW,
 TEXTURE, N_EYE) = range(16)
EYE_LENGTHS = [EYE_R, IRIS_R, PUPIL_R, LASH]  # grow with the head
# rows of the colour table: reflectances; for lash and lid the ratio to the skin as shown (gamma 2)
C_IRIS, C_CENTRE, C_LIMBUS, C_SCLERA, C_LASH, C_LID, N_EYE_COLOUR = range(7)


@compiled
def lid_edges(n, s, side, pitch, lids, squint):
    """Lower and upper edge of the opening, radians, at s from the inner corner (-1) to the outer (1)."""
    arch = max(0.0, 1 - s * s)
    base = n[LID_TILT] * s
    low = base - n[LID_LOW] * (1 - 0.45 * squint) * (1 - 0.15 * s) * arch
    low += (0.34 if pitch < 0 else 0.22) * pitch * arch * lids  # closed lids do not follow the gaze
    high = (n[LID_UP] + side * n[UNEVEN]) * (1 - 0.45 * squint) + (0.56 if pitch < 0 else 0.50) * pitch
    high = max(high, 0.12 - 0.75 * n[LID_LOW])
    high = base + high * (0.5 * arch + 0.5 * math.sqrt(arch)) * (1 - 0.12 * s)
    shut = low + 0.15 * arch * n[LID_LOW]
    return low, shut + max(0.0, high - shut) * lids


@compiled
def _highlight(direction, dx, dy, dz, vd, nx, ny, nz, tx, ty, tz, radius, width, foot):
    """Share of a lamp's reflection on the cornea, which bulges: its normal turns faster than the eyeball's."""
    ux, uy, uz = -dx / vd + 0.45 * direction[0], -dy / vd + 0.45 * direction[1], -dz / vd + 0.45 * direction[2]
    vx, vy, vz = nx + 0.55 * tx, ny + 0.55 * ty, nz + 0.55 * tz
    size = (ux * ux + uy * uy + uz * uz) * (vx * vx + vy * vy + vz * vz)
    off = math.sqrt(max(0.0, 2 - 2 * (vx * ux + vy * uy + vz * uz) / math.sqrt(size))) * radius / 1.5
    return unit(0.5 + (width - off) / max(foot, 0.3 * width))


@compiled
def _eyeball(n, colours, k, s, eye, gaze, towards, free, light, dx, dy, dz, origin, up, du, dl, foot, shown):
    """Colour of the eyeball where the ray from the camera (head frame) meets it, into shown [3], 0..1023."""
    radius, iris, pupil = n[EYE_R], n[IRIS_R], n[PUPIL_R]
    ex, ey, ez = origin[0] - eye[0], origin[1] - eye[1], origin[2] - eye[2]
    dd = dx * dx + dy * dy + dz * dz
    vd = math.sqrt(dd)
    half = ex * dx + ey * dy + ez * dz
    disc = half * half - dd * (ex * ex + ey * ey + ez * ez - radius * radius)
    t = (-half - math.sqrt(max(disc, 0.0))) / dd
    nx, ny, nz = (ex + t * dx) / radius, (ey + t * dy) / radius, (ez + t * dz) / radius
    along = nx * gaze[0] + ny * gaze[1] + nz * gaze[2]
    tx, ty, tz = nx - along * gaze[0], ny - along * gaze[1], nz - along * gaze[2]
    r = math.sqrt(tx * tx + ty * ty + tz * tz) * radius if along > 0 else 2 * radius
    in_iris = unit(0.5 + (iris - r) / max(foot, 0.0005))
    in_pupil = unit(0.5 + (pupil - r) / max(foot, 0.0003))
    # the lids and lashes shade the eyeball, its corners lie deep
    shade = (1 - 0.66 * math.exp(-max(du, 0.0) / 0.0024)) * (1 - 0.28 * math.exp(-max(dl, 0.0) / 0.0016))
    corner = unit((abs(s) - 0.45) / 0.55)
    shade *= 1 - 0.45 * corner * corner
    if disc <= 0:
        shade *= 0.6
    facing = nx * towards[0, 0] + ny * towards[0, 1] + nz * towards[0, 2]
    lit = max(0.0, (facing + 0.35) / 1.35) * free
    lit2 = max(0.0, (nx * towards[1, 0] + ny * towards[1, 1] + nz * towards[1, 2] + 0.4) / 1.4)
    sky = 0.5 + 0.5 * (nx * up[0] + ny * up[1] + nz * up[2])
    glint = glint2 = deep = 0.0
    rays = 1.0
    ring = unit((r / iris - 0.70) / 0.30)
    ring *= ring
    centre = unit(1.6 - 1.6 * r / iris)
    if in_iris > 0:
        width = 0.0015 - 0.0007 * light[6, 0]
        glint = _highlight(towards[0], dx, dy, dz, vd, nx, ny, nz, tx, ty, tz, radius, width, foot)
        glint2 = _highlight(towards[1], dx, dy, dz, vd, nx, ny, nz, tx, ty, tz, radius, 0.0012, foot)
        # light that enters the cornea gathers on the far side of the iris
        deep = -(tx * towards[0, 0] + ty * towards[0, 1] + tz * towards[0, 2]) * radius / iris
        if foot < 0.0008:
            turn = math.atan2(ty, tx)
            rays += 0.25 * math.sin(9 * turn + n[TEXTURE] + k) * math.sin(5 * turn + 40 * r / iris)
            rays += 0.15 * math.sin(31 * turn + 3 * n[TEXTURE])
    inner = unit((-s - 0.72) / 0.2)
    wet = 0.22 * math.exp(-(((dl - 0.0003) / max(0.0003, 0.5 * foot)) ** 2)) * min(1.0, 0.0006 / foot)
    for c in range(3):
        alb = colours[C_SCLERA, c] * (1.0 if c == 0 else 1 - 0.20 * corner)
        alb += (0.42 - 0.13 * c - alb) * 0.75 * inner if c < 2 else (0.22 - alb) * 0.75 * inner
        stroma = colours[C_IRIS, c] + (colours[C_CENTRE, c] - colours[C_IRIS, c]) * centre
        stroma = stroma * rays * (1 + 0.7 * deep) * (1 - ring) + colours[C_LIMBUS, c] * ring
        alb += (max(stroma, 0.0) - alb) * in_iris
        alb += (0.004 - alb) * in_pupil
        around = light[2, c] * sky + light[3, c] * (1 - sky)
        lin = alb * shade * (light[1, c] * lit + light[5, c] * lit2 + around)
        lin += in_iris * (glint * free * 1.1 * light[1, c] + glint2 * 1.6 * light[5, c] + 0.012 * light[2, c])
        lin += wet * (light[1, c] * lit + 0.5 * around)
        shown[c] = min(1023.0, 1023.0 * math.sqrt(lin))


@compiled
def _lid(n, colours, s, qx, above, lids, foot, tint):
    """Factors of the lit skin above the opening: crease, fold, shadow of the brow bone, make-up; into tint [3]."""
    v = (above - 0.20 * (0.35 + 0.65 * lids)) * n[EYE_R] / max(0.0011, 0.8 * foot)
    m = 0.95 * unit(1.25 - abs(s)) * n[CREASE] / (1 + v * v * v * v)
    fold = n[HOOD] * lids * unit(1.4 - abs(s)) * math.exp(-((above - 0.05) / 0.10) ** 2)
    m = max(m, 0.8 * fold)
    m = max(m, n[SHADOW] * unit(1 - (above - 0.02) / 0.40) * unit(2.2 - 2 * abs(s)))
    for c in range(3):
        tint[c] *= 1 + (colours[C_LID, c] - 1) * m


@compiled
def _lashes(n, s, qx, du, dl, lids, foot):
    """Darkness of the lashes, 0..1: a line along the upper edge, single hairs near by, a faint line below."""
    reach = unit((1.10 - abs(s)) / 0.15)
    thick = n[LASH] * (0.7 + 0.6 * unit(0.5 + 0.5 * s)) * (1 + 0.8 * n[LINER])
    wide = max(thick, foot * 0.5)
    v = (du + 0.3 * thick) / wide
    dark = 0.0
    if v * v < 9:
        dark = 0.95 * math.exp(-v * v) * thick / wide * reach
    long = 2.2 * n[LASH] * (1 + 0.9 * s) * (1 if lids > 0.3 else -1)  # hairs rise from an open lid, hang from a closed
    if du * long < 0 and foot < 0.0007 and abs(du) < abs(long):
        hair = 0.5 + 0.5 * math.sin(2600 * qx * (1 - 40 * abs(du)) + 7 * math.sin(900 * qx + n[TEXTURE]))
        dark = max(dark, 0.75 * hair * hair * (1 - abs(du) / abs(long)) * reach)
    if lids > 0.04:
        wide = max(0.0006, foot * 0.5)
        v = (dl + 0.0006) / wide
        if v * v < 9:
            faint = (0.22 + 0.5 * n[LINER]) * math.exp(-v * v) * 0.0006 / wide * unit((1.0 - abs(s)) / 0.2)
            dark = max(dark, faint * (0.4 + 0.6 * unit(0.5 + s)))
    return dark


@compiled
def paint_eyes(n, colours, eyes, gaze, lids, squint, free, head, position, light, camera, x0, y0, depth, code):
    """Paint both eyes on the skin samples around them.

    lids [2]: 1 open, 0 closed. squint: 0..1. free [2]: share of the main light that reaches each eye. The rest as for
    the other kernels.
    """
    h, w = depth.shape
    f, cx, cy = camera[0], camera[1], camera[2]
    radius = n[EYE_R]
    eye_reach = radius + 0.007
    towards = np.empty((2, 3))  # the lamps in the head frame
    towards[0] = turned(head.T, light[0])
    towards[1] = turned(head.T, light[4])
    origin = -turned(head.T, position)  # the camera in the head frame
    up = -head[1].copy()
    tint, shown = np.empty(3), np.zeros(3)  # shown is used times zero where no eyeball was painted yet
    for k in range(2):
        side = 1.0 if k == 0 else -1.0
        middle = turned(head, eyes[k]) + position
        if middle[2] < 0.05:
            continue
        px, py, wide = f * middle[0] / middle[2] + cx, f * middle[1] / middle[2] + cy, 1.15 * eye_reach * f / middle[2]
        pitch = math.asin(max(-0.7, min(0.7, gaze[k, 1])))
        for j in range(max(int(py - wide) - y0, 0), min(int(py + wide) + 1 - y0, h)):
            for i in range(max(int(px - wide) - x0, 0), min(int(px + wide) + 1 - x0, w)):
                if code[j, i] < (1 << 30) or depth[j, i] == 0:
                    continue
                z = 1.0 / depth[j, i]
                foot = z / f
                x, y = (x0 + i + 0.5 - cx) * foot, (y0 + j + 0.5 - cy) * foot
                dx = head[0, 0] * x + head[1, 0] * y + head[2, 0] * z  # from the camera to the point, head frame
                dy = head[0, 1] * x + head[1, 1] * y + head[2, 1] * z
                dz = head[0, 2] * x + head[1, 2] * y + head[2, 2] * z
                qx, qy, qz = dx + origin[0] - eyes[k, 0], dy + origin[1] - eyes[k, 1], dz + origin[2] - eyes[k, 2]
                if qy < -0.011 or qy > 0.012:
                    continue
                reach = math.sqrt(qx * qx + qy * qy + qz * qz)
                if reach >= eye_reach or qz <= 0:
                    continue
                s = math.atan2(qx * side, qz)
                s /= n[OPEN_OUT] if s > 0 else n[OPEN_IN]
                b = math.asin(qy / reach)
                low, high = lid_edges(n, s, side, pitch, lids[k], squint)
                du, dl = (high - b) * radius, (b - low) * radius
                inside = min(du, min(dl, (1 - abs(s)) * 0.9 * radius))
                cover = unit(0.5 + inside / foot) if lids[k] > 0.04 else 0.0
                tint[0] = tint[1] = tint[2] = 1.0
                if inside < 0 and b > high:
                    _lid(n, colours, s, qx, b - high, lids[k], foot, tint)
                elif inside < 0 and abs(s) < 0.95 and dl > -0.0011:  # the moist edge of the lower lid
                    tint[1] *= 0.93
                    tint[2] *= 0.94
                dark = _lashes(n, s, qx, du, dl, lids[k], foot)
                if cover == 0 and dark < 0.002 and tint[0] == 1 and tint[1] == 1:
                    continue
                if cover > 0:
                    _eyeball(n, colours, k, s, eyes[k], gaze[k], towards, free[k], light, dx, dy, dz, origin, up,
                             du, dl, foot, shown)
                v = code[j, i]
                mixed = 0
                for c in range(3):
                    value = ((v >> (10 * c)) & 1023) * tint[c]
                    value = (value + (shown[c] - value) * cover) * (1 + (colours[C_LASH, c] - 1) * dark)
                    mixed |= int(min(value, 1023.0)) << (10 * c)
                code[j, i] = mixed | (1 << 30)
