"""Objects scattered over a street scene where the ground suits them: people, vehicles, animals, street furniture."""

from collections.abc import Callable
from functools import partial
from math import pi
from random import Random

from bench.scenes import kerbside
from bench.scenes.furniture import chair, table
from bench.scenes.living import animal, person
from bench.scenes.painter import Painter
from bench.scenes.plants import hedge
from bench.scenes.pose import Pose
from bench.scenes.vehicles import CLOSEST_CAR, bicycle, car

Prop = tuple[float, Callable[[], None]]  # distance ahead, and the function that paints the object

# objects for each type of ground, and their frequency
STREWN: dict[str, tuple[tuple[str, ...], tuple[float, ...]]] = {
    "road": (("car", "person", "rider", "cones", "animal"), (5, 2, 2.5, 2.5, 0.3)),
    "sidewalk": (
        ("person", "bicycle", "bin", "cones", "animal", "oddment", "cafe", "rider"),
        (6, 2.5, 1.6, 0.9, 1.0, 1.2, 1.0, 0.7),
    ),
    "grass": (("person", "animal", "bin", "oddment", "bicycle", "hedge"), (3, 2, 0.8, 1.2, 0.5, 1)),
    "earth": (("person", "animal", "bin", "oddment", "car", "bicycle", "cafe"), (3, 1, 1, 1.5, 1.2, 1, 0.4)),
    "park": (("person", "animal", "oddment", "bicycle", "bin"), (4, 3, 1, 0.7, 0.5)),
    "field": (("person", "animal", "oddment"), (1.5, 3, 0.5)),
}


def strewn(p: Painter, ground: Callable[[float, float], str], turn: float) -> list[Prop]:
    """Place objects in view, alone or in groups, each on suitable `ground` (a function of x, z)."""
    dice = p.dice
    props: list[Prop] = []
    near = p.view.nearest()
    busy = dice.choice((5, 9, 16))
    for _ in range(busy):
        z = near * (70 / near) ** dice.random()
        x = dice.uniform(-1, 1) * p.view.half_width(z)
        kind = ground(x, z)
        names, weights = STREWN.get(kind, ((), ()))
        if not names:
            continue
        name = dice.choices(names, weights)[0]
        heading = pi / 2 - turn + dice.choice((0, pi)) + dice.gauss(0, 0.12)
        for s in _group(dice, name, Pose(x, z, heading)):
            if s.z > (max(near, CLOSEST_CAR) if name == "car" else near):
                props.append((s.z, partial(_paint, p, name, s)))
    return props


def _group(dice: Random, name: str, s: Pose) -> list[Pose]:
    """Draw the places of a group; most objects are alone."""
    if name == "person":
        count = dice.choice((1, 1, 1, 2, 2, 4))
        return [
            Pose(s.x + dice.gauss(0, 0.6) * (i > 0), s.z + dice.gauss(0, 0.6) * (i > 0), s.heading + dice.gauss(0, 0.4))
            for i in range(count)
        ]
    if name in ("cones", "bin", "bicycle"):
        step = {"cones": 1.5, "bin": 0.8, "bicycle": 0.7}[name]
        count = dice.choice((1, 2, 4)) if name == "cones" else dice.choice((1, 1, 2, 4))
        turned = s.heading + (dice.choice((0.0, 1.2)) if name != "cones" else 0)
        line = Pose(s.x, s.z, s.heading)
        return [
            Pose(q.x, q.z, turned + dice.gauss(0, 0.1))
            for q in (line.near(i * step, dice.gauss(0, 0.1)) for i in range(count))
        ]
    return [s]


def _paint(p: Painter, name: str, s: Pose) -> None:
    dice = p.dice
    if name == "car":
        car(p, s, moving=dice.random() < 0.7)
    elif name == "person":
        person(p, Pose(s.x, s.z, s.heading + dice.choice((0, 0, dice.uniform(0, 2 * pi)))))
    elif name == "rider":
        bicycle(p, s)
        person(p, s, "ride")
    elif name == "cafe":
        for turned in (0.0, pi / 2):
            chair(p, s.near(0.75, 0.0, pi + turned), taken=dice.random() < 0.4)
        table(p, s, (0.8, 0.74, 0.8))
    elif name == "hedge":
        hedge(p, s, dice.uniform(1.5, 8))
    else:
        {
            "cones": kerbside.cone,
            "bin": kerbside.trash_can,
            "bicycle": bicycle,
            "animal": animal,
            "oddment": kerbside.oddment,
        }[name](p, s)
