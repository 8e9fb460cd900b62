"""Kernels that paint eyes and lids, brows, nostrils, lips and glasses, per sample, on the surface that raster.py drew.

A person is given as one vector of numbers and one table of colours; their places are named here.
numba's cache checks one file only, so all that these kernels call, and every constant they read, is in this file.
The painting kernel is one long loop on purpose: helpers would cost speed or change the last bit.
"""

from __future__ import annotations

import math

import numpy as np

from gazepose.synthetic.compiled import compiled

MOUTH_GAP = 0.016  # metres between the lips at mouth = 1

# places in the vector of numbers the painting kernel reads
(EYE_R, IRIS_R, PUPIL_R, OPEN_IN, OPEN_OUT, LID_UP, LID_LOW, LID_TILT, LASH, CREASE) = range(10)
(BROW_Y, BROW_ARCH, BROW_THICK, BROW_IN, BROW_OUT, BROW_DENSE) = range(10, 16)
(MOUTH_Y, MOUTH_W, MOUTH_SMILE, LIP_UP, LIP_LOW, NOSTRIL_X, NOSTRIL_Y) = range(16, 23)
(LINER, SHADOW, TEXTURE, N_PAINT) = range(23, 27)
LENGTHS = [EYE_R, IRIS_R, PUPIL_R, LASH, *range(BROW_Y, BROW_DENSE), *range(MOUTH_Y, LINER)]  # grow with the head
# rows of the colour table: reflectances; for brow, lip, lash and lid the ratio to the skin as shown (gamma 2)
C_IRIS, C_LIMBUS, C_SCLERA, C_BROW, C_LIP, C_LASH, C_LID, C_INNER, N_COLOUR = range(9)


@compiled
def _unit(x):
    return 0.0 if x < 0 else 1.0 if x > 1 else x


@compiled
def paint_face(paint, colours, eyes, gaze, lids, mouth, head, origin, light, camera, x0, y0, box, depth, code):
    """Paint eyes, brows, nostrils and lips on the skin samples inside box (samples: x1, y1, x2, y2)."""
    h, w = depth.shape
    radius, iris, pupil = paint[EYE_R], paint[IRIS_R], paint[PUPIL_R]
    f, cx, cy = camera[0], camera[1], camera[2]
    colour, sky, ground = light[1], light[2], light[3]
    lx = head[0, 0] * light[0, 0] + head[1, 0] * light[0, 1] + head[2, 0] * light[0, 2]  # light in the head frame
    ly = head[0, 1] * light[0, 0] + head[1, 1] * light[0, 1] + head[2, 1] * light[0, 2]
    lz = head[0, 2] * light[0, 0] + head[1, 2] * light[0, 1] + head[2, 2] * light[0, 2]
    ox = -(head[0, 0] * origin[0] + head[1, 0] * origin[1] + head[2, 0] * origin[2])  # camera in the head frame
    oy = -(head[0, 1] * origin[0] + head[1, 1] * origin[1] + head[2, 1] * origin[2])
    oz = -(head[0, 2] * origin[0] + head[1, 2] * origin[1] + head[2, 2] * origin[2])
    upx, upy, upz = -head[1, 0], -head[1, 1], -head[1, 2]  # the sky in the head frame
    my, mw, gap = paint[MOUTH_Y], paint[MOUTH_W] * (1 - 0.12 * mouth), MOUTH_GAP * mouth
    lip_up, lip_low = paint[LIP_UP] * (1 - 0.15 * mouth), paint[LIP_LOW] * (1 - 0.15 * mouth)
    eye_reach, tone = radius + 0.006, 1023.0
    tint = np.empty(3)
    for j in range(max(box[1] - y0, 0), min(box[3] - y0, h)):
        for i in range(max(box[0] - x0, 0), min(box[2] - x0, w)):
            if code[j, i] < (1 << 30) or depth[j, i] == 0:
                continue
            z = 1.0 / depth[j, i]
            foot = z / f
            x = (x0 + i + 0.5 - cx) * foot
            y = (y0 + j + 0.5 - cy) * foot
            dx = head[0, 0] * x + head[1, 0] * y + head[2, 0] * z  # from the camera to the point, head frame
            dy = head[0, 1] * x + head[1, 1] * y + head[2, 1] * z
            dz = head[0, 2] * x + head[1, 2] * y + head[2, 2] * z
            px, py, pz = dx + ox, dy + oy, dz + oz
            if pz < 0.02:
                continue
            k = 0 if px > 0 else 1
            side = 1.0 if px > 0 else -1.0
            bx = px * side
            qx, qy, qz = px - eyes[k, 0], py - eyes[k, 1], pz - eyes[k, 2]
            at_eye = abs(qx) < eye_reach and abs(qy) < eye_reach and qz > 0
            at_brow = 0.008 < qy < 0.036 and paint[BROW_IN] - 0.004 < bx < paint[BROW_OUT] + 0.004
            at_nose = abs(py - paint[NOSTRIL_Y]) < 0.006 and abs(bx - paint[NOSTRIL_X]) < 0.009
            at_mouth = bx < 1.15 * mw and my - 0.022 - gap < py < my + 0.017
            if not (at_eye or at_brow or at_nose or at_mouth):
                continue
            tint[0] = tint[1] = tint[2] = 1.0  # factors of the lit skin
            over, pr, pg, pb = 0.0, 0.0, 0.0, 0.0  # share and colour of a layer over it
            dark = 0.0  # lashes over everything

            if at_eye:
                reach = math.sqrt(qx * qx + qy * qy + qz * qz)
                if reach < eye_reach:
                    s = math.atan2(qx * side, qz)
                    s /= paint[OPEN_OUT] if s > 0 else paint[OPEN_IN]
                    b = math.asin(qy / reach)
                    pitch = math.asin(max(-0.7, min(0.7, gaze[k, 1])))
                    arch = max(0.0, 1 - s * s)
                    root = math.sqrt(arch)
                    base = paint[LID_TILT] * s
                    low = base - paint[LID_LOW] * (1 - 0.15 * s) * arch + (0.34 if pitch < 0 else 0.22) * pitch * arch
                    high = max(paint[LID_UP] + (0.56 if pitch < 0 else 0.50) * pitch, -0.75 * paint[LID_LOW] + 0.12)
                    high = base + high * (0.5 * arch + 0.5 * root) * (1 - 0.12 * s)
                    shut = low + 0.25 * arch * paint[LID_LOW]
                    high = shut + (high - shut) * lids
                    du, dl = (high - b) * radius, (b - low) * radius
                    inside = min(du, min(dl, (1 - abs(s)) * 0.9 * radius))
                    cover = _unit(0.5 + inside / foot) if lids > 0.04 else 0.0
                    if inside < 0 and b > high:  # lid: crease, make-up
                        v = (b - high - 0.21 * (0.35 + 0.65 * lids)) * radius / 0.0013
                        m = 0.9 * _unit(1.25 - abs(s)) * paint[CREASE] / (1 + v * v * v * v)
                        m = max(m, paint[SHADOW] * _unit(1 - (b - high) / 0.35) * _unit(2.2 - 2 * abs(s)))
                        for c in range(3):
                            tint[c] *= 1 + (colours[C_LID, c] - 1) * m
                    if cover > 0:
                        # the ray goes on through the opening to the eyeball
                        over = cover
                        ex, ey, ez = ox - eyes[k, 0], oy - eyes[k, 1], oz - eyes[k, 2]
                        dd = dx * dx + dy * dy + dz * dz
                        vd = math.sqrt(dd)
                        half = ex * dx + ey * dy + ez * dz
                        disc = half * half - dd * (ex * ex + ey * ey + ez * ez - radius * radius)
                        if disc > 0:
                            t = (-half - math.sqrt(disc)) / dd
                            nx, ny, nz = (ex + t * dx) / radius, (ey + t * dy) / radius, (ez + t * dz) / radius
                        else:
                            nx, ny, nz = qx / reach, qy / reach, qz / reach
                        gx, gy, gz = gaze[k, 0], gaze[k, 1], gaze[k, 2]
                        along = nx * gx + ny * gy + nz * gz
                        tx, ty, tz = nx - along * gx, ny - along * gy, nz - along * gz
                        r = math.sqrt(tx * tx + ty * ty + tz * tz) * radius if along > 0 else 2 * radius
                        in_iris = _unit(0.5 + (iris - r) / foot)
                        in_pupil = _unit(0.5 + (pupil - r) / foot)
                        ring = _unit((r / iris - 0.66) / 0.34)
                        ring *= ring
                        rays = 1.0
                        if in_iris > 0 and foot < 0.0008:
                            turn = math.atan2(ty, tx)
                            rays += 0.22 * math.sin(9 * turn + paint[TEXTURE]) * math.sin(5 * turn + 40 * r / iris)
                        lit = max(0.0, (nx * lx + ny * ly + nz * lz + 0.5) / 1.5)
                        up = 0.5 + 0.5 * (nx * upx + ny * upy + nz * upz)
                        shade = 1 - 0.50 * math.exp(-max(du, 0.0) / 0.0022)  # the lids' shadows
                        shade *= 1 - 0.20 * math.exp(-max(dl, 0.0) / 0.0018)
                        if disc <= 0:
                            shade *= 0.6
                        corner = _unit((abs(s) - 0.6) / 0.4)
                        glint = 0.0
                        if in_iris > 0:
                            # one highlight near the pupil, between the viewer and the light;
                            # the cornea bulges, so its normal turns faster than the eyeball's
                            ux, uy, uz = -dx / vd + 0.45 * lx, -dy / vd + 0.45 * ly, -dz / vd + 0.45 * lz
                            vx, vy, vz = nx + 0.55 * tx, ny + 0.55 * ty, nz + 0.55 * tz
                            size = (ux * ux + uy * uy + uz * uz) * (vx * vx + vy * vy + vz * vz)
                            hh = (vx * ux + vy * uy + vz * uz) / math.sqrt(size)
                            glint = 0.0013 - math.sqrt(max(0.0, 2 - 2 * hh)) * radius / 1.5
                            glint = _unit(0.5 + glint / foot) * in_iris
                        for c in range(3):
                            alb = colours[C_SCLERA, c] * (1.0 if c == 0 else 1 - (0.38 if s < 0 else 0.22) * corner)
                            stroma = colours[C_IRIS, c] * rays * (1 - ring) + colours[C_LIMBUS, c] * ring
                            alb += (stroma - alb) * in_iris
                            alb += (0.006 - alb) * in_pupil
                            lin = alb * shade * (colour[c] * lit + sky[c] * up + ground[c] * (1 - up))
                            shown = tone * math.sqrt(lin + 0.75 * glint * (colour[c] + sky[c]))
                            if c == 0:
                                pr = shown
                            elif c == 1:
                                pg = shown
                            else:
                                pb = shown
                    # lash lines: dark along the upper edge, faint along the lower
                    thick = paint[LASH] * (0.75 + 0.5 * _unit(0.5 + 0.5 * s)) * (1 + 0.6 * paint[LINER])
                    wide = max(thick, foot * 0.5)
                    v = (du + 0.4 * thick) / wide
                    if v * v < 9:
                        dark = 0.95 * math.exp(-v * v) * thick / wide * _unit((1.10 - abs(s)) / 0.15)
                    if lids > 0.04:
                        wide = max(0.0006, foot * 0.5)
                        v = (dl + 0.0003) / wide
                        if v * v < 9:
                            m = 0.45 * math.exp(-v * v) * 0.0006 / wide * _unit((1.0 - abs(s)) / 0.2)
                            dark = max(dark, 0.55 * m)
            if at_brow:
                t = (bx - paint[BROW_IN]) / (paint[BROW_OUT] - paint[BROW_IN])
                v = t - 0.62
                line = paint[BROW_Y] + paint[BROW_ARCH] * (1 - 5.5 * v * v) - 0.0015
                thick = max(paint[BROW_THICK] * (0.62 + 0.9 * t - 1.25 * t * t), 1e-4)
                soft = max(0.0012, foot * 0.6)
                m = _unit((thick - abs(qy - line)) / soft) * paint[BROW_DENSE]
                m *= _unit((t + 0.02) * 9) * _unit((1.03 - t) * 7)
                if m > 0:
                    strand = 900 * bx - 500 * qy * (0.3 + t) + paint[TEXTURE]
                    m *= 0.85 + (0.15 * math.sin(strand) if foot < 0.001 else 0.0)
                    for c in range(3):
                        tint[c] *= 1 + (colours[C_BROW, c] - 1) * m
            if at_nose:
                v = (bx - paint[NOSTRIL_X]) / 0.0042
                m = (py - paint[NOSTRIL_Y]) / 0.0021
                v = v * v + m * m
                if v < 5:
                    dark = max(dark, 0.62 * math.exp(-1.1 * v))
            if at_mouth:
                s = px / mw
                arch = max(0.0, 1 - s * s)
                root = math.sqrt(arch)
                mid = my + paint[MOUTH_SMILE] * s * s
                top = mid + lip_up * (0.4 * arch + 0.6 * root) * (1 - 0.22 * math.exp(-s * s / 0.02))
                inner_up = mid + 0.10 * gap * root
                inner_low = mid - 0.90 * gap * (0.75 * arch + 0.25 * root)
                bottom = inner_low - lip_low * (0.3 * arch + 0.7 * root)
                lip = _unit(0.5 + min(top - py, py - bottom) / max(foot, 0.0012)) * _unit((1 - abs(s)) * 14)
                v = (py - inner_low + 0.45 * lip_low) / 0.0016
                shine = 1 + 0.10 * arch / (1 + v * v)
                for c in range(3):
                    tint[c] *= (1 + (colours[C_LIP, c] - 1) * lip) * shine
                if gap < 0.004:
                    wide = max(0.0009, 0.5 * foot)
                    v = (py - mid) / wide
                    if v * v < 9:
                        m = 0.75 * math.exp(-v * v) * 0.0009 / wide * _unit((1.04 - abs(s)) * 10)
                        dark = max(dark, m * (1 - gap / 0.004))
                hole = _unit(0.5 + min(inner_up - py, py - inner_low) / foot) * _unit(gap / 0.001)
                if hole > 0:
                    over = hole
                    teeth = py - inner_up + min(0.0055, 0.42 * gap) * root
                    teeth = _unit(0.5 + teeth / foot) * _unit((0.85 - abs(s)) * 5)
                    for c in range(3):
                        alb = colours[C_INNER, c] * (1 - teeth) + 0.72 * teeth * (1 - 0.07 * c)
                        shown = tone * math.sqrt(alb * (0.5 * colour[c] + 0.4 * sky[c] + 0.3 * ground[c]))
                        if c == 0:
                            pr = shown
                        elif c == 1:
                            pg = shown
                        else:
                            pb = shown

            v = code[j, i]
            r = (v & 1023) * tint[0]
            g = ((v >> 10) & 1023) * tint[1]
            b = ((v >> 20) & 1023) * tint[2]
            r = (r + (pr - r) * over) * (1 + (colours[C_LASH, 0] - 1) * dark)
            g = (g + (pg - g) * over) * (1 + (colours[C_LASH, 1] - 1) * dark)
            b = (b + (pb - b) * over) * (1 + (colours[C_LASH, 2] - 1) * dark)
            r, g, b = min(r, 1023.0), min(g, 1023.0), min(b, 1023.0)
            code[j, i] = int(r) | (int(g) << 10) | (int(b) << 20) | (1 << 30)


@compiled
def draw_frame(segments, width, shown, head, origin, camera, x0, y0, depth, code):
    """Draw glasses as lines of constant width. A sample is covered at most once; nearer surfaces hide the lines."""
    h, w = depth.shape
    f, cx, cy = camera[0], camera[1], camera[2]
    ends = np.empty((segments.shape[0], 2, 3))  # x, y in samples, 1 / depth
    left, top, right, bottom = x0 + w, y0 + h, x0, y0
    for s in range(segments.shape[0]):
        for e in range(2):
            p = segments[s, e]
            z = head[2, 0] * p[0] + head[2, 1] * p[1] + head[2, 2] * p[2] + origin[2]
            if z < 0.05:
                return
            ends[s, e, 0] = f * (head[0, 0] * p[0] + head[0, 1] * p[1] + head[0, 2] * p[2] + origin[0]) / z + cx
            ends[s, e, 1] = f * (head[1, 0] * p[0] + head[1, 1] * p[1] + head[1, 2] * p[2] + origin[1]) / z + cy
            ends[s, e, 2] = 1 / z
            wide = 0.5 * width * f / z + 2
            left, right = min(left, int(ends[s, e, 0] - wide)), max(right, int(ends[s, e, 0] + wide) + 1)
            top, bottom = min(top, int(ends[s, e, 1] - wide)), max(bottom, int(ends[s, e, 1] + wide) + 1)
    left, top, right, bottom = max(left - x0, 0), max(top - y0, 0), min(right - x0, w), min(bottom - y0, h)
    if left >= right or top >= bottom:
        return
    cover = np.zeros((bottom - top, right - left), np.float32)
    near = np.zeros((bottom - top, right - left), np.float32)
    for s in range(segments.shape[0]):
        ax, ay, ia = ends[s, 0, 0], ends[s, 0, 1], ends[s, 0, 2]
        bx, by, ib = ends[s, 1, 0], ends[s, 1, 1], ends[s, 1, 2]
        true = 0.25 * width * f * (ia + ib)
        half = max(true, 0.5)
        dx, dy = bx - ax, by - ay
        dd = dx * dx + dy * dy + 1e-9
        for j in range(max(top, int(min(ay, by) - half - 1) - y0), min(bottom, int(max(ay, by) + half + 2) - y0)):
            for i in range(max(left, int(min(ax, bx) - half - 1) - x0), min(right, int(max(ax, bx) + half + 2) - x0)):
                px, py = x0 + i + 0.5 - ax, y0 + j + 0.5 - ay
                t = _unit((px * dx + py * dy) / dd)
                ex, ey = px - t * dx, py - t * dy
                a = _unit(0.5 + half - math.sqrt(ex * ex + ey * ey)) * min(1.0, true / half)
                z = ia + (ib - ia) * t
                if a > cover[j - top, i - left] and z * 1.002 > depth[j, i]:
                    cover[j - top, i - left] = a
                    near[j - top, i - left] = z
    for j in range(top, bottom):
        for i in range(left, right):
            a = cover[j - top, i - left]
            if a > 0 and (depth[j, i] > 0 or a >= 0.5):
                v = code[j, i]
                if depth[j, i] == 0:
                    v, a = 0, np.float32(1.0)
                r, g, b = v & 1023, (v >> 10) & 1023, (v >> 20) & 1023
                r, g, b = r + (shown[0] - r) * a, g + (shown[1] - g) * a, b + (shown[2] - b) * a
                code[j, i] = int(r) | (int(g) << 10) | (int(b) << 20)
                depth[j, i] = max(depth[j, i], near[j - top, i - left])
