"""Kernels that paint skin, brows, nostrils, lips and hair, per sample, on the surface that raster.py drew.

A person is given as one vector of numbers and one table of colours; their places are named here. Eyes: see eyes.py.
numba's cache checks one file only, so all that these kernels call, and every constant they read, is in this file.
"""

from __future__ import annotations

import math

import numpy as np

from gazepose.synthetic.compiled import compiled, turned, unit

MOUTH_GAP = 0.016  # metres between the lips at mouth = 1
TEXEL, LEFT, TOP = 0.0008, -0.084, 0.092  # map of the skin, head frame: metres per cell, corner; its columns and rows
WIDE, HIGH = 212, 252

# places in the vector of numbers the painting kernel reads
(BROW_Y, BROW_ARCH, BROW_THICK, BROW_IN, BROW_OUT, BROW_DENSE, BROW_PEAK, BROW_TILT, EYE_Y) = range(9)
(MOUTH_Y, MOUTH_W, MOUTH_SMILE, TEETH, LIP_UP, LIP_LOW, NOSTRIL_X, NOSTRIL_Y, TEXTURE, N_PAINT) = range(9, 19)
LENGTHS = [BROW_Y, BROW_ARCH, BROW_THICK, BROW_IN, BROW_OUT, *range(BROW_TILT, TEXTURE)]  # grow with the head
# rows of the colour table: reflectance of the mouth's inside; for brow, lip and nostril the ratio to the skin as shown
C_BROW, C_LIP, C_DARK, C_INNER, N_COLOUR = range(5)


@compiled
def _bell(x2):
    """About exp(-x2), without its cost; 0 from x2 = 4 on."""
    q = max(0.0, 1 - 0.25 * x2)
    return q * q * q * q


@compiled
def _brow(paint, colours, bx, qy, foot, squint, tint):
    """Factors of the skin under an eyebrow, into tint; bx and qy: metres from the middle and above the eye."""
    t = (bx - paint[BROW_IN]) / (paint[BROW_OUT] - paint[BROW_IN])
    v = t - paint[BROW_PEAK]
    line = paint[BROW_Y] + paint[BROW_ARCH] * (1 - 5.5 * v * v) - 0.003 * squint
    line += paint[BROW_TILT] * (t - 0.4)
    if abs(qy - line) > 1.3 * paint[BROW_THICK] + 0.002:
        return
    strand = 900 * bx - 500 * (qy - line) * (0.3 + 1.4 * t) + paint[TEXTURE]
    thick = max(paint[BROW_THICK] * (0.70 + 0.9 * t - 1.35 * t * t), 1e-4)
    if foot < 0.001:  # hairs stand out at the edges
        thick *= 1 + 0.22 * math.sin(2.3 * strand) * math.sin(0.7 * strand)
    soft = max(0.0022, foot * 0.6)
    m = unit((thick + 0.0006 - abs(qy - line)) / soft) * paint[BROW_DENSE]
    m *= unit((t + 0.06) * 6) * unit((1.03 - t) * 5)
    if m > 0:
        m *= 0.82 + (0.18 * math.sin(strand) if foot < 0.001 else 0.0)
        for c in range(3):
            tint[c] *= 1 + (colours[C_BROW, c] - 1) * m


@compiled
def _mouth(paint, colours, light, mouth, px, py, foot, tint, over):
    """Factors of the skin on the lips, into tint; over [4]: colour of what lies in the open mouth, and its share.

    Returns: darkness of the line between the lips, 0..1.
    """
    my, mw, gap = paint[MOUTH_Y], paint[MOUTH_W] * (1 - 0.12 * mouth), MOUTH_GAP * mouth + paint[TEETH]
    shrink = 1 - 0.15 * min(1.0, gap / MOUTH_GAP)
    s = px / mw
    arch = max(0.0, 1 - s * s)
    root = math.sqrt(arch)
    dip = _bell(s * s / 0.02)
    mid = my + paint[MOUTH_SMILE] * s * s - 0.0006 * dip
    top = mid + shrink * paint[LIP_UP] * (0.4 * arch + 0.6 * root) * (1 - 0.22 * dip)
    inner_up = mid + 0.25 * min(paint[TEETH], gap) * arch + 0.10 * gap * root
    inner_low = mid - 0.90 * gap * (0.75 * arch + 0.25 * root)
    lip_low = shrink * paint[LIP_LOW]
    bottom = inner_low - lip_low * (0.3 * arch + 0.7 * root)
    top += inner_up - mid
    lip = unit(0.5 + min(top - py, py - bottom) / max(foot, 0.0018)) * unit((1 - abs(s)) * 9)
    v = (py - inner_low + 0.45 * lip_low) / 0.0016
    shine = 1 + 0.14 * arch / (1 + v * v)
    if py > inner_up:
        shine *= 1 - 0.12 * lip  # the upper lip faces down
    if foot < 0.0007 and lip > 0:
        shine *= 1 + 0.05 * lip * math.sin(2100 * px + 300 * py * s + paint[TEXTURE])
    below = (bottom - 0.0035 - py) / 0.0035
    shine *= 1 - 0.16 * arch * _bell(below * below)  # shadow of the lower lip
    corner = (abs(s) - 1.02) / 0.09
    away = (py - mid) / 0.003
    shine *= 1 - 0.30 * _bell(corner * corner + away * away)
    for c in range(3):
        tint[c] *= (1 + (colours[C_LIP, c] - 1) * lip) * shine
    dark = 0.0
    if gap < 0.004:
        wide = max(0.0008 + 0.0005 * dip, 0.5 * foot)
        v = (py - mid) / wide
        if v * v < 9:
            dark = 0.8 * _bell(v * v) * 0.0009 / wide * unit((1.04 - abs(s)) * 10) * (1 - gap / 0.004)
    over[3] = unit(0.5 + min(inner_up - py, py - inner_low) / foot) * unit(gap / 0.001)
    if over[3] > 0:
        high = min(0.0062, 0.42 * gap) if paint[TEETH] == 0 else max(0.92 * paint[TEETH], min(0.0075, 0.5 * gap))
        teeth = py - inner_up + high * root
        teeth = unit(0.5 + teeth / foot) * unit((0.92 - abs(s)) * 4)
        between = abs(abs(px) / 0.0078 - math.floor(abs(px) / 0.0078 + 0.5))
        teeth *= 1 - 0.22 * unit(1 - between * 0.0078 / max(0.0007, foot))
        deep = (0.45 + 0.55 * arch) * unit(0.6 + (inner_up - py) / 0.004)
        for c in range(3):
            alb = colours[C_INNER, c] * (1 - teeth) + (0.60 - 0.07 * c) * teeth * deep
            lin = alb * (0.5 * light[1, c] + 0.4 * light[2, c] + 0.3 * light[3, c])
            over[c] = 1023 * math.sqrt(lin)
    return dark


@compiled
def paint_face(paint, colours, skin, mouth, squint, head, position, light, camera, x0, y0, box, depth, code):
    """Paint skin, brows, nostrils and lips on the skin samples inside box (samples: x1, y1, x2, y2).

    skin: a map of the skin, uint8 [h, w, 4]: brightness, redness, slope to the own left and up (skin.py).
    """
    h, w = depth.shape
    f, cx, cy = camera[0], camera[1], camera[2]
    towards = turned(head.T, light[0])  # the main light in the head frame
    origin = -turned(head.T, position)  # the camera in the head frame
    strength = 0.0009 * (0.4 + 0.6 * light[6, 0])
    slope_x, slope_y = strength * towards[0] * 4, strength * towards[1] * 4
    per_cell = skin.shape[1] / (TEXEL * WIDE)
    my, mw, gap = paint[MOUTH_Y], paint[MOUTH_W], MOUTH_GAP * mouth + paint[TEETH]
    tint, plain, over = np.empty(3), np.empty(3), np.zeros(4)
    columns, rows = skin.shape[1] - 1, skin.shape[0] - 1
    ax, ay, az = head[0, 0] / f, head[0, 1] / f, head[0, 2] / f
    top, left = max(box[1] - y0, 0) // 2 * 2, max(box[0] - x0, 0) // 2 * 2
    for j in range(top, min(box[3] - y0, h - 1), 2):  # two by two samples have one place in the map of the skin
        down = (y0 + j + 1.0 - cy) / f
        bx0, by0, bz0 = head[1, 0] * down + head[2, 0], head[1, 1] * down + head[2, 1], head[1, 2] * down + head[2, 2]
        for i in range(left, min(box[2] - x0, w - 1), 2):
            near = max(max(depth[j, i], depth[j, i + 1]), max(depth[j + 1, i], depth[j + 1, i + 1]))
            if near == 0 or max(max(code[j, i], code[j, i + 1]), max(code[j + 1, i], code[j + 1, i + 1])) < (1 << 30):
                continue
            z, across = 1.0 / near, x0 + i + 1.0 - cx
            px, py = (ax * across + bx0) * z + origin[0], (ay * across + by0) * z + origin[1]
            pz = (az * across + bz0) * z + origin[2]
            if pz < 0.0:
                continue
            column = min(max(int((px - LEFT) * per_cell), 0), columns)
            row = min(max(int((TOP - py) * per_cell), 0), rows)
            bump = (skin[row, column, 2] - 128.0) * slope_x + (skin[row, column, 3] - 128.0) * slope_y
            bright = skin[row, column, 0] * (1 / 128.0) * (1 + bump)
            blush = (skin[row, column, 1] - 128.0) * (1 / 300.0)
            plain[0], plain[1], plain[2] = bright * (1 + 0.25 * blush), bright * (1 - blush), bright * (1 - 0.9 * blush)
            bx, qy, foot = abs(px), py - paint[EYE_Y], z / f
            at_brow = paint[BROW_IN] - 0.007 < bx < paint[BROW_OUT] + 0.005 and abs(qy - paint[BROW_Y]) < 0.013
            at_brow = at_brow and pz > 0.02
            at_nose = abs(py - paint[NOSTRIL_Y]) < 0.007 and abs(bx - paint[NOSTRIL_X]) < 0.010 and pz > 0.02
            at_mouth = bx < 1.2 * mw and my - 0.025 - gap < py < my + 0.020 and pz > 0.02
            special = at_brow or at_nose or at_mouth
            red, green, blue = int(1024 * plain[0]), int(1024 * plain[1]), int(1024 * plain[2])
            for k in range(4):
                jj, ii = j + (k >> 1), i + (k & 1)
                v = code[jj, ii]
                if v >= (1 << 30) and not special:
                    r, g = min(((v & 1023) * red) >> 10, 1023), min((((v >> 10) & 1023) * green) >> 10, 1023)
                    b = min((((v >> 20) & 1023) * blue) >> 10, 1023)
                    code[jj, ii] = r | (g << 10) | (b << 20) | (1 << 30)
                    continue
                if v < (1 << 30) or depth[jj, ii] == 0:
                    continue
                tint[0], tint[1], tint[2] = plain[0], plain[1], plain[2]
                over[3] = dark = 0.0
                zz, x, y = 1.0 / depth[jj, ii], x0 + ii + 0.5 - cx, (y0 + jj + 0.5 - cy) / f
                px = (ax * x + head[1, 0] * y + head[2, 0]) * zz + origin[0]
                py = (ay * x + head[1, 1] * y + head[2, 1]) * zz + origin[1]
                if at_brow:
                    _brow(paint, colours, abs(px), py - paint[EYE_Y], foot, squint, tint)
                if at_nose:
                    s, t = (abs(px) - paint[NOSTRIL_X]) / 0.0042, (py - paint[NOSTRIL_Y]) / 0.0021
                    dark = 0.85 * _bell(1.1 * (s * s + t * t))
                if at_mouth:
                    dark = max(dark, _mouth(paint, colours, light, mouth, px, py, foot, tint, over))
                mixed = 0
                for c in range(3):
                    value = ((v >> (10 * c)) & 1023) * tint[c]
                    if over[3] > 0 or dark > 0:
                        value = (value + (over[c] - value) * over[3]) * (1 + (colours[C_DARK, c] - 1) * dark)
                    mixed |= int(min(value, 1023.0)) << (10 * c)
                code[jj, ii] = mixed | (1 << 30)


@compiled
def paint_hair(strands, length, head, position, camera, x0, y0, depth, code):
    """Draw strands on the samples of hair (code < 0). strands: uint8 [n, n], run down; length: metres they span."""
    h, w = depth.shape
    f, cx, cy = camera[0], camera[1], camera[2]
    origin = -turned(head.T, position)
    n = strands.shape[0]
    for j in range(0, h - 1, 2):  # two by two samples have one place in the map
        for i in range(0, w - 1, 2):
            if min(min(code[j, i], code[j, i + 1]), min(code[j + 1, i], code[j + 1, i + 1])) >= 0:
                continue
            near = max(max(depth[j, i], depth[j, i + 1]), max(depth[j + 1, i], depth[j + 1, i + 1]))
            if near == 0:
                continue
            z = 1.0 / near
            x, y = (x0 + i + 1.0 - cx) * z / f, (y0 + j + 1.0 - cy) * z / f
            px = head[0, 0] * x + head[1, 0] * y + head[2, 0] * z + origin[0]
            py = head[0, 1] * x + head[1, 1] * y + head[2, 1] * z + origin[1]
            pz = head[0, 2] * x + head[1, 2] * y + head[2, 2] * z + origin[2]
            wave = 160 * py - 4000 * py * abs(py)  # locks are not straight
            across = math.atan2(px, pz + 0.01) * (n / math.pi) + wave
            factor = np.int64(strands[int((0.3 - py) * n / length) & (n - 1), int(across + 2 * n) & (n - 1)])
            for k in range(4):
                jj, ii = j + (k >> 1), i + (k & 1)
                v = code[jj, ii]
                if v < 0 and depth[jj, ii] > 0:
                    r, g = min(((v & 1023) * factor) >> 7, 1023), min((((v >> 10) & 1023) * factor) >> 7, 1023)
                    b = min((((v >> 20) & 1023) * factor) >> 7, 1023)
                    code[jj, ii] = r | (g << 10) | (b << 20) | (-2147483648)
