"""Kernels that draw: they pose and light vertices, draw grids into a depth buffer, and average samples to pixels.

Samples carry 1 / depth (float32, 0 = nothing) and a code: three times ten bits of colour, bit 30 where skin may be
painted on, the sign where hair is (paint.py paints both). Two by two samples make a pixel.
"""

from __future__ import annotations

import math

import numpy as np

from gazepose.synthetic.compiled import compiled


@compiled
def light_vertices(
    position, normal, albedo, jaw, hang, gloss, kind, rise, free, turns, origin, drop, light, camera, window,
    sx, sy, iz, rgb
):
    """Pose, project and light every vertex: sx, sy in samples, iz = 1 / depth (-1 behind), rgb 0..1023 as shown.

    turns: rotations of the head, the body, the upright head; camera: f, cx, cy; light: see light.py, and so are rise
    and free, the share [N] of the main light that reaches a vertex.
    Vertices that face away, or lie outside the window (samples x0, y0, x1, y1) by more than a cell, are left unlit.
    """
    m = np.empty((3, 3))
    head, body, upright = turns[0], turns[1], turns[2]
    f, cx, cy = camera[0], camera[1], camera[2]
    lx, ly, lz = light[0, 0], light[0, 1], light[0, 2]
    colour, sky, ground, second = light[1], light[2], light[3], light[5]
    bleed = 1 - 0.55 * light[6, 0]
    before = -2.0
    for i in range(position.shape[0]):
        w = hang[i]
        if w != before:
            before = w
            for r in range(3):
                for c in range(3):
                    other = body[r, c] if w >= 0 else upright[r, c]
                    m[r, c] = head[r, c] + (other - head[r, c]) * abs(w)
        a = position[i, 0]
        b = position[i, 1] - drop * jaw[i]
        c = position[i, 2] - 0.25 * drop * jaw[i]
        x = m[0, 0] * a + m[0, 1] * b + m[0, 2] * c + origin[0]
        y = m[1, 0] * a + m[1, 1] * b + m[1, 2] * c + origin[1]
        z = m[2, 0] * a + m[2, 1] * b + m[2, 2] * c + origin[2]
        if z < 0.05:
            iz[i] = -1.0
            sx[i] = sy[i] = 0.0
            continue
        inv = 1.0 / z
        iz[i] = inv
        sx[i] = f * x * inv + cx
        sy[i] = f * y * inv + cy
        cell = 0.09 * f * inv
        if sx[i] < window[0] - cell or sx[i] > window[2] + cell or sy[i] < window[1] - cell or sy[i] > window[3] + cell:
            continue
        a, b, c = normal[i, 0], normal[i, 1], normal[i, 2]
        nx = m[0, 0] * a + m[0, 1] * b + m[0, 2] * c
        ny = m[1, 0] * a + m[1, 1] * b + m[1, 2] * c
        nz = m[2, 0] * a + m[2, 1] * b + m[2, 2] * c
        size = 1.0 / math.sqrt(nx * nx + ny * ny + nz * nz + 1e-12)
        nx *= size
        ny *= size
        nz *= size
        far = -1.0 / math.sqrt(x * x + y * y + z * z)
        vx, vy, vz = x * far, y * far, z * far
        nv = nx * vx + ny * vy + nz * vz
        inside = 1.0
        if kind[i] & 2:
            if nv < -0.05:  # the back of a sheet
                nx, ny, nz = -nx, -ny, -nz
                inside = 0.45
        elif nv < -0.6:
            continue
        nl = nx * lx + ny * ly + nz * lz
        n2 = nx * light[4, 0] + ny * light[4, 1] + nz * light[4, 2]
        up = 0.5 - 0.5 * ny
        open_sky = 1 - rise[i, 8] * (0.8 / 127)  # share of the surroundings that a hollow sees
        spec = 0.0
        if gloss[i] > 0:
            hx, hy, hz = lx + vx, ly + vy, lz + vz
            nh = nx * hx + ny * hy + nz * hz
            if nh > 0:
                nh = nh * nh / (hx * hx + hy * hy + hz * hz + 1e-9)
                nh *= nh
                nh *= nh
                spec = gloss[i] * nh * nh * free[i]
        for k in range(3):
            wrap = (0.42 - 0.10 * k) * bleed  # light bleeds around skin, red most
            lit = max(0.0, (nl + wrap) / (1 + wrap)) * free[i]
            around = second[k] * max(0.0, (n2 + wrap) / (1 + wrap)) + open_sky * (sky[k] * up + ground[k] * (1 - up))
            shown = albedo[i, k] * (colour[k] * lit + around) + spec * colour[k]
            rgb[i, k] = min(1023.0, 1023.0 * math.sqrt(max(inside * shown, 0.0)))


@compiled
def draw_grids(sx, sy, iz, col, kind, grids, x0, y0, depth, code):
    """Draw all grids into the sample buffers whose first sample is x0, y0.

    A sample's value depends only on its place in the picture, so a part of the picture equals the same part of the
    whole. One long loop on purpose: helpers would cost speed or change the last bit.
    """
    h, w = depth.shape
    eps = -1e-6  # neighbours overlap by a hair: no pinholes
    for g in range(grids.shape[0]):
        first, rows, cols, flags = grids[g, 0], grids[g, 1], grids[g, 2], grids[g, 3]
        both = (flags & 2) != 0
        for quad in range((rows - 1) * cols):
            column = quad % cols
            a0 = first + quad
            b0 = a0 + 1
            if column == cols - 1:
                if (flags & 1) == 0:
                    continue
                b0 -= cols
            d0, e0 = a0 + cols, b0 + cols
            area1 = (sx[b0] - sx[a0]) * (sy[d0] - sy[a0]) - (sy[b0] - sy[a0]) * (sx[d0] - sx[a0])
            area2 = (sx[e0] - sx[b0]) * (sy[d0] - sy[b0]) - (sy[e0] - sy[b0]) * (sx[d0] - sx[b0])
            if not both and area1 < 1e-7 and area2 < 1e-7:
                continue
            if iz[a0] < 0 or iz[b0] < 0 or iz[d0] < 0 or iz[e0] < 0:
                continue
            left = min(min(sx[a0], sx[b0]), min(sx[d0], sx[e0]))
            right = max(max(sx[a0], sx[b0]), max(sx[d0], sx[e0]))
            top = min(min(sy[a0], sy[b0]), min(sy[d0], sy[e0]))
            bottom = max(max(sy[a0], sy[b0]), max(sy[d0], sy[e0]))
            if right < x0 or bottom < y0 or left > x0 + w or top > y0 + h:
                continue
            mark = 1 << 30 if (kind[a0] & 1) + (kind[b0] & 1) + (kind[d0] & 1) + (kind[e0] & 1) >= 3 else 0
            if kind[a0] & kind[b0] & kind[d0] & kind[e0] & 4:
                mark = -(1 << 31)
            for half in range(2):
                a = a0 if half == 0 else b0
                b = b0 if half == 0 else e0
                d = d0
                ax, ay, bx, by, dx, dy = sx[a], sy[a], sx[b], sy[b], sx[d], sy[d]
                area = area1 if half == 0 else area2
                if not (area > 1e-7 or (both and area < -1e-7)):
                    continue
                lo_y = max(int(math.ceil(min(ay, min(by, dy)) - 0.5)) - y0, 0)
                hi_y = min(int(math.floor(max(ay, max(by, dy)) - 0.5)) - y0, h - 1)
                lo_x = max(int(math.ceil(min(ax, min(bx, dx)) - 0.5)) - x0, 0)
                hi_x = min(int(math.floor(max(ax, max(bx, dx)) - 0.5)) - x0, w - 1)
                if lo_x > hi_x or lo_y > hi_y:
                    continue
                inv = 1.0 / area
                # weights of b and d as affine functions of the place
                bux, buy = (dy - ay) * inv, (ax - dx) * inv
                dux, duy = (ay - by) * inv, (bx - ax) * inv
                aux, auy = -bux - dux, -buy - duy
                # depth and colour likewise: value at (0, 0) and steps
                z0, r0, g0, l0 = iz[a], col[a, 0], col[a, 1], col[a, 2]
                zu, zd = iz[b] - z0, iz[d] - z0
                zx, zy = zu * bux + zd * dux, zu * buy + zd * duy
                zu, zd = col[b, 0] - r0, col[d, 0] - r0
                rx, ry = zu * bux + zd * dux, zu * buy + zd * duy
                zu, zd = col[b, 1] - g0, col[d, 1] - g0
                gx, gy = zu * bux + zd * dux, zu * buy + zd * duy
                zu, zd = col[b, 2] - l0, col[d, 2] - l0
                lx, ly = zu * bux + zd * dux, zu * buy + zd * duy
                if max(ax, max(bx, dx)) - min(ax, min(bx, dx)) < 6:  # testing every sample is faster than finding spans
                    for j in range(lo_y, hi_y + 1):
                        py = y0 + j + 0.5 - ay
                        for i in range(lo_x, hi_x + 1):
                            px = x0 + i + 0.5 - ax
                            if px * bux + py * buy < eps or px * dux + py * duy < eps:
                                continue
                            if px * aux + py * auy < eps - 1.0:
                                continue
                            z = np.float32(z0 + py * zy + px * zx)
                            if z > depth[j, i]:
                                depth[j, i] = z
                                red, green = r0 + py * ry + px * rx, g0 + py * gy + px * gx
                                blue = l0 + py * ly + px * lx
                                code[j, i] = int(red + 0.5) | (int(green + 0.5) << 10) | (int(blue + 0.5) << 20) | mark
                    continue
                rb = 1.0 / bux if abs(bux) > 1e-12 else 0.0
                rd = 1.0 / dux if abs(dux) > 1e-12 else 0.0
                ra = 1.0 / aux if abs(aux) > 1e-12 else 0.0
                for j in range(lo_y, hi_y + 1):
                    py = y0 + j + 0.5 - ay
                    lo, hi = lo_x + x0 + 0.5 - ax, hi_x + x0 + 0.5 - ax
                    # the span of this row inside the three edges
                    edge = eps - py * buy
                    if rb > 0:
                        lo = max(lo, edge * rb)
                    elif rb < 0:
                        hi = min(hi, edge * rb)
                    elif edge > 0:
                        continue
                    edge = eps - py * duy
                    if rd > 0:
                        lo = max(lo, edge * rd)
                    elif rd < 0:
                        hi = min(hi, edge * rd)
                    elif edge > 0:
                        continue
                    edge = eps - 1.0 - py * auy
                    if ra > 0:
                        lo = max(lo, edge * ra)
                    elif ra < 0:
                        hi = min(hi, edge * ra)
                    elif edge > 0:
                        continue
                    start, stop = int(math.ceil(lo + ax - 0.5)) - x0, int(math.floor(hi + ax - 0.5)) - x0
                    zr, red, green, blue = z0 + py * zy, r0 + py * ry + 0.5, g0 + py * gy + 0.5, l0 + py * ly + 0.5
                    for i in range(max(start, 0), min(stop + 1, w)):
                        px = x0 + i + 0.5 - ax
                        z = np.float32(zr + px * zx)
                        if z > depth[j, i]:
                            depth[j, i] = z
                            shade = int(red + px * rx) | (int(green + px * gx) << 10) | (int(blue + px * lx) << 20)
                            code[j, i] = shade | mark


@compiled
def visible(sx, sy, iz, grids, points, limit):
    """Which points [k, 2] no triangle hides, bool [k]; a triangle hides one if its 1 / depth is above the limit [k]."""
    free = np.ones(points.shape[0], np.bool_)
    for g in range(grids.shape[0]):
        first, rows, cols, flags = grids[g, 0], grids[g, 1], grids[g, 2], grids[g, 3]
        for r in range(rows - 1):
            for c in range(cols if flags & 1 else cols - 1):
                b0 = first + r * cols + (c + 1) % cols
                d0 = first + r * cols + c + cols
                for half in range(2):
                    a = first + r * cols + c if half == 0 else b0 + cols
                    b = b0 if half == 0 else d0
                    d = d0 if half == 0 else b0
                    area = (sx[b] - sx[a]) * (sy[d] - sy[a]) - (sy[b] - sy[a]) * (sx[d] - sx[a])
                    if area < 1e-9:
                        continue
                    for k in range(points.shape[0]):
                        if not free[k] or max(iz[a], max(iz[b], iz[d])) < limit[k]:
                            continue
                        px, py = points[k, 0] - sx[a], points[k, 1] - sy[a]
                        wb = px * (sy[d] - sy[a]) - py * (sx[d] - sx[a])
                        wc = py * (sx[b] - sx[a]) - px * (sy[b] - sy[a])
                        if wb < 0 or wc < 0 or wb + wc > area:
                            continue
                        wb, wc = wb / area, wc / area
                        if iz[a] + wb * (iz[b] - iz[a]) + wc * (iz[d] - iz[a]) > limit[k]:
                            free[k] = False
    return free


@compiled
def average_samples(depth, code, out, alpha):
    """Average 2 x 2 samples: out gets the colour of the covered ones, alpha their share."""
    for j in range(out.shape[0]):
        for i in range(out.shape[1]):
            r = g = b = count = 0
            for v in range(2):
                for u in range(2):
                    if depth[2 * j + v, 2 * i + u] > 0:
                        k = code[2 * j + v, 2 * i + u]
                        count += 1
                        r += k & 1023
                        g += (k >> 10) & 1023
                        b += (k >> 20) & 1023
            alpha[j, i] = 0.25 * count
            scale = 255.0 / (1023.0 * count) if count else 0.0
            out[j, i, 0] = int(r * scale + 0.5)
            out[j, i, 1] = int(g * scale + 0.5)
            out[j, i, 2] = int(b * scale + 0.5)
