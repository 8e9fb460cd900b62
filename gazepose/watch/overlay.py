"""What is drawn on a picture: a box, a label and a strip of the last seconds for each person, or a blurred face.

State is never told by colour alone: looking is a full box with an open eye, not looking has corners only and a closed
eye, not codable is dashed with a question mark.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from gazepose.watch.table import Table

NOT_LOOKING, LOOKING, NOT_CODABLE = 0, 1, 2
COLOURS = {LOOKING: (64, 224, 208), NOT_LOOKING: (255, 183, 77), NOT_CODABLE: (176, 186, 194)}
"""turquoise, amber, grey: apart for colour-blind eyes too, and in lightness from most skin"""
DARK, PANEL, GROOVE, HATCH, WHITE = (12, 15, 18), (18, 22, 25), (38, 45, 51), (112, 122, 130), (245, 247, 248)
SECOND, LOOK = 1, 2          # places in GROUND
GROUND = np.array([GROOVE, PANEL, [int(0.62 * level) for level in COLOURS[LOOKING]]], np.uint8)
"""colours behind a strip: of nothing, of each full second, of a look"""
STRIP_S = 10.0               # seconds that a strip shows
MAX_PANEL = 0.3              # share of the picture's height that all strips take at most
PIXELS = 6                   # of a blurred face, across and down: nobody is recognised by 36 colours
MARGIN = 0.2                 # of a blurred face around its box, in its widths and heights
AROUND_S = 0.5               # blurred before a track begins and after it ends
MAX_GAP_S = 2.0              # gap of a track in which the face is taken to move in a line
SAME = 1e-6                  # seconds; times are compared as floats


def states(table: Table, looks: Table) -> np.ndarray:
    """State of each face of one video, int8 [n]. Within a look of its person it is LOOKING."""
    state = np.where(table["codable"].to_numpy() == 0, NOT_CODABLE, NOT_LOOKING).astype(np.int8)
    seconds, rows_of = table["seconds"].to_numpy(float), table.groupby("person", sort=False).indices
    for name, own in looks.groupby("person", sort=False):
        own, rows = own.sort_values("start"), rows_of.get(name, np.zeros(0, np.int64))
        place = np.searchsorted(own["start"].to_numpy(float) - SAME, seconds[rows], "right") - 1
        inside = (place >= 0) & (seconds[rows] < own["end"].to_numpy(float)[place] - SAME)
        state[rows[inside]] = LOOKING
    return state


@dataclass
class _Person:
    """Faces of a person in the order of time: seconds [n], boxes x, y, width, height [n, 4], probability [n] (NaN:
    unknown), state [n]; row: which strip shows them."""

    name: str
    seconds: np.ndarray
    boxes: np.ndarray
    probability: np.ndarray
    state: np.ndarray
    row: int = -1

    def box_at(self, seconds: float) -> np.ndarray | None:
        """The box [4] at a time, also in gaps and a little before and after."""
        after = int(np.searchsorted(self.seconds, seconds - SAME))
        before = after - 1
        if 0 <= before and after < len(self.seconds) and self.seconds[after] - self.seconds[before] <= MAX_GAP_S:
            share = (seconds - self.seconds[before]) / (self.seconds[after] - self.seconds[before])
            return (1 - share) * self.boxes[before] + share * self.boxes[after]
        for place in (before, after):
            if 0 <= place < len(self.seconds) and abs(self.seconds[place] - seconds) <= AROUND_S + SAME:
                return self.boxes[place]
        return None


class Overlay:
    """Draws on the pictures of one video, one after another.

    Args:
        width, height: of a picture, pixels. table, looks: of this video. strips: with the panel of strips below.

    Attributes:
        width, height: of a drawn picture, both even; strips lie below the picture and hide nothing of it.
    """

    def __init__(self, width: int, height: int, table: Table, looks: Table, blur: bool, strips: bool = True) -> None:
        table = table.sort_values(["frame", "person"], kind="stable")
        self.picture, self.blur = (width, height), blur
        self.scale = min(max(min(width, height) / 720, 0.6), 4.0)
        self.frame, self.person = table["frame"].to_numpy(np.int64), table["person"].astype(str).to_numpy()
        self.boxes = table[["x", "y", "width", "height"]].to_numpy(np.float64)
        self.probability, self.reason = table["looking"].to_numpy(float), table["reason"].fillna("").to_numpy()
        self.state = states(table, looks)
        seconds = table["seconds"].to_numpy(float)
        self.people = [_Person(str(name), seconds[rows], self.boxes[rows], self.probability[rows], self.state[rows])
                       for name, rows in table.groupby("person", sort=False).indices.items()]
        self.first = np.array([person.seconds[0] for person in self.people])
        self.last = np.array([person.seconds[-1] for person in self.people])
        self.row_height = self._px(30)
        self.rows = self._give_rows(int(MAX_PANEL * height / self.row_height)) if strips else 0
        panel = self.rows * self.row_height + (self._px(12) if self.rows else 0)
        self.width, self.height = width + width % 2, (height + panel + 1) // 2 * 2
        self.panel = np.full((self.height - height, self.width, 3), PANEL, np.uint8)

    def draw(self, number: int, seconds: float, picture: np.ndarray) -> np.ndarray:
        """The picture uint8 [h, w, 3] with what belongs to its number and time, [height, width, 3]."""
        width, height = self.picture
        canvas = np.empty((self.height, self.width, 3), np.uint8)
        canvas[height:], canvas[:height, width:] = self.panel, DARK
        canvas[:height, :width] = picture
        shown = canvas[:height, :width]
        rows = slice(*np.searchsorted(self.frame, [number, number + 1]))
        if self.blur:
            self._blur_faces(shown, seconds, rows)
        for row in range(rows.start, rows.stop):
            self._draw_box(shown, self.boxes[row], int(self.state[row]))
        for row in range(rows.start, rows.stop):               # labels last, so that no box crosses them
            self._draw_label(shown, row)
        for place in self._active(seconds, STRIP_S) if self.rows else ():
            self._draw_strip(canvas, self.people[place], seconds)
        return canvas

    def _px(self, size: float) -> int:
        return max(1, round(size * self.scale))

    def _active(self, seconds: float, after: float) -> np.ndarray:
        """Places of people who are seen from now on for half a second, or were so many seconds ago."""
        return np.flatnonzero((self.first - AROUND_S <= seconds) & (seconds <= self.last + after))

    def _give_rows(self, most: int) -> int:
        """Give each person the first free row of the panel while they are shown; returns how many rows are used."""
        free_from: list[float] = []
        for person in sorted(self.people, key=lambda person: person.seconds[0]):
            row = next((row for row, ends in enumerate(free_from) if ends <= person.seconds[0]), len(free_from))
            if row < max(most, 1):
                free_from[row:row + 1] = [person.seconds[-1] + STRIP_S]
                person.row = row
        return len(free_from)

    # ---- faces

    def _blur_faces(self, picture: np.ndarray, seconds: float, rows: slice) -> None:
        boxes, seen = list(self.boxes[rows]), set(self.person[rows])
        for place in self._active(seconds, AROUND_S):
            if self.people[place].name not in seen:
                boxes.append(self.people[place].box_at(seconds))
        for box in boxes:
            if box is not None:
                pixelate(picture, box)

    def _draw_box(self, picture: np.ndarray, box: np.ndarray, state: int) -> None:
        x1, y1, x2, y2 = (round(float(v)) for v in (box[0], box[1], box[0] + box[2], box[1] + box[3]))
        corners = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], np.float64)
        thickness = self._px(4 if state == LOOKING else 2.5)
        parts = []
        for k in range(4):
            start, end = corners[k], corners[(k + 1) % 4]
            length = max(float(np.abs(end - start).sum()), 1.0)
            if state == LOOKING:
                shares = [(0.0, 1.0)]
            elif state == NOT_LOOKING:
                shares = [(0.0, 0.24), (0.76, 1.0)]
            else:
                dashes = max(3, round(length / self._px(14)))
                shares = [(dash / dashes, (dash + 0.55) / dashes) for dash in range(dashes)]
            parts += [(start + (end - start) * a, start + (end - start) * b) for a, b in shares]
        for colour, width in ((DARK, thickness + 2), (COLOURS[state], thickness)):
            for a, b in parts:
                cv2.line(picture, tuple(map(round, a.tolist())), tuple(map(round, b.tolist())), colour, width,
                         cv2.LINE_AA)

    def _draw_label(self, picture: np.ndarray, row: int) -> None:
        state, box, size = int(self.state[row]), self.boxes[row], self._px(19)
        words = f"{self.person[row][:24]}  {self._note(row)}"
        letters = _letters(words, size, True)
        pad, height = self._px(8), letters.shape[0] + self._px(6)
        width = letters.shape[1] + height + 2 * pad
        x = int(np.clip(round(box[0]) - self._px(2), 0, max(picture.shape[1] - width, 0)))
        y = round(box[1]) - height - self._px(4)
        if y < 0:                                              # no room above the face
            y = min(round(box[1] + box[3]) + self._px(4), picture.shape[0] - height)
        label = picture[max(y, 0):y + height, x:x + width]
        if label.shape[0] < height or label.shape[1] < height:
            return                                             # a picture smaller than a label
        back, ink = (COLOURS[state], DARK) if state == LOOKING else (DARK, COLOURS[state])
        label[:] = back if state == LOOKING else label // 4 + np.array([3 * level // 4 for level in back], np.uint8)
        _icon(label[:, :height + pad], state, ink, size)
        _blend(label[(height - letters.shape[0]) // 2:, height + pad:], letters, ink)

    def _note(self, row: int) -> str:
        if self.state[row] == NOT_CODABLE:
            return self.reason[row] or "not codable"
        return "" if np.isnan(self.probability[row]) else f"{100 * self.probability[row]:.0f} %"

    # ---- strips

    def _draw_strip(self, canvas: np.ndarray, person: _Person, now: float) -> None:
        if person.row < 0:
            return
        top = self.picture[1] + self._px(6) + person.row * self.row_height + self._px(3)
        height, size = self.row_height - self._px(6), self._px(16)
        left, right = min(self._px(150), self.width // 4), self.width - self._px(74)
        name = _letters(person.name[:24], size, True)[:, :max(left - self._px(16), 1)]
        _blend(canvas[top + max(height - name.shape[0], 0) // 2:, self._px(8):], name, WHITE)
        strip = canvas[top:top + height, left:right]
        times = now + (np.arange(strip.shape[1]) + 1 - strip.shape[1]) * (STRIP_S / strip.shape[1])
        place = np.searchsorted(person.seconds, times + SAME, "right") - 1
        seen = (place >= 0) & (times - person.seconds[place] < 0.25)
        state, probability = person.state[place], person.probability[place]
        ground = np.zeros(len(times), np.int8)
        ground[1:][np.diff(np.floor(times)) > 0] = SECOND
        ground[seen & (state == LOOKING)] = LOOK
        strip[:] = GROUND[ground]                              # a whole row at a time
        hidden = np.flatnonzero(seen & (state == NOT_CODABLE))
        if len(hidden):                                        # hatched; the lines move with the time
            moved = round(now * strip.shape[1] / STRIP_S)
            stroke = np.add.outer(np.arange(height), hidden + moved) % self._px(9) < self._px(3)
            strip[:, hidden] = np.where(stroke[..., None], HATCH, strip[:, hidden])
        base = strip[-self._px(3):]
        base[:, seen & (state == NOT_LOOKING)] = COLOURS[NOT_LOOKING]
        known = seen & (state != NOT_CODABLE) & ~np.isnan(probability)
        y = np.round((height - 2) * (1 - np.nan_to_num(probability))).astype(np.int32)
        for run in np.split(np.flatnonzero(known), np.flatnonzero(np.diff(np.flatnonzero(known)) > 1) + 1):
            if len(run):
                cv2.polylines(strip, [np.stack([run, y[run]], 1).astype(np.int32)], False, WHITE, self._px(1.6),
                              cv2.LINE_AA)
        if seen[-1]:
            self._draw_now(canvas[top:top + height, right:], int(state[-1]), float(probability[-1]), size)

    def _draw_now(self, place: np.ndarray, state: int, probability: float, size: int) -> None:
        """Icon and probability at the right end of a strip."""
        side = place.shape[0]
        _icon(place[:, self._px(4):self._px(4) + side], state, COLOURS[state], size)
        if state != NOT_CODABLE and not np.isnan(probability):
            letters = _letters(f"{100 * probability:.0f}", size, True)
            _blend(place[max(side - letters.shape[0], 0) // 2:, self._px(8) + side:], letters, COLOURS[state])


def pixelate(picture: np.ndarray, box: np.ndarray) -> None:
    """Make a face unrecognisable in place: its box x, y, width, height with a margin becomes a few flat squares."""
    x, y, width, height = (float(v) for v in box)
    x1, x2 = (int(np.clip(v, 0, picture.shape[1])) for v in (x - MARGIN * width, x + (1 + MARGIN) * width + 1))
    y1, y2 = (int(np.clip(v, 0, picture.shape[0])) for v in (y - MARGIN * height, y + (1 + MARGIN) * height + 1))
    if x2 > x1 and y2 > y1:
        few = cv2.resize(picture[y1:y2, x1:x2], (PIXELS, PIXELS), interpolation=cv2.INTER_AREA)
        picture[y1:y2, x1:x2] = cv2.resize(few, (x2 - x1, y2 - y1), interpolation=cv2.INTER_NEAREST)


@lru_cache(512)
def _letters(text: str, size: int, bold: bool) -> np.ndarray:
    """A line of text as opacity, float32 [h, w]; h is the same for all texts of a size."""
    from PIL import Image, ImageDraw, ImageFont

    from gazepose.report.style import font_file
    font = ImageFont.truetype(font_file(bold), size)
    ascent, descent = font.getmetrics()
    line = Image.new("L", (max(1, round(font.getlength(text))), ascent + descent))
    ImageDraw.Draw(line).text((0, 0), text, 255, font)
    return np.asarray(line, np.float32) / 255


def _blend(picture: np.ndarray, letters: np.ndarray, colour: tuple[int, int, int]) -> None:
    part = picture[:letters.shape[0], :letters.shape[1]]
    opacity = letters[:part.shape[0], :part.shape[1], None]
    part[:] = (part * (1 - opacity) + np.array(colour, np.float32) * opacity).astype(np.uint8)


def _icon(square: np.ndarray, state: int, colour: tuple[int, int, int], size: int) -> None:
    """An open eye, a closed eye or a question mark in the middle of a part [h, w, 3] of a picture."""
    middle = (square.shape[1] // 2, square.shape[0] // 2)
    if state == NOT_CODABLE:
        letters = _letters("?", size, True)
        _blend(square[max(square.shape[0] - letters.shape[0], 0) // 2:, middle[0] - letters.shape[1] // 2:], letters,
               colour)
        return
    icon = np.ascontiguousarray(square)
    line, across, down = max(1, round(size / 9)), round(size * 0.46), round(size * 0.27)
    if state == LOOKING:
        cv2.ellipse(icon, middle, (across, down), 0, 0, 360, colour, line, cv2.LINE_AA)
        cv2.circle(icon, middle, max(1, round(size * 0.15)), colour, -1, cv2.LINE_AA)
    else:
        cv2.ellipse(icon, middle, (across, down), 0, 10, 170, colour, line, cv2.LINE_AA)
        for turn in (40, 90, 140):                             # lashes
            x, y = np.cos(np.radians(turn)), np.sin(np.radians(turn))
            ends = [(round(middle[0] + across * x * far), round(middle[1] + down * y * far)) for far in (1.0, 1.75)]
            cv2.line(icon, ends[0], ends[1], colour, line, cv2.LINE_AA)
    square[:] = icon
