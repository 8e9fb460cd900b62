"""The scene around the people: the room behind them, and hands and things before a face.

Nothing here depends on gaze. Pictures are uint8 RGB [H, W, 3].
"""

from dataclasses import dataclass

import cv2
import numpy as np

from gazepose.synthetic.presets import WorldPreset

WALLS = [(214, 209, 199), (196, 200, 192), (190, 196, 204), (202, 193, 180), (178, 187, 178), (205, 198, 192),
         (166, 173, 182), (187, 176, 168), (150, 158, 160), (208, 200, 184)]
WOODS = [(140, 108, 80), (112, 86, 64), (168, 140, 108), (92, 72, 58), (206, 202, 196), (78, 78, 82), (150, 128, 104)]
MUTED = [(106, 118, 132), (132, 116, 102), (122, 134, 116), (142, 108, 96), (90, 100, 114), (164, 154, 136),
         (104, 90, 98), (178, 170, 158), (86, 96, 88), (152, 134, 112)]
SCALE = 0.5      # of the picture's resolution; the room is out of focus, so half is enough


def _shade(colour, factor: float) -> tuple[int, int, int]:
    red, green, blue = (min(max(int(c * factor), 0), 255) for c in colour)
    return red, green, blue


# ------------------------------------------------------------------------------------------------ the room

@dataclass(frozen=True)
class Room:
    """A wall with furniture, painted once for each shot on the plane z = 1 of the world."""

    canvas: np.ndarray      # uint8 [h, w, 3]
    focal: float            # canvas pixels per unit of that plane

    def view(self, preset: WorldPreset, rotation: np.ndarray, region: tuple[int, int, int, int] | None = None
             ) -> np.ndarray:
        """The room as a camera sees it that is turned by rotation (camera -> world).

        Args:
            region: x0, y0, x1, y1 of the part of the picture that is drawn; None: all of it.
        """
        x0, y0, x1, y1 = region or (0, 0, *preset.size)
        w, h = preset.size
        f = preset.focal
        rays = rotation @ np.array([[1 / f, 0, (x0 - w / 2) / f], [0, 1 / f, (y0 - h / 2) / f], [0, 0, 1]])
        rows, columns = self.canvas.shape[:2]
        onto = np.array([[self.focal, 0, columns / 2], [0, self.focal, rows / 2], [0, 0, 1]]) @ rays
        return cv2.warpPerspective(self.canvas, onto, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                                   borderMode=cv2.BORDER_REFLECT_101)


def make_room(rng: np.random.Generator, preset: WorldPreset, farthest: float) -> Room:
    """Paint a room: wall, skirting, and some furniture side by side.

    farthest: metres to the last person, who sits before the wall.
    """
    focal = SCALE * preset.focal
    width = int(2 * focal * np.tan(np.radians(min(preset.view / 2 + 20, 60))))
    height = int(2 * focal * (np.tan(np.radians(18)) + preset.size[1] / 2 / preset.focal))
    canvas = np.empty((height, width, 3), np.uint8)
    depth = max(farthest + 0.8, rng.uniform(2.4, 4.0))
    metre = focal / depth                                       # canvas pixels per metre of wall
    wall = np.array(WALLS[rng.integers(len(WALLS))], float) * rng.uniform(0.82, 1.02)
    canvas[:] = np.clip(wall, 0, 255)
    middle, eye, floor = width / 2, height / 2, height / 2 + metre * rng.uniform(1.05, 1.4)

    def box(x0, y0, x1, y1, colour, canvas=canvas):
        cv2.rectangle(canvas, (round(x0), round(y0)), (round(x1) - 1, round(y1) - 1), colour, -1)

    if rng.random() < 0.25:                                     # the lower wall panelled in a darker tone
        box(0, eye + metre * 0.25, width, floor, _shade(wall, 0.88))
        box(0, eye + metre * 0.25, width, eye + metre * 0.29, _shade(wall, 1.04))
    box(0, floor, width, height, WOODS[rng.integers(4)])
    box(0, floor - 0.1 * metre, width, floor, _shade(wall, 1.06))
    x = middle - 2.6 * metre + rng.uniform(-0.8, 0.2) * metre
    while x < middle + 2.4 * metre:
        draw = (_window, _shelf, _cabinet, _door, _pictures, _plant, _lamp)[
            rng.choice(7, p=[0.2, 0.2, 0.16, 0.1, 0.18, 0.08, 0.08])]
        x = draw(rng, box, canvas, x, eye, floor, metre, wall) + rng.uniform(0.15, 0.75) * metre

    soft = rng.normal(0, 1, (height // 24 + 2, width // 24 + 2)).astype(np.float32)      # stains and uneven plaster
    light = cv2.resize(soft, (width, height), interpolation=cv2.INTER_CUBIC) * 0.008
    left, right = rng.uniform(-0.13, 0.13, 2)
    light += np.linspace(left, right, width, dtype=np.float32)[None]
    light += np.linspace(0.04, -0.08, height, dtype=np.float32)[:, None]
    light = np.clip(128 * (1 + light), 0, 255).astype(np.uint8)
    canvas = cv2.multiply(canvas, cv2.merge([light] * 3), scale=1 / 128)
    return Room(cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.7, 1.5) * max(1.0, preset.size[0] / 640)), focal)


def _window(rng, box, canvas, x, eye, floor, m, wall) -> float:
    w, top, bottom = rng.uniform(0.9, 1.7) * m, eye - rng.uniform(0.8, 1.1) * m, eye + rng.uniform(0.0, 0.35) * m
    frame = WOODS[rng.choice([0, 2, 4, 4, 4])]
    box(x, top, x + w, bottom, frame)
    sky = np.array([214, 222, 230]) * rng.uniform(0.85, 1.08)
    ground = np.array([138, 150, 128]) * rng.uniform(0.7, 1.15)
    edge = 0.06 * m
    panes = int(rng.integers(1, 4))
    for i in range(panes):
        a, b = x + edge / 2 + i * (w - edge / 2) / panes, x + (i + 1) * (w - edge / 2) / panes
        box(a, top + edge, b, bottom - edge, _shade(sky, 1))
        line = bottom - rng.uniform(0.28, 0.34) * (bottom - top)
        box(a, line, b, bottom - edge, _shade(ground, 1))
        box(a, line - 0.05 * m, b, line, _shade((sky + ground) / 2, 1))
    box(x - 0.05 * m, bottom, x + w + 0.05 * m, bottom + 0.05 * m, _shade(frame, 0.95))
    if rng.random() < 0.6:                                      # curtains, in soft folds
        cloth = np.array(MUTED[rng.integers(len(MUTED))] if rng.random() < 0.4 else wall * 0.95, float)
        for side in (x - 0.2 * m, x + w - 0.15 * m):
            fold = 0.05 * m
            for k in range(7):
                box(side + k * fold, top - 0.08 * m, side + (k + 1) * fold, bottom + 0.3 * m,
                    _shade(cloth, 1 + 0.05 * np.sin(2.4 * k + 1)))
    return x + w


def _shelf(rng, box, canvas, x, eye, floor, m, wall) -> float:
    w, top = rng.uniform(0.7, 1.4) * m, eye - rng.uniform(0.5, 1.0) * m
    wood = WOODS[rng.integers(len(WOODS))]
    bottom = floor if rng.random() < 0.6 else eye + rng.uniform(0, 0.3) * m
    box(x + 0.05 * m, top + 0.04 * m, x + w + 0.05 * m, bottom, _shade(wall, 0.86))                 # its shadow
    box(x, top, x + w, bottom, wood)
    y, board = top + 0.05 * m, 0.035 * m
    tone = rng.uniform(0.55, 0.8)
    while y < bottom - 0.2 * m:
        high = rng.uniform(0.26, 0.36) * m
        box(x + board, y, x + w - board, y + high, _shade(wood, tone))
        at = x + board + rng.uniform(0, 0.1) * m
        end = x + w - board - rng.uniform(0, 0.5) * w
        while at < end:                                        # books, boxes and gaps
            thick = rng.uniform(0.025, 0.06) * m if rng.random() < 0.85 else rng.uniform(0.12, 0.25) * m
            if rng.random() < 0.9:
                box(at, y + high * rng.uniform(0.12, 0.4), min(at + thick, end), y + high,
                    _shade(MUTED[rng.integers(len(MUTED))], rng.uniform(0.75, 1.1)))
            at += thick
        y += high + board
    return x + w


def _cabinet(rng, box, canvas, x, eye, floor, m, wall) -> float:
    w, top = rng.uniform(0.9, 1.8) * m, eye + rng.uniform(0.18, 0.45) * m
    wood = WOODS[rng.integers(len(WOODS))]
    box(x + 0.04 * m, top + 0.03 * m, x + w + 0.05 * m, floor, _shade(wall, 0.85))
    box(x, top, x + w, floor - 0.05 * m, wood)
    box(x - 0.02 * m, top, x + w + 0.02 * m, top + 0.04 * m, _shade(wood, 1.12))
    doors = int(rng.integers(2, 4))
    for i in range(1, doors):
        box(x + i * w / doors, top + 0.05 * m, x + i * w / doors + 0.015 * m, floor - 0.06 * m, _shade(wood, 0.75))
    for _ in range(rng.integers(0, 4)):                        # a vase, a stack of books
        at, wide, high = x + rng.uniform(0.05, 0.85) * w, rng.uniform(0.06, 0.2) * m, rng.uniform(0.06, 0.24) * m
        box(at, top - high, at + wide, top, _shade(MUTED[rng.integers(len(MUTED))], rng.uniform(0.8, 1.1)))
    if rng.random() < 0.5:
        _pictures(rng, box, canvas, x + 0.2 * w, eye, floor, m, wall)
    return x + w


def _door(rng, box, canvas, x, eye, floor, m, wall) -> float:
    w, top = 0.85 * m, eye - rng.uniform(0.75, 0.95) * m
    wood = WOODS[rng.choice([2, 4, 4, 6])]
    box(x - 0.07 * m, top - 0.07 * m, x + w + 0.07 * m, floor, _shade(wood, 0.92))
    box(x, top, x + w, floor, wood)
    for y0, y1 in ((0.12, 0.85), (1.0, 1.9)):
        box(x + 0.14 * m, top + y0 * m, x + w - 0.14 * m, min(top + y1 * m, floor - 0.1 * m), _shade(wood, 0.95))
    cv2.circle(canvas, (round(x + w - 0.08 * m), round(top + 1.0 * m)), max(1, round(0.03 * m)), (120, 112, 100), -1)
    return x + w


def _pictures(rng, box, canvas, x, eye, floor, m, wall) -> float:
    for _ in range(rng.integers(1, 3)):
        w, h = rng.uniform(0.3, 0.65) * m, rng.uniform(0.3, 0.6) * m
        y = eye - rng.uniform(0.35, 0.6) * m - h / 2
        frame = WOODS[rng.choice([0, 1, 4, 5])]
        box(x + 0.02 * m, y + 0.02 * m, x + w + 0.03 * m, y + h + 0.03 * m, _shade(wall, 0.85))
        box(x, y, x + w, y + h, frame)
        box(x + 0.03 * m, y + 0.03 * m, x + w - 0.03 * m, y + h - 0.03 * m, (206, 202, 194))
        a, b = rng.choice(len(MUTED), 2, replace=False)
        box(x + 0.09 * m, y + 0.09 * m, x + w - 0.09 * m, y + h * 0.6, _shade(MUTED[a], 1.15))
        box(x + 0.09 * m, y + h * 0.6, x + w - 0.09 * m, y + h - 0.09 * m, _shade(MUTED[b], 0.95))
        x += w + 0.15 * m
    return x


def _plant(rng, box, canvas, x, eye, floor, m, wall) -> float:
    base = eye + rng.uniform(0.5, 0.8) * m
    pot = MUTED[rng.choice([1, 3, 5, 7])]
    box(x + 0.1 * m, base, x + 0.4 * m, base + 0.3 * m, pot)
    for _ in range(26):                                        # leaves
        angle, long = rng.uniform(-1.1, 1.1), rng.uniform(0.25, 0.75) * m
        tip = (x + 0.25 * m + long * np.sin(angle), base - long * np.cos(angle))
        green = np.array([84, 104, 78]) * rng.uniform(0.65, 1.15)
        centre = ((x + 0.25 * m + tip[0]) / 2, (base + tip[1]) / 2)
        cv2.ellipse(canvas, ((float(centre[0]), float(centre[1])), (0.11 * m, float(long)), float(np.degrees(angle))),
                    _shade(green, 1), -1)
    return x + 0.5 * m


def _lamp(rng, box, canvas, x, eye, floor, m, wall) -> float:
    top = eye - rng.uniform(0.2, 0.5) * m
    shade = np.array([[x + 0.12 * m, top], [x + 0.32 * m, top], [x + 0.44 * m, top + 0.28 * m], [x, top + 0.28 * m]])
    box(x + 0.21 * m, top, x + 0.235 * m, floor, (84, 80, 76))
    cv2.fillPoly(canvas, [shade.round().astype(np.int32)], _shade((226, 212, 184), rng.uniform(0.85, 1.08)))
    return x + 0.45 * m


# -------------------------------------------------------------------------------- things before a face

UNIT = 96                                   # sprite pixels per width of a face
WIDE, HIGH = 3 * UNIT, 4 * UNIT
MIDDLE = (1.5 * UNIT, UNIT)
KINDS = ("hand", "cup", "phone", "book")


class _Sketch:
    """A sprite while it is drawn, at twice its size for smooth edges. Places are in widths of the face, from MIDDLE."""

    def __init__(self, rng: np.random.Generator, skin: np.ndarray, cloth: np.ndarray) -> None:
        self.rgb = np.zeros((2 * HIGH, 2 * WIDE, 3), np.uint8)
        self.mask = np.zeros((2 * HIGH, 2 * WIDE), np.uint8)
        self.skin, self.cloth = skin, cloth
        self.side = rng.choice([-1.0, 1.0])
        self.lift = rng.uniform(-0.04, 0.1)                     # the top of the thing, from the middle of the face
        self.elbow = (rng.uniform(0.7, 1.0), rng.uniform(2.2, 2.6))

    def at(self, x: float, y: float) -> tuple[int, int]:
        return round(2 * MIDDLE[0] + self.side * x * 2 * UNIT), round(2 * MIDDLE[1] + y * 2 * UNIT)

    def capsule(self, a, b, thick: float, colour) -> None:
        for canvas, c in ((self.rgb, colour), (self.mask, 255)):
            cv2.line(canvas, self.at(*a), self.at(*b), c, max(1, round(thick * 2 * UNIT)), cv2.LINE_AA)

    def solid(self, points, colour) -> None:
        polygon = np.array([self.at(*p) for p in points], np.int32)
        for canvas, c in ((self.rgb, colour), (self.mask, 255)):
            cv2.fillPoly(canvas, [polygon], c, cv2.LINE_AA)

    def finger(self, a, b, thick: float) -> None:
        skin, inner = self.skin, 0.012
        self.capsule(a, b, thick, _shade(skin, 0.62))                                    # the crease beside it
        self.capsule((a[0], a[1] - inner), (b[0], b[1] - inner), thick * 0.86, _shade(skin, 0.96))
        self.capsule((a[0], a[1] - 2.5 * inner), (b[0], b[1] - 2.5 * inner), thick * 0.4, _shade(skin, 1.06))
        nail = (b[0] + 0.12 * (a[0] - b[0]), b[1] + 0.12 * (a[1] - b[1]) - inner)
        self.capsule(nail, nail, thick * 0.38, _shade(skin * np.array([1.12, 1.04, 1.04]), 1.04))

    def arm(self, x: float, y: float, out: float = 1.0) -> None:
        ex, ey = out * self.elbow[0], self.elbow[1]
        for inner, tone in ((0.0, 0.78), (0.06, 0.9)):          # the upper arm, back to the shoulder
            self.capsule((ex, ey - 0.02), (out * 1.2, 1.75), 0.46 - inner, _shade(self.cloth, tone))
        for start, thick, colour in ((0.0, 0.27, _shade(self.skin, 0.78)), (0.02, 0.22, _shade(self.skin, 0.92)),
                                     (0.32, 0.40, _shade(self.cloth, 0.82)), (0.33, 0.35, _shade(self.cloth, 0.95))):
            self.capsule((x + start * (ex - x), y + start * (ey - y)), (ex, ey), thick, colour)


def _draw_hand(sketch: _Sketch) -> None:
    top = sketch.lift + 0.24
    sketch.arm(0.24, top + 0.36)
    sketch.solid([(-0.02, top + 0.02), (0.36, top), (0.42, top + 0.38), (0.08, top + 0.46)], _shade(sketch.skin, 0.9))
    for i in range(4):                                         # fingers laid across the mouth
        y = top + 0.005 + 0.105 * i
        sketch.finger((0.3, y + 0.02), (-0.24 + 0.05 * abs(i - 1.2), y - 0.03), 0.115)
    sketch.finger((0.34, top + 0.32), (0.33, top - 0.1), 0.125)


def _draw_cup(sketch: _Sketch, body: np.ndarray) -> None:
    top, low = sketch.lift + 0.16, sketch.lift + 0.66
    sketch.arm(0.2, low)
    for i in range(9):                                         # strips round the cup, light to dark
        a, b = -0.24 + 0.48 * i / 9, -0.24 + 0.48 * (i + 1) / 9 + 0.01
        sketch.solid([(a, top), (b, top), (b * 0.8, low), (a * 0.8, low)], _shade(body, 1.12 - 0.06 * i))
    radii = round(0.24 * 2 * UNIT), round(0.035 * 2 * UNIT)
    for canvas, c in ((sketch.rgb, _shade(body, 1.2)), (sketch.mask, 255)):
        cv2.ellipse(canvas, sketch.at(0, top), radii, 0, 0, 360, c, -1, cv2.LINE_AA)
    for i in range(3):
        sketch.finger((0.3, top + 0.14 + 0.11 * i), (-0.04 + 0.03 * i, top + 0.12 + 0.115 * i), 0.11)


def _draw_phone(sketch: _Sketch, body: np.ndarray, lean: float) -> None:
    top, low, half = sketch.lift + 0.04, sketch.lift + 0.86, 0.21
    sketch.solid([(-half + lean, top), (half + lean, top), (half, low), (-half, low)], _shade(body, 0.45))
    sketch.solid([(-half + lean + 0.02, top + 0.02), (half + lean - 0.02, top + 0.02), (half - 0.02, low - 0.02),
                  (-half + 0.02, low - 0.02)], _shade(body, 0.6))
    for y in (0.09, 0.19):
        sketch.capsule((half + lean - 0.1, top + y), (half + lean - 0.1, top + y), 0.075, (28, 28, 32))
    sketch.arm(0.2, low - 0.1)
    for i in range(3):
        sketch.finger((0.3, top + 0.36 + 0.12 * i), (0.02, top + 0.34 + 0.12 * i), 0.11)
    sketch.finger((-0.26, low - 0.12), (-0.2, top + 0.42), 0.12)


def _draw_book(sketch: _Sketch, body: np.ndarray) -> None:
    top, low = sketch.lift + 0.1, sketch.lift + 0.95
    sketch.solid([(-0.72, top + 0.05), (0.0, top), (0.0, low), (-0.72, low + 0.04)], _shade(body, 0.95))
    sketch.solid([(0.72, top + 0.05), (0.0, top), (0.0, low), (0.72, low + 0.04)], _shade(body, 0.8))
    sketch.solid([(-0.7, top + 0.035), (0, top - 0.02), (0.7, top + 0.035), (0.7, top + 0.06), (0, top + 0.01),
                  (-0.7, top + 0.06)], (208, 202, 188))
    sketch.solid([(-0.55, top + 0.2), (-0.15, top + 0.18), (-0.15, top + 0.3), (-0.55, top + 0.32)], _shade(body, 1.25))
    for x in (-0.62, 0.6):
        sketch.arm(x, low - 0.05, out=np.sign(x))
        for i in range(4):
            sketch.finger((x * 1.02, low - 0.08 - 0.11 * i), (x * 0.72, low - 0.1 - 0.11 * i), 0.11)


def make_occluder(rng: np.random.Generator, kind: str, skin: np.ndarray, cloth: np.ndarray) -> np.ndarray:
    """A hand, or a thing in a hand, to lay over a face: uint8 RGBA [HIGH, WIDE, 4].

    The middle of the face is MIDDLE (x, y) of the sprite. What is drawn lies over mouth, chin and one cheek, with the
    arm leaving downwards. skin, cloth: RGB of the person as lit.
    """
    sketch = _Sketch(rng, skin, cloth)
    if kind == "hand":
        _draw_hand(sketch)
    else:
        body = np.array(MUTED[rng.integers(len(MUTED))], float) * rng.uniform(0.7, 1.4) * (skin.mean() / 150)
        if kind == "cup":
            _draw_cup(sketch, body)
        elif kind == "phone":
            _draw_phone(sketch, body, rng.uniform(-0.08, 0.08))
        else:
            _draw_book(sketch, body)
    sprite = cv2.resize(cv2.merge((sketch.rgb, sketch.mask)), (WIDE, HIGH), interpolation=cv2.INTER_AREA)
    # colours are bled outwards so that no dark fringe appears where the mask is soft
    grown = cv2.dilate(sprite, np.ones((3, 3), np.uint8))
    grown[..., 3] = cv2.GaussianBlur(sprite[..., 3], (0, 0), 0.8)
    cv2.copyTo(sprite, (sprite[..., 3] > 250).astype(np.uint8), grown)
    return grown


def lay_over(picture: np.ndarray, sprite: np.ndarray, centre: tuple[float, float], width: float,
             angle: float) -> None:
    """Draw a sprite into the picture, in place, for a face of the given middle and width in pixels.

    angle: degrees, clockwise in the picture.
    """
    scale, (mx, my) = width / UNIT, MIDDLE
    if scale < 0.5:                                             # a small face: reduce first, or edges shimmer
        sprite = cv2.resize(sprite, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        scale, mx, my = 2 * scale, mx / 2, my / 2
    c, s = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    m = np.array([[c, -s, centre[0] - c * mx + s * my], [s, c, centre[1] - s * mx - c * my]])
    h, w = sprite.shape[:2]
    corners = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1]]) @ m.T
    x0, y0 = np.maximum(np.floor(corners.min(0)), 0).astype(int).tolist()
    x1, y1 = np.minimum(np.ceil(corners.max(0)), picture.shape[1::-1]).astype(int).tolist()
    if x1 <= x0 or y1 <= y0:
        return
    m[:, 2] -= [x0, y0]
    laid = cv2.warpAffine(sprite, m, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    blend(picture, x0, y0, np.ascontiguousarray(laid[..., :3]), laid[..., 3])


def blend(picture: np.ndarray, x0: int, y0: int, rgb: np.ndarray, alpha: np.ndarray) -> None:
    """Lay rgb [h, w, 3] over the picture at x0, y0, in place; alpha uint8 0..255 or float 0..1 [h, w]."""
    h, w = alpha.shape
    if not h or not w:
        return
    if rgb.dtype != np.uint8:
        rgb = np.clip(rgb, 0, 255).astype(np.uint8)
    weight = alpha.astype(np.float32) * np.float32(1 / 255) if alpha.dtype == np.uint8 else alpha.astype(np.float32)
    below = picture[y0:y0 + h, x0:x0 + w]
    below[:] = cv2.blendLinear(rgb, np.ascontiguousarray(below), weight, 1 - weight)
